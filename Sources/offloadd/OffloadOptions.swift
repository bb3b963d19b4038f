import CommandLineKit
import FarMemory
import LinuxSystem
import OffloadEngine
import OffloadPolicy

/// The knobs of `offloadd run`, as flags, FARMEM_OFFLOADD_ variables and configuration keys.
let runOptions: [Option] =
    Option.daemon + [
        Option(
            "listen", .endpoint, placeholder: "ENDPOINT",
            help: "Serve the API here (default unix:/run/farmem/offloadd.sock)."),
        Option(
            "state-dir", .string, placeholder: "DIR",
            help: "Journal and lock (default /run/farmem/offloadd)."),
        Option("dry-run", .flag, help: "Decide and log, and move nothing."),
        Option(
            "watch", .string, repeatable: true, placeholder: "PATTERN",
            help: "Watch groups whose path matches, e.g. '/docker/*', without events."),
        Option(
            "busy-share", .ratio, default: "0.02",
            help: "A watched container is busy above this share of one processor."),
        Option(
            "quiet-time", .duration, default: "1s",
            help: "A watched container is idle when it was not busy for this long."),
        Option(
            "tick", .duration, default: "100ms", help: "How often idle containers are looked at."),
        Option(
            "runtime-pucket", .flag, default: "true",
            help: "Offload what neither initialization nor the first request touched."),
        Option(
            "init-pucket", .flag, default: "true",
            help: "Offload what a window of requests did not touch."),
        Option("semi-warm", .flag, default: "true", help: "Drain containers that stay idle."),
        Option(
            "prefetch", .choice(PrefetchMode.allCases.map(\.rawValue)), default: "adaptive",
            help:
                "Bring back at a request: nothing, all that was drained, or what first requests used."
        ),
        Option(
            "prefetch-after", .duration, default: "1s",
            help: "Do so within a window of requests too, after a pause this long."),
        Option(
            "shared-pages", .flag, default: "true",
            help: "Reclaim pages shared by forks through the group's limit."),
        Option(
            "request-window", .integer(0...1000), default: "0",
            help: "Requests in a window; 0 lets it grow by itself."),
        Option(
            "rollback-interval", .duration, default: "10s",
            help: "Shortest pause between two examinations of a busy container."),
        Option(
            "rollback-interval-max", .duration, default: "10m",
            help: "Longest such pause, reached while examinations find nothing."),
        Option(
            "reuse-percentile", .ratio, default: "0.99",
            help: "A container is drained when idle longer than this share of reuses."),
        Option(
            "semi-warm-prior", .duration, default: "30s",
            help: "The delay while few reuses of a function are known."),
        Option(
            "reuse-samples", .integer(1...1000), default: "5",
            help: "How many reuses must be known before they count."),
        Option(
            "semi-warm-min", .duration, default: "2s", help: "Never drained sooner than this."),
        Option(
            "drain-percent", .integer(1...10_000), default: "10",
            help: "Percent of its memory that a semi-warm container gives per second."),
        Option(
            "drain-rate", .rate,
            help: "Give this much per second instead of a percentage."),
        Option("floor", .size, default: "8MiB", help: "Local memory that a container keeps."),
        Option(
            "recycle-guard", .duration, default: "5s",
            help: "Move nothing of a container that ends within this time."),
        Option(
            "bandwidth", .rate, default: "256MiB/s",
            help: "What all containers together may write to far memory."),
        Option(
            "burst", .size, default: "256MiB", help: "What may leave at once after a quiet time."),
        Option(
            "pressure-max", .ratio, default: "0.2",
            help: "Pause while tasks wait for memory for more than this share of the time."),
        Option(
            "pressure-pause", .duration, default: "5s", help: "How long such a pause lasts."),
        Option(
            "refault-max", .ratio, default: "0.1",
            help: "Back off when more than this share of released pages comes back."),
        Option("far-reserve", .size, default: "64MiB", help: "Swap space that stays free."),
        Option(
            "fault-hold-limit", .duration, default: "0s", hidden: true,
            help: "For tests: hold each lowered limit this long."),
    ]

/// Where the API is served.
func listenEndpoint(_ invocation: Invocation) -> Endpoint {
    invocation.endpointIfSet("listen") ?? .unix(path: "\(runtimeDirectory())/offloadd.sock")
}

/// The settings that a command line describes.
func engineSettings(_ invocation: Invocation) throws -> EngineSettings {
    var settings = EngineSettings()
    settings.stateDirectory =
        invocation.stringIfSet("state-dir") ?? "\(runtimeDirectory())/offloadd"
    settings.isDryRun = invocation.flag("dry-run")
    settings.watchPatterns = invocation.strings("watch")
    settings.busyPermille = permille(invocation.ratio("busy-share"))
    settings.quietTime = invocation.duration("quiet-time")
    settings.tickInterval = invocation.duration("tick")
    settings.limitHold = invocation.duration("fault-hold-limit")
    settings.policy = policySettings(invocation)
    guard settings.tickInterval >= .milliseconds(10) else {
        throw UsageError("--tick must be at least 10ms")
    }
    guard settings.policy.bandwidth > .zero, settings.policy.burst >= .mib(1) else {
        throw UsageError("--bandwidth must be more than zero and --burst at least 1MiB")
    }
    return settings
}

private func policySettings(_ invocation: Invocation) -> PolicySettings {
    var policy = PolicySettings()
    policy.offloadsRuntime = invocation.flag("runtime-pucket")
    policy.offloadsInitialization = invocation.flag("init-pucket")
    policy.drainsIdle = invocation.flag("semi-warm")
    policy.prefetch = PrefetchMode(rawValue: invocation.string("prefetch")) ?? .adaptive
    policy.recallAfter = invocation.duration("prefetch-after")
    policy.reclaimsShared = invocation.flag("shared-pages")
    let window = invocation.integer("request-window")
    policy.requestWindow = window == 0 ? nil : UInt32(window)
    policy.rollbackInterval = invocation.duration("rollback-interval")
    policy.rollbackIntervalMaximum = max(
        invocation.duration("rollback-interval-max"), policy.rollbackInterval)
    policy.reusePermille = permille(invocation.ratio("reuse-percentile"))
    policy.semiWarmPrior = invocation.duration("semi-warm-prior")
    policy.reuseSamplesMinimum = UInt64(invocation.integer("reuse-samples"))
    policy.semiWarmMinimum = invocation.duration("semi-warm-min")
    policy.drainRate =
        invocation.rateIfSet("drain-rate").map { .bytesPerSecond($0) }
        ?? .percentPerSecond(UInt64(invocation.integer("drain-percent")))
    policy.floor = invocation.size("floor")
    policy.recycleGuard = invocation.duration("recycle-guard")
    policy.bandwidth = invocation.rate("bandwidth")
    policy.burst = invocation.size("burst")
    policy.pressurePermille = permille(invocation.ratio("pressure-max"))
    policy.pressurePause = invocation.duration("pressure-pause")
    policy.refaultPermille = permille(invocation.ratio("refault-max"))
    policy.farReserve = invocation.size("far-reserve")
    return policy
}

private func permille(_ ratio: Double) -> UInt64 { UInt64((ratio * 1000).rounded()) }
