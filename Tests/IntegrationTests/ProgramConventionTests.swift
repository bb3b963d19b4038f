import JSONText
import LinuxSystem
import TestSupport
import Testing

/// What scripts and people may expect of every program of this package.
@Suite struct ProgramConventionTests {
    /// Each program with the path of every command of it, found in its own help.
    static let programs = ["memserver", "farswap", "offloadd", "fngateway", "farmem"]

    private static func page(_ program: String, _ path: [String]) throws -> JSONValue {
        let run = try TestProcess.run(program, path + ["--help=json"])
        #expect(run.end == .exited(0), "\(program) \(path) --help=json: \(run.error)")
        return try JSONValue.parse(run.output)
    }

    /// Every command of a program, depth first.
    private static func commands(_ program: String, _ path: [String] = []) throws -> [[String]] {
        let names = try page(program, path)["commands"]?.array ?? []
        var all = [path]
        for name in names.compactMap({ $0["name"]?.string }) {
            all += try commands(program, path + [name])
        }
        return all
    }

    @Test(arguments: programs)
    func everyCommandHasAManualPage(program: String) throws {
        for path in try Self.commands(program) {
            let run = try TestProcess.run(program, path + ["--help"])
            #expect(run.end == .exited(0))
            for heading in ["NAME\n", "SYNOPSIS\n", "OPTIONS\n", "EXIT STATUS\n"] {
                #expect(run.output.contains(heading), "\(program) \(path)")
            }
            #expect(run.error.isEmpty)
            let page = try Self.page(program, path)
            #expect(page["summary"]?.string?.isEmpty == false)
            for option in page["options"]?.array ?? [] {
                #expect(option["help"]?.string?.isEmpty == false, "\(program) \(path) \(option)")
            }
        }
    }

    @Test(arguments: programs)
    func wrongUseIsStatus64AndOneLine(program: String) throws {
        for path in try Self.commands(program) {
            for wrong in [["--no-such-option"], ["--help=xml"], ["-x"]] {
                let run = try TestProcess.run(program, path + wrong)
                #expect(run.end == .exited(64), "\(program) \(path) \(wrong): \(run.error)")
                #expect(run.error.hasPrefix("\(program): "), "\(run.error)")
                #expect(run.error.filter { $0 == "\n" }.count == 1, "\(run.error)")
                #expect(run.output.isEmpty)
            }
        }
        let misspelt = try TestProcess.run(program, ["no-such-command-at-all"])
        #expect(misspelt.end == .exited(64))
    }

    @Test(arguments: programs)
    func versionAndConfigurationErrors(program: String) throws {
        let version = try TestProcess.run(program, ["--version"])
        #expect(version.end == .exited(0))
        #expect(version.output.hasPrefix("\(program) "))
        let directory = try TemporaryDirectory()
        try replaceFile(directory.file("bad.yaml"), with: "no-such-key: 1\n")
        for path in try Self.commands(program) {
            let options = try Self.page(program, path)["options"]?.array ?? []
            guard options.contains(where: { $0["name"]?.string == "config" }) else { continue }
            let run = try TestProcess.run(
                program, path + ["--config", directory.file("bad.yaml")])
            #expect(run.end == .exited(78), "\(program) \(path): \(run.error)")
            #expect(run.error.contains("bad.yaml:1: unknown key 'no-such-key'"), "\(run.error)")
        }
    }

    @Test(.enabled(if: Capability.root.isUsable && !fileExists("/sys/kernel/debug/lru_gen")))
    func anEngineThatIsAskedForByNameIsRefusedWhereTheKernelLacksIt() throws {
        let directory = try TemporaryDirectory()
        let run = try TestProcess.run(
            "offloadd",
            [
                "run", "--engine", "mglru", "--listen", "unix:\(directory.file("socket"))",
                "--state-dir", directory.file("state"),
            ])
        #expect(run.end == .exited(71), "\(run.error)")
        #expect(run.error.hasPrefix("offloadd: --engine mglru: "), "\(run.error)")
        #expect(run.error.filter { $0 == "\n" }.count == 1, "\(run.error)")
    }

    /// The data plane starts in milliseconds and needs no ICU: Foundation stays out of every program's release build.
    @Test(arguments: programs)
    func noProgramLinksFoundation(program: String) throws {
        let run = try TestProcess.run("/usr/bin/ldd", [TestProcess.binary(program)])
        #expect(run.end == .exited(0))
        #expect(!run.output.contains("libFoundation.so"), "\(run.output)")
        #expect(!run.output.contains("libFoundationInternationalization"), "\(run.output)")
    }
}
