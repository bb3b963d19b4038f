import CommandLineKit
import FarMemory
import Glibc
import LinuxSystem
import Measurement
import WorkloadTrace

/// The benchmark of `farmem bench functions`: a reference, a replay without offloading, a replay with it. One thread.
struct FunctionBench: Sendable {
    let settings: FunctionBenchSettings
    let trace: WorkloadTrace
    let schedule: RequestSchedule
    let cancellation: Cancellation

    private static let swapName = "bench0"
    private static let poolPrefix = "farmem-bench-"

    func run(keepLogs: Bool) throws -> FunctionComparison {
        let processes = try BenchProcesses(logLevel: settings.logLevel)
        cleanLeftovers(processes)
        var isWell = false
        defer {
            let problems = processes.tearDown()
            for problem in problems { printError("farmem: \(problem)") }
            if (isWell || cancellation.isCancelled) && problems.isEmpty && !keepLogs {
                processes.removeDirectory()
            } else {
                printError("farmem: logs are in \(processes.directory)")
            }
        }
        say("reference: each function answers \(FunctionBenchSettings.seedsPerFunction) requests")
        let reference = try collectReference(processes)
        say(
            "replay without offloading: \(schedule.requests.count) requests in \(settings.duration)"
        )
        let without = try phase(processes, reference, offloads: false)
        say("replay with offloading")
        let with = try phase(processes, reference, offloads: true)
        isWell = true
        return FunctionComparison(functions: schedule.functions, without: without, with: with)
    }

    private func say(_ text: String) { printError("farmem: \(text)") }

    private func checkCancelled() throws {
        if cancellation.isCancelled { throw CommandFailure(.tryAgain, "interrupted") }
    }

    /// What a benchmark that was killed left behind: a device of our name in our own runtime directory, and pools. The lock
    /// says that no other benchmark runs.
    private func cleanLeftovers(_ processes: BenchProcesses) {
        defer {
            for name in (try? directoryEntries("/dev/shm")) ?? []
            where name.hasPrefix(Self.poolPrefix) { try? removePool("/dev/shm/\(name)") }
        }
        guard fileExists("\(processes.directory)/swap/\(Self.swapName)") else { return }
        say("detaching the swap device that an earlier benchmark left")
        do {
            try processes.run("farswap", ["status", "--repair"])
            try? processes.run("farswap", ["detach", Self.swapName])
        } catch {
            printError("farmem: \(error)")
        }
    }

    private func collectReference(_ processes: BenchProcesses) throws -> ReferenceAnswers {
        let gateway = try startGateway(processes, offloads: false)
        let reference: ReferenceAnswers
        do throws(ReplayError) {
            reference = try .collect(
                functions: schedule.functions,
                seedsPerFunction: FunctionBenchSettings.seedsPerFunction, gateway: gateway,
                cancellation: cancellation)
        } catch {
            throw CommandFailure(.checkFailed, error.description)
        }
        try stopAll(processes)
        try checkCancelled()
        return reference
    }

    private func phase(
        _ processes: BenchProcesses, _ reference: ReferenceAnswers, offloads: Bool
    ) throws -> PhaseResult {
        var controller: Endpoint?
        if offloads { controller = try startOffloading(processes) }
        let gateway = try startGateway(processes, offloads: offloads)
        let sampler = try MemorySampler(
            gateway: gateway, controller: controller, functions: schedule.functions,
            warmUp: settings.warmUp)
        var replay = Replay(schedule: schedule, gateway: gateway, reference: reference)
        replay.warmUp = settings.warmUp
        let ready = replay
        let outcome = Result { () throws(SystemError) in
            try ready.run(cancellation: cancellation)
        }
        let memory = sampler.stop()
        let results = try outcome.get()
        try stopAll(processes)
        try checkCancelled()
        return PhaseResult(results: results, memory: memory.figures, samplesMissed: memory.missed)
    }

    /// Ends what runs; a problem is a failure here, for the next phase must not begin with it.
    private func stopAll(_ processes: BenchProcesses) throws {
        if let problem = processes.tearDown().first { throw CommandFailure(.systemError, problem) }
    }

    private func startGateway(_ processes: BenchProcesses, offloads: Bool) throws -> Endpoint {
        let socket = "\(processes.directory)/gateway.sock"
        let keepAlive = settings.compressed(settings.keepAlive)
        try processes.start(
            "fngateway",
            [
                "run", "--listen", "unix:\(socket)", "--functions", settings.functionsDirectory,
                "--keep-alive", text(keepAlive), "--cgroup-parent", "/farmem-bench", "--offloadd",
                offloads ? "unix:\(controllerSocket(processes))" : "none",
            ])
        return .unix(path: socket)
    }

    private func controllerSocket(_ processes: BenchProcesses) -> String {
        "\(processes.directory)/offloadd.sock"
    }

    /// The memory server, the swap device on it, and the controller with its delays compressed like the trace.
    private func startOffloading(_ processes: BenchProcesses) throws -> Endpoint {
        let url = try settings.farMemory ?? startMemoryServer(processes)
        try processes.run(
            "farswap",
            ["attach", url, "--size", settings.farSize.description, "--name", Self.swapName]
                + settings.attachOptions)
        processes.onTearDown("detach") {
            try processes.run("farswap", ["detach", Self.swapName])
        }
        let socket = controllerSocket(processes)
        try processes.start("offloadd", ["run", "--listen", "unix:\(socket)"] + compressedDelays())
        return .unix(path: socket)
    }

    /// offloadd's default delays divided, and its default rate multiplied, by the speedup.
    private func compressedDelays() -> [String] {
        guard settings.speedup > 1 else { return [] }
        func delay(_ name: String, _ length: Nanoseconds) -> [String] {
            [name, text(settings.compressed(length))]
        }
        return delay("--semi-warm-prior", .seconds(30)) + delay("--semi-warm-min", .seconds(2))
            + delay("--rollback-interval", .seconds(10))
            + delay("--rollback-interval-max", .seconds(600))
            + delay("--recycle-guard", .seconds(5))
            + ["--drain-percent", "\(min(10_000, 10 * settings.speedup))"]
    }

    /// A pool on tmpfs in a directory of its own.
    private func startMemoryServer(_ processes: BenchProcesses) throws -> String {
        let pool = "/dev/shm/\(Self.poolPrefix)\(getpid())"
        try makeDirectories(pool, mode: 0o700)
        processes.onTearDown("pool") { try removePool(pool) }
        let socket = "\(processes.directory)/memserver.sock"
        try processes.start(
            "memserver",
            [
                "serve", "--capacity", settings.farSize.description, "--pool", pool, "--shm",
                socket,
                "--admin", "unix:\(processes.directory)/memserver-admin.sock",
            ])
        return "shm:\(socket)"
    }

    private func removePool(_ pool: String) throws(SystemError) {
        for name in try directoryEntries(pool) { _ = unsafe unlink("\(pool)/\(name)") }
        guard unsafe rmdir(pool) == 0 else { throw SystemError.last("remove \(pool)") }
    }

    /// Milliseconds, at least one.
    private func text(_ length: Nanoseconds) -> String {
        Nanoseconds.milliseconds(max(1, length.milliseconds)).description
    }
}
