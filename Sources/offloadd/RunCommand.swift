import CommandLineKit
import Containers
import FarMemory
import Glibc
import HTTPEndpoint
import LinuxSystem
import OffloadEngine
import OffloadPolicy
import Telemetry

let runCommand = Command(
    name: "run", summary: "run the offload controller in the foreground",
    discussion: """
        Takes lifecycle events on its socket, finds containers (--discover), or watches groups that match --watch, and moves pages of containers \
        that they do not use to swap. SIGHUP reads functions: of the configuration again. SIGTERM and SIGINT end it: what it changed is put back first.
        """,
    options: runOptions,
    sections: [functionsSection],
    examples: [
        ("offloadd run", "Serve events of a gateway."),
        ("offloadd run --discover docker", "Find Docker's containers and heed their labels."),
        ("offloadd run --watch '/docker/*'", "Watch groups by their paths."),
        ("offloadd run --policy tmo", "Decide as TMO does, to compare."),
    ]
) { invocation in
    let settings = try engineSettings(invocation)
    let sources = try discoverySources(invocation)
    let signals = try SignalEvents([SIGTERM, SIGINT, SIGHUP])
    ignoreBrokenPipes()
    let log = Logger(level: LogLevel(word: invocation.string("log-level")) ?? .info)
    guard runsAsRoot() else {
        throw CommandFailure(
            .permission, "moving pages of other processes needs root; run it as root")
    }
    guard let groups = try ControlGroups.discover() else {
        throw CommandFailure(
            .systemError, "no memory controller is mounted; mount cgroup2, or cgroup -o memory")
    }
    try requireKernelSupport(settings)
    raiseDescriptorLimit()
    let controller = try openController(settings, groups, log)
    let endpoint = listenEndpoint(invocation)
    try makeDirectories(runtimeDirectory())
    var options = HTTPServerOptions()
    options.threads = .pool(2)
    let discovery = Discovery(
        sources, takesUnlabelled: invocation.flag("unlabelled"), groups: groups,
        controller: controller, log: log)
    let server = try HTTPServer(listen: endpoint, options: options) {
        answer($0, controller, discovery)
    }
    let readiness = invocation.readiness()
    let control = try WorkerThread("fm-control") {
        do throws(SystemError) {
            try controller.run()
        } catch {
            log.error("control_failed", ["error": error.description])
            exit(ExitStatus.systemError.rawValue)
        }
    }
    guard controller.waitUntilRunning(deadline: monotonicNow() + 10_000_000_000) else {
        throw CommandFailure(.systemError, "the control thread did not start within 10 s")
    }
    try discovery.start()
    readiness.announceReady()
    log.info(
        "started",
        [
            "listen": endpoint.description, "cgroup": groups.version.rawValue,
            "policy": settings.policy.kind.rawValue, "dry_run": settings.isDryRun,
            "engine": controller.status().engine.kind.rawValue,
        ])
    let reload = Reload(controller, settings, log)
    waiting: while true {
        switch signals.next() {
        case nil: _ = try waitReady(signals.descriptor.rawValue, .readable, timeout: -1)
        case SIGHUP?: reload.run()
        case .some: break waiting
        }
    }
    readiness.announceStopping()
    discovery.stop()
    server.stop(drain: .seconds(1))
    controller.stop()
    control.join()
    log.info("stopped", [:])
    return .done
}

/// Each container holds descriptors of its groups, and of its processes once they are looked at: as many as the host lets root have.
private func raiseDescriptorLimit() {
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    var limit = rlimit(rlim_cur: 0, rlim_max: 0)
    guard unsafe getrlimit(resource, &limit) == 0, limit.rlim_cur < limit.rlim_max else { return }
    limit.rlim_cur = limit.rlim_max
    // When it is refused, containers beyond the old limit are refused and logged, one by one.
    _ = unsafe setrlimit(resource, &limit)
}

/// A policy that the kernel cannot carry out must not look as if it ran.
private func requireKernelSupport(_ settings: EngineSettings) throws(CommandFailure) {
    guard settings.policy.kind == .damon else { return }
    let directory = "/sys/kernel/mm/damon/admin/kdamonds"
    guard unsafe access(directory, R_OK | W_OK) == 0 else {
        throw CommandFailure(
            .systemError,
            "--policy damon needs a kernel with CONFIG_DAMON_SYSFS and CONFIG_DAMON_VADDR (5.18 or later); \(directory) is not there"
        )
    }
}

func openController(
    _ settings: EngineSettings, _ groups: ControlGroups, _ log: Logger
) throws -> Controller {
    do throws(ControllerError) {
        let far = FarWatch()
        return try Controller(
            settings: settings, groups: groups, log: log, farState: { far.look() })
    } catch {
        if case .alreadyRuns = error { throw CommandFailure(.tryAgain, error.description) }
        throw CommandFailure(.systemError, error.description)
    }
}
