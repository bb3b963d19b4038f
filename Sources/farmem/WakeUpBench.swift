import CommandLineKit
import FarMemory
import HTTPEndpoint
import JSONText
import LinuxSystem
import Measurement
import WorkloadTrace

let benchWakeUpCommand = Command(
    name: "wake-up",
    summary: "time the first request to a fully drained container, without and with prefetch",
    discussion: """
        Starts memory server, far swap, controller and gateway, lets each function's container be drained of all that it holds, and times \
        the request that wakes it: --prefetch off against the given mode, alternating, several rounds each. Every response is verified. A \
        container that was not drained, or that started anew, is a failure. Exit status 1: a wrong response, or a ratio below --at-least.
        """,
    options: [
        Option(
            "function", .string, repeatable: true, placeholder: "NAME",
            help: "Functions to wake up (default graph and json)."),
        Option("rounds", .integer(1...1000), default: "5", help: "Wake-ups of each kind, twice."),
        Option(
            "prefetch", .choice(["on", "adaptive"]), default: "adaptive",
            help: "What is compared with off."),
        Option(
            "at-least", .integer(0...100), default: "0",
            help: "Fail when a first response is not so many times faster with prefetch."),
        Option("far-size", .size, default: "2GiB", help: "Size of the far memory."),
        Option(
            "functions-dir", .string, default: "functions", placeholder: "DIR",
            help: "Directory of the functions and their agent."),
        Option("json", .string, placeholder: "FILE", help: "Write the figures to this file."),
        Option("keep-logs", .flag, help: "Leave the programs' logs in the runtime directory."),
        Option.logLevel,
    ],
    run: runWakeUp)

private func runWakeUp(_ invocation: Invocation) throws -> ExitStatus {
    ignoreBrokenPipes()
    guard runsAsRoot() else {
        throw CommandFailure(.permission, "containers and swap need root; run with sudo")
    }
    let names = invocation.strings("function")
    for name in names where !knownFunctions.contains(name) {
        throw UsageError(
            "--function: '\(name)' is none of \(knownFunctions.joined(separator: ", "))")
    }
    let settings = FunctionBenchSettings(
        functions: names.isEmpty ? ["graph", "json"] : names,
        farSize: invocation.size("far-size"),
        functionsDirectory: invocation.string("functions-dir"),
        logLevel: invocation.string("log-level"))
    let bench = WakeUpBench(
        settings: settings, mode: invocation.string("prefetch"),
        rounds: invocation.integer("rounds"))
    let figures = try bench.run(keepLogs: invocation.flag("keep-logs"))
    printOut(figures.table())
    if let file = invocation.stringIfSet("json") {
        try replaceFile(file, with: figures.json.rendered(pretty: true))
    }
    let least = Double(invocation.integer("at-least"))
    let isWell = settings.functions.allSatisfy { (figures.ratio($0) ?? 0) >= least }
    return isWell && figures.wrong == 0 ? .done : .checkFailed
}

extension FunctionBenchSettings {
    /// Of a benchmark without a trace.
    init(functions: [String], farSize: ByteCount, functionsDirectory: String, logLevel: String) {
        trace = nil
        speedup = 1
        seed = 1
        duration = .seconds(5)
        warmUp = .zero
        start = .zero
        self.functions = functions
        traceFunctions = functions.count
        rateMax = 1
        keepAlive = .seconds(3600)
        self.farSize = farSize
        farMemory = nil
        attachOptions = []
        self.functionsDirectory = functionsDirectory
        self.logLevel = logLevel
        schedule = nil
        variants = []
        comparesPolicies = false
        repetitions = 1
        timeline = .seconds(1)
        sampleInterval = .milliseconds(250)
        memoryLimit = nil
        containersMax = 1
    }
}

/// One wake-up.
struct WakeUp {
    var function: String
    var mode: String
    /// Until the response, of the drained container and of the same container right after it.
    var first: Nanoseconds
    var warm: Nanoseconds
    var farBytes: UInt64
    var recalledBytes: UInt64
}

