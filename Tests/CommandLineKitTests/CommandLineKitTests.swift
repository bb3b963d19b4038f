import CommandLineKit
import FarMemory
import JSONText
import LinuxSystem
import TestSupport
import Testing

/// A program like the real ones: a group with a daemon and a client.
let sample = Program(
    Command(
        name: "memserver", summary: "lend memory",
        subcommands: [
            Command(
                name: "serve", summary: "run the server", discussion: "First.\n\nSecond.",
                options: [
                    Option("capacity", .size, required: true, help: "Memory to lend."),
                    Option("slab", .size, default: "1MiB", help: "Unit of grant."),
                    Option("nbd", .endpoint, repeatable: true, help: "Listen here."),
                    Option("grace", .duration, default: "1h", help: "Keep a lost lease."),
                    Option("limit", .rate, help: "Bandwidth."),
                    Option("percentile", .ratio, default: "99%", help: "When to start."),
                    Option("threads", .integer(1...64), default: "2", help: "Workers."),
                    Option("frontend", .choice(["auto", "fuse"]), default: "auto", help: "How."),
                    Option("policy-dir", .string, help: "Where."),
                    Option("poll", .flag, help: "Spin."),
                ] + Option.daemon,
                examples: [("memserver serve --capacity 4GiB", "Lend four")],
                run: { _ in .done }),
            Command(
                name: "status", summary: "show the state", options: [.json],
                positionals: [
                    Positional("name", help: "Lease."),
                    Positional("more", required: false, repeatable: true, help: "Others."),
                ],
                run: { _ in .checkFailed }),
        ]), version: "9.9")

func invocation(_ line: String, _ environment: [String: String] = [:]) throws -> Invocation {
    let arguments = line.split(separator: " ").map(String.init)
    guard
        case .run(_, let invocation) = try sample.plan(
            arguments: arguments, environment: environment)
    else { throw CommandFailure(.bug, "expected a command to run") }
    return invocation
}

func printed(_ line: String, _ environment: [String: String] = [:]) throws -> String {
    let arguments = line.split(separator: " ").map(String.init)
    guard case .print(let text) = try sample.plan(arguments: arguments, environment: environment)
    else { throw CommandFailure(.bug, "expected something to print") }
    return text
}

func usageError(_ line: String, _ environment: [String: String] = [:]) -> UsageError? {
    do {
        _ = try invocation(line, environment)
        return nil
    } catch { return error as? UsageError }
}

@Suite struct ArgumentTests {
    @Test func everyKindIsParsed() throws {
        let line =
            "serve --capacity=1.5GiB --nbd unix:/run/x --nbd tcp://[::1]:10809 --grace 250ms "
            + "--limit 64MiB/s --percentile 0.5 --threads 8 --frontend fuse --poll"
        let given = try invocation(line)
        #expect(given.path == ["memserver", "serve"])
        #expect(given.size("capacity") == .mib(1536))
        #expect(given.size("slab") == .mib(1))
        #expect(given.endpoints("nbd") == [.unix(path: "/run/x"), .tcp(host: "::1", port: 10809)])
        #expect(given.duration("grace") == .milliseconds(250))
        #expect(given.rate("limit") == .mib(64))
        #expect(given.ratio("percentile") == 0.5)
        #expect(given.integer("threads") == 8)
        #expect(given.string("frontend") == "fuse")
        #expect(given.flag("poll"))
        #expect(given.stringIfSet("policy-dir") == nil)
        #expect(given.integerIfSet("ready-fd") == nil)
    }

    @Test func positionalsAndTheEndOfOptions() throws {
        let given = try invocation("status --json -- --odd a b")
        #expect(given.positional("name") == "--odd")
        #expect(given.positionals == ["--odd", "a", "b"])
        #expect(given.flag("json"))
    }

    @Test(arguments: [
        ("serve --capacty 4GiB", "did you mean --capacity?"),
        ("serv --capacity 4GiB", "did you mean 'serve'?"),
        ("serve --capacity 4GiB --capacity 5GiB", "given twice"),
        ("serve --capacity", "needs a value"),
        ("serve --capacity 4", "has no unit"),
        ("serve --capacity 4GB", "no known unit"),
        ("serve --capacity 4GiB --threads 65", "1 to 64"),
        ("serve --capacity 4GiB --frontend fusee", "did you mean 'fuse'?"),
        ("serve --capacity 4GiB --poll=maybe", "neither true nor false"),
        ("serve --capacity 4GiB extra", "unexpected argument 'extra'"),
        ("serve", "--capacity SIZE is missing"),
        ("status", "NAME is missing"),
        ("", "a command is missing"),
        ("serve -x", "unknown option '-x'"),
        ("serve --help=xml", "--help=json"),
    ])
    func wrongUseSaysWhatToDo(line: String, hint: String) throws {
        let error = try #require(usageError(line))
        #expect(error.message.contains(hint), "\(error.message)")
        #expect(error.exitStatus == .usage)
        #expect(!error.message.contains("\n"))
    }
}

@Suite struct PrecedenceTests {
    let file = """
        capacity: 2GiB
        grace: 2h
        threads: 3
        policy: {dir: /var/lib}
        nbd: [127.0.0.1:1, "127.0.0.1:2"]
        """

    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    /// A new file in this test's directory.
    func write(_ text: String) throws -> String {
        let number = try directoryEntries(directory.path).count
        let path = directory.file("\(number).yaml")
        try replaceFile(path, with: text)
        return path
    }

