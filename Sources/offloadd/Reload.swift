import CommandLineKit
import LinuxSystem
import OffloadEngine
import Telemetry

// SIGHUP reads the configuration again as it was read at the start, with the same flags and variables before it. What it says about functions
// holds at once, for the containers that there are too; everything else is what the controller was built with, and needs a restart, which is
// said. A file with an error changes nothing.

/// Reads the configuration again for a running controller.
struct Reload {
    private let controller: Controller
    private let log: Logger
    /// What the controller was started with, without the rules for functions.
    private let started: EngineSettings

    init(_ controller: Controller, _ settings: EngineSettings, _ log: Logger) {
        self.controller = controller
        self.log = log
        started = Self.withoutRules(settings)
    }

    private static func withoutRules(_ settings: EngineSettings) -> EngineSettings {
        var settings = settings
        settings.functionRules = []
        return settings
    }

    func run() {
        do {
            let program = Program(
                Command(name: "offloadd", summary: "", subcommands: [runCommand]))
            let plan = try program.plan(
                arguments: Array(CommandLine.arguments.dropFirst()),
                environment: ProcessEnvironment.all)
            guard case .run(_, let invocation) = plan else { return }
            let settings = try engineSettings(invocation)
            if Self.withoutRules(settings) != started {
                log.warn(
                    "reload_partial",
                    ["reason": "only functions: is read again; restart for the rest"])
            }
            guard controller.setRules(settings.functionRules) else {
                log.error("reload_failed", ["error": "too many messages wait; send SIGHUP again"])
                return
            }
            log.info("reloaded", ["rules": settings.functionRules.count])
        } catch let error as UsageError {
            log.error("reload_failed", ["error": error.message])
        } catch {
            log.error("reload_failed", ["error": "\(error)"])
        }
    }
}