/// Drains and wakes containers. One thread.
struct WakeUpBench {
    let settings: FunctionBenchSettings
    let mode: String
    let rounds: Int

    private static let drainDeadline: Int64 = 120_000_000_000

    func run(keepLogs: Bool) throws -> WakeUpFigures {
        let schedule = RequestSchedule(
            trace: .generated(seed: 1, functions: 1, length: .seconds(1)),
            functions: settings.functions,
            seedsPerFunction: FunctionBenchSettings.seedsPerFunction, speedup: 1, seed: 1)
        let bench = FunctionBench(
            settings: settings, schedule: schedule, cancellation: Cancellation())
        let processes = try BenchProcesses(logLevel: settings.logLevel)
        bench.cleanLeftovers(processes)
        var isWell = false
        defer {
            let problems = processes.tearDown()
            for problem in problems { printError("farmem: \(problem)") }
            if isWell && problems.isEmpty && !keepLogs {
                processes.removeDirectory()
            } else {
                printError("farmem: logs are in \(processes.directory)")
            }
        }
        bench.say(
            "reference: each function answers \(FunctionBenchSettings.seedsPerFunction) requests")
        let reference = try bench.collectReference(processes)
        var figures = WakeUpFigures(functions: settings.functions, mode: mode)
        // Off, on, on, off: what drifts with time hits both alike.
        for mode in ["off", mode, mode, "off"] {
            bench.say("\(rounds) wake-ups of each function, prefetch \(mode)")
            try phase(mode, bench, processes, reference, &figures)
            try bench.stopAll(processes)
        }
        isWell = true
        return figures
    }

    private func phase(
        _ mode: String, _ bench: FunctionBench, _ processes: BenchProcesses,
        _ reference: ReferenceAnswers, _ figures: inout WakeUpFigures
    ) throws {
        let variant = PolicyVariant(
            name: mode, policy: "farmem",
            options: [
                "--prefetch=\(mode)", "--semi-warm-delay=500ms", "--semi-warm-min=500ms",
                "--drain-percent=100", "--floor=0B", "--recycle-guard=0s", "--runtime-pucket=false",
                "--init-pucket=false", "--bandwidth=1GiB/s", "--burst=1GiB",
            ])
        let controller = HTTPClient(target: try bench.startOffloading(processes, variant))
        let gateway = HTTPClient(target: try bench.startGateway(processes, offloads: true))
        for function in settings.functions {
            var seed: UInt64 = 1
            func ask() throws -> Nanoseconds {
                seed = seed % UInt64(FunctionBenchSettings.seedsPerFunction) + 1
                let start = monotonicNow()
                let response = try gateway.request(
                    "POST", "/function/\(function)",
                    headers: [("Content-Type", "application/json")],
                    body: Array("{\"seed\":\(seed)}".utf8), timeout: .seconds(90))
                let took = Nanoseconds(monotonicNow() - start)
                guard response.status == 200,
                    case .right = reference.verify(function, seed, response.body)
                else {
                    figures.wrong += 1
                    return took
                }
                return took
            }
            _ = try ask()
            _ = try ask()
            // The first of them teaches what is needed, as in production the first wake-up of a container does.
            for round in 0...rounds {
                let before = try drained(function, controller)
                let first = try ask()
                let warm = try ask()
                let after = try container(function, controller)
                guard round > 0 else { continue }
                figures.wakeUps.append(
                    WakeUp(
                        function: function, mode: mode, first: first, warm: warm,
                        farBytes: number(before, "far_bytes"),
                        recalledBytes: number(after, "recalled_bytes")
                            - min(
                                number(after, "recalled_bytes"), number(before, "recalled_bytes"))))
            }
        }
    }

    private func number(_ value: JSONValue, _ key: String) -> UInt64 {
        UInt64(max(0, value[key]?.integer ?? 0))
    }