    @Test func fileThenEnvironmentThenFlag() throws {
        let path = try write(file)
        let environment = ["FARMEM_MEMSERVER_THREADS": "4", "FARMEM_MEMSERVER_GRACE": "3h"]
        let given = try invocation("serve --config \(path) --grace 4h", environment)
        #expect(given.size("capacity") == .gib(2))
        #expect(given.integer("threads") == 4)
        #expect(given.duration("grace") == .seconds(4 * 3600))
        #expect(given.string("policy-dir") == "/var/lib")
        #expect(given.endpoints("nbd").count == 2)
        #expect(given.origin("capacity") == .file(path: path, line: 1))
        #expect(given.origin("threads") == .environment(variable: "FARMEM_MEMSERVER_THREADS"))
        #expect(given.origin("grace") == .commandLine)
        #expect(given.origin("slab") == .builtIn)
    }

    @Test func printConfigShowsEachOriginAndReadsBack() throws {
        let path = try write(file)
        let text = try printed(
            "serve --config \(path) --print-config --slab 2MiB", ["FARMEM_MEMSERVER_THREADS": "4"])
        #expect(text.contains("slab: 2MiB"))
        #expect(text.contains("# command line"))
        #expect(text.contains("# \(path):1"))
        #expect(text.contains("# variable FARMEM_MEMSERVER_THREADS"))
        #expect(text.contains("# default"))
        let again = try invocation("serve --config \(try write(text))")
        #expect(again.size("slab") == .mib(2))
        #expect(again.integer("threads") == 4)
        #expect(again.endpoints("nbd").count == 2)
    }

    @Test(arguments: [
        ("capacty: 4GiB", "did you mean 'capacity'?"),
        ("a:\n  b: 1", "unknown key 'a.b'"),
        ("capacity: 4", "has no unit"),
        ("capacity: [1GiB, 2GiB]", "one value"),
        ("capacity: 1GiB\ncapacity: 2GiB", "also set in line 1"),
        ("policy: {dir: a}\npolicy-dir: b", "also set in line 1"),
        ("capacity:", "has no value"),
        ("- a", "name: value"),
        ("capacity: &x 1GiB", "not supported"),
        ("capacity: !!str 1GiB", "not supported"),
        ("threads: {a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}}", "deeper"),
        ("capacity: 1GiB\n---\ncapacity: 1GiB", "one YAML document"),
        ("capacity: \"1GiB", "not valid YAML"),
        ("config: /etc/x", "unknown key 'config'"),
        ("ready-fd: 3", "unknown key 'ready-fd'"),
    ])
    func wrongFilesNameTheLine(text: String, hint: String) throws {
        let path = try write(text)
        let error = try #require(usageError("serve --capacity 1GiB --config \(path)"))
        #expect(error.message.contains(hint), "\(error.message)")
        #expect(error.exitStatus == .badConfiguration)
    }

    @Test func aMissingFileIsBadConfiguration() {
        #expect(usageError("serve --config /nonexistent/x")?.exitStatus == .badConfiguration)
    }

    @Test func anUnknownVariableOfTheProgramIsAnError() throws {
        let error = usageError("serve --capacity 1GiB", ["FARMEM_MEMSERVER_CAPACTY": "1GiB"])
        #expect(error?.message.contains("did you mean FARMEM_MEMSERVER_CAPACITY?") == true)
        _ = try invocation("serve --capacity 1GiB", ["FARMEM_SEED": "1"])
        let wrong = usageError("serve", ["FARMEM_MEMSERVER_CAPACITY": "9"])
        #expect(wrong?.message.contains("FARMEM_MEMSERVER_CAPACITY: '9' has no unit") == true)
    }

    @Test func checkConfigurationListsWhatTheFileSets() throws {
        let set = try sample.checkConfiguration(file: try write(file), for: ["serve"])
        #expect(set.map(\.name) == ["capacity", "grace", "nbd", "policy-dir", "threads"])
        let bad = try write("x: 1")
        #expect(throws: UsageError.self) {
            try sample.checkConfiguration(file: bad, for: ["serve"])
        }
    }
}

@Suite struct HelpTests {
    @Test func theManualPageComesFromTheTable() throws {
        let text = try printed("serve --help")
        for heading in [
            "NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES",
        ] {
            #expect(text.contains("\(heading)\n    "), "\(heading)")
        }
        #expect(text.contains("memserver serve - run the server"))
        #expect(text.contains("memserver serve --capacity SIZE [OPTION]..."))
        #expect(text.contains("FARMEM_MEMSERVER_CAPACITY"))
        #expect(text.contains("Default: 1MiB."))
        #expect(text.contains("78  wrong configuration file"))
        #expect(text.split(separator: "\n").allSatisfy { $0.count <= 80 })
        #expect(try printed("--help").contains("serve    run the server"))
    }

    @Test func helpIsAlsoJSON() throws {
        let page = try JSONValue.parse(try printed("status --help=json"))
        #expect(page["schema"]?.integer == 1)
        #expect(page["command"]?.string == "memserver status")
        #expect(page["options"]?[0]?["name"]?.string == "json")
        #expect(page["arguments"]?[1]?["repeatable"]?.bool == true)
    }

    @Test func version() throws {
        #expect(try printed("--version") == "memserver 9.9\n")
        #expect(try printed("serve -v") == "memserver 9.9\n")
    }

    @Test func statusesOfRuns() {
        #expect(sample.run(arguments: ["status", "x"], environment: [:]) == .checkFailed)
        #expect(sample.run(arguments: ["status"], environment: [:]) == .usage)
    }
}
