import CommandLineKit
import Containers
import FarMemory
import Glibc
import LinuxSystem
import Measurement
import OffloadPolicy
import WorkloadTrace

/// The benchmark of `farmem bench functions`: a reference, then a replay for each policy, the one without offloading first. One thread.
struct FunctionBench: Sendable {
    let settings: FunctionBenchSettings
    let schedule: RequestSchedule
    let cancellation: Cancellation

    private static let swapName = "bench0"
    private static let groupParent = "/farmem-bench"
    private static let poolPrefix = "farmem-bench-"

    func run(keepLogs: Bool) throws -> BenchOutcome {
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
        let schedule = schedule.without(Set(reference.failures.keys))
        var outcome = BenchOutcome(schedule: schedule, failedFunctions: reference.failures)
        for repetition in 0..<settings.repetitions {
            // Backwards every other time: what a machine drifts by from phase to phase is in all of them alike then.
            let inTurn = repetition % 2 == 0 ? settings.variants : settings.variants.reversed()
            for variant in inTurn {
                say(
                    "replay \(variant.name): \(schedule.requests.count) requests in \(settings.duration)"
                        + (settings.repetitions > 1 ? ", repetition \(repetition + 1)" : ""))
                outcome.phases.append(
                    try phase(processes, reference, schedule, variant, repetition))
            }
        }
        isWell = outcome.phases.allSatisfy { $0.problem == nil }
        return outcome
    }

    func say(_ text: String) { printError("farmem: \(text)") }

    func checkCancelled() throws {
        if cancellation.isCancelled { throw CommandFailure(.tryAgain, "interrupted") }
    }