    private func container(_ function: String, _ controller: HTTPClient) throws -> JSONValue {
        let response = try controller.request("GET", "/v1/containers", timeout: .seconds(10))
        let list = try JSONValue.parse(response.body)["containers"]?.array ?? []
        let own = list.filter { $0["function"]?.string == function }
        guard own.count == 1 else {
            throw CommandFailure(
                .systemError, "\(own.count) containers of \(function); one is expected")
        }
        return own[0]
    }

    /// Waits until the function's container is drained and the device has taken all of it.
    private func drained(_ function: String, _ controller: HTTPClient) throws -> JSONValue {
        let deadline = monotonicNow() + Self.drainDeadline
        while monotonicNow() < deadline {
            let now = try container(function, controller)
            if now["state"]?.string == "drained" {
                sleepNanoseconds(300_000_000)
                return try container(function, controller)
            }
            sleepNanoseconds(50_000_000)
        }
        throw CommandFailure(.systemError, "the container of \(function) was not drained in time")
    }
}

/// What came of all wake-ups.
struct WakeUpFigures {
    var functions: [String]
    var mode: String
    var wakeUps: [WakeUp] = []
    var wrong = 0

    private func values(_ function: String, _ mode: String) -> [WakeUp] {
        wakeUps.filter { $0.function == function && $0.mode == mode }
    }

    private func firsts(_ function: String, _ mode: String) -> [Double] {
        values(function, mode).map { Double($0.first.nanoseconds) / 1e6 }.sorted()
    }

    private func median(_ sorted: [Double]) -> Double? {
        sorted.isEmpty ? nil : sorted[sorted.count / 2]
    }

    /// How many times faster the first response is with prefetch, by medians.
    func ratio(_ function: String) -> Double? {
        guard let off = median(firsts(function, "off")), let on = median(firsts(function, mode)),
            on > 0
        else { return nil }
        return off / on
    }

    func table() -> String {
        var table = TextTable([
            .init("FUNCTION"), .init("PREFETCH"), .right("WAKE-UPS"), .right("FAR MiB"),
            .right("PREFETCHED"), .right("FIRST ms"), .right("QUARTILES"), .right("WARM ms"),
            .right("FASTER"),
        ])
        for function in functions {
            for mode in ["off", mode] {
                let all = values(function, mode)
                let times = firsts(function, mode)
                guard let middle = median(times) else { continue }
                let warm = median(all.map { Double($0.warm.nanoseconds) / 1e6 }.sorted()) ?? 0
                func mean(_ part: (WakeUp) -> UInt64) -> String {
                    fixed(
                        Double(all.reduce(0) { $0 + part($1) }) / Double(all.count) / 1_048_576, 1)
                }
                table.append([
                    function, mode, "\(all.count)", mean { $0.farBytes },
                    mean { $0.recalledBytes }, fixed(middle, 1),
                    "\(fixed(times[times.count / 4], 1))-\(fixed(times[times.count * 3 / 4], 1))",
                    fixed(warm, 1),
                    mode == "off" ? "" : "\(fixed(ratio(function) ?? 0, 2))x",
                ])
            }
        }
        return table.rendered() + "wrong responses: \(wrong)\n"
    }

    var json: JSONValue {
        [
            "schema": 1, "wrong": JSONValue(wrong),
            "ratios": .object(
                functions.compactMap { name in
                    ratio(name).map { .init(name, JSONValue($0)) }
                }),
            "wake_ups": .array(
                wakeUps.map {
                    [
                        "function": JSONValue($0.function), "prefetch": JSONValue($0.mode),
                        "first_us": JSONValue($0.first.microseconds),
                        "warm_us": JSONValue($0.warm.microseconds),
                        "far_bytes": JSONValue($0.farBytes),
                        "recalled_bytes": JSONValue($0.recalledBytes),
                    ]
                }),
        ]
    }
}