    /// What a benchmark that was killed left behind: a device of our name in our own runtime directory, and pools. The lock
    /// says that no other benchmark runs.
    func cleanLeftovers(_ processes: BenchProcesses) {
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

    func collectReference(_ processes: BenchProcesses) throws -> ReferenceAnswers {
        let gateway = try startGateway(processes, offloads: false)
        let reference = ReferenceAnswers.collect(
            functions: schedule.functions,
            seedsPerFunction: FunctionBenchSettings.seedsPerFunction, gateway: gateway,
            cancellation: cancellation)
        try stopAll(processes)
        try checkCancelled()
        for (name, reason) in reference.failures.sorted(by: { $0.key < $1.key }) {
            guard settings.comparesPolicies else { throw CommandFailure(.checkFailed, reason) }
            printError("farmem: \(name) is left out: \(reason)")
        }
        return reference
    }

    /// One replay. With several policies, one that cannot be run is a finding about it, not the end of the others.
    private func phase(
        _ processes: BenchProcesses, _ reference: ReferenceAnswers, _ schedule: RequestSchedule,
        _ variant: PolicyVariant, _ repetition: Int
    ) throws -> BenchPhase {
        var phase = BenchPhase(variant: variant, repetition: repetition)
        do {
            phase.result = try measure(processes, reference, schedule, variant)
        } catch {
            let problems = processes.tearDown()
            guard settings.comparesPolicies, !cancellation.isCancelled, problems.isEmpty,
                variant.policy != "none"
            else {
                for problem in problems { printError("farmem: \(problem)") }
                throw error
            }
            printError("farmem: \(variant.name) cannot be measured: \(error)")
            phase.problem = "\(error)"
        }
        return phase
    }

    private func measure(
        _ processes: BenchProcesses, _ reference: ReferenceAnswers, _ schedule: RequestSchedule,
        _ variant: PolicyVariant
    ) throws -> PhaseResult {
        let offloads = variant.policy != "none"
        if let limit = settings.memoryLimit { try limitMemory(processes, to: limit) }
        var controller: Endpoint?
        if offloads { controller = try startOffloading(processes, variant) }
        let gateway = try startGateway(processes, offloads: offloads)
        let sampler = try MemorySampler(
            gateway: gateway, controller: controller, functions: schedule.functions,
            warmUp: settings.warmUp, interval: settings.sampleInterval,
            timelineInterval: settings.timeline)
        var replay = Replay(schedule: schedule, gateway: gateway, reference: reference)
        replay.warmUp = settings.warmUp
        let ready = replay
        let began = monotonicNow()
        let outcome = Result { () throws(SystemError) in
            try ready.run(cancellation: cancellation)
        }
        if settings.comparesPolicies { sleepUntil(began + settings.duration.nanoseconds) }
        let sampled = sampler.stop()
        let results = try outcome.get()
        try stopAll(processes)
        try checkCancelled()
        return PhaseResult(results: results, sampled: sampled)
    }

    /// What containers hold after the last request counts, too.
    private func sleepUntil(_ end: Int64) {
        while !cancellation.isCancelled, monotonicNow() < end {
            sleepNanoseconds(min(200_000_000, max(0, end - monotonicNow())))
        }
    }

    /// Ends what runs; a problem is a failure here, for the next phase must not begin with it.
    func stopAll(_ processes: BenchProcesses) throws {
        if let problem = processes.tearDown().first { throw CommandFailure(.systemError, problem) }
    }

    func startGateway(_ processes: BenchProcesses, offloads: Bool) throws -> Endpoint {
        let socket = "\(processes.directory)/gateway.sock"
        let keepAlive = settings.compressed(settings.keepAlive)
        try processes.start(
            "fngateway",
            [
                "run", "--listen", "unix:\(socket)", "--functions", settings.functionsDirectory,
                "--keep-alive", text(keepAlive), "--cgroup-parent", Self.groupParent,
                "--containers-max", "\(settings.containersMax)", "--offloadd",
                offloads ? "unix:\(controllerSocket(processes))" : "none",
            ])
        return .unix(path: socket)
    }

    private func controllerSocket(_ processes: BenchProcesses) -> String {
        "\(processes.directory)/offloadd.sock"
    }

    /// The memory server, the swap device on it, and the controller with its delays compressed like the trace.
    func startOffloading(
        _ processes: BenchProcesses, _ variant: PolicyVariant
    ) throws -> Endpoint {
        let url = try settings.farMemory ?? startMemoryServer(processes)
        try processes.run(
            "farswap",
            ["attach", url, "--size", settings.farSize.description, "--name", Self.swapName]
                + settings.attachOptions)
        processes.onTearDown("detach") {
            try processes.run("farswap", ["detach", Self.swapName])
        }
        let socket = controllerSocket(processes)
        try processes.start(
            "offloadd",
            ["run", "--listen", "unix:\(socket)"] + compressedDelays(variant) + variant.arguments)
        return .unix(path: socket)
    }

    /// offloadd's default delays divided, and its default rate multiplied, by the speedup.
    private func compressedDelays(_ variant: PolicyVariant) -> [String] {
        // What others' policies wait for is theirs: whoever compares says it with --offload-option.
        guard settings.speedup > 1, variant.policy == "farmem" else { return [] }
        func delay(_ name: String, _ length: Nanoseconds) -> [String] {
            [name, text(settings.compressed(length))]
        }
        let defaults = PolicySettings(.farmem)
        let all =
            delay("--semi-warm-prior", defaults.semiWarmPrior)
            + delay("--semi-warm-min", defaults.semiWarmMinimum)
            + delay("--semi-warm-patience", defaults.semiWarmPatience)
            + delay("--rollback-interval", defaults.rollbackInterval)
            + delay("--rollback-interval-max", defaults.rollbackIntervalMaximum)
            + delay("--recycle-guard", defaults.recycleGuard)
            + ["--drain-percent", "\(min(10_000, 10 * settings.speedup))"]
        // What the variant says itself is not said twice.
        let own = Set(variant.options.map { String($0.prefix { $0 != "=" }) })
        return stride(from: 0, to: all.count, by: 2).flatMap { at in
            own.contains(all[at]) ? [] : [all[at], all[at + 1]]
        }
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

    /// All containers of a phase in one group of this size.
    private func limitMemory(_ processes: BenchProcesses, to limit: ByteCount) throws {
        let name = String(Self.groupParent.dropFirst())
        guard let groups = try ControlGroups.discover() else {
            throw CommandFailure(.systemError, "no memory controller is mounted")
        }
        try createControlGroup(name, controllers: ["memory"])
        processes.onTearDown("limit") {
            // The gateway may have removed it already: it takes the group for its own.
            guard (try? groups.open(Self.groupParent)) != nil else { return }
            try removeControlGroup(name, controllers: ["memory"])
        }
        let group = try groups.open(Self.groupParent)
        try group.write(
            groups.version == .v1 ? "memory.limit_in_bytes" : "memory.max", "\(limit.bytes)")
    }

    /// Milliseconds, at least one.
    private func text(_ length: Nanoseconds) -> String {
        Nanoseconds.milliseconds(max(1, length.milliseconds)).description
    }
}
