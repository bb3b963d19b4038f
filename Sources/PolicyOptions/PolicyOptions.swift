// PolicyOptions: the policy's knobs on a command line, the same for the daemon and for simulation.
// Thread model: values only. Must not import: the engine, containers.

package import CommandLineKit
import FarMemory
package import OffloadPolicy

// A policy brings its own defaults (PolicySettings.init(_:)); the ones that help shows are those of farmem. What a flag, a
// variable or the configuration file says holds for every policy.

/// The knobs of the policy.
package let policyOptions: [Option] = [
    Option(
        "policy", .choice(PolicyKind.allCases.map(\.rawValue)), default: "farmem",
        help:
            "Which law decides. Others than farmem are what it is measured against, with defaults of their own."
    ),
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
            "Bring back at a request: nothing, all that was drained, or what first requests used."),
    Option(
        "prefetch-after", .duration, default: "1s",
        help: "Do so within a window of requests too, after a pause this long."),
    Option(
        "shared-pages", .flag, default: "true",
        help: "Reclaim pages shared by forks through the group's limit."),
    Option(
        "request-window", .integer(0...1000), default: "0",
        help: "Requests in a window; 0 chooses it by what comes back."),
    Option(
        "function-window", .string, repeatable: true, placeholder: "NAME=N",
        help: "Requests in a window of this function."),
    Option(
        "rollback-interval", .duration, default: "10s",
        help: "Shortest pause between two examinations of a busy container."),
    Option(
        "rollback-interval-max", .duration, default: "10m",
        help: "Longest such pause, reached while examinations find nothing."),
    Option(
        "rollback-share", .ratio, default: "0.01",
        help:
            "At most this share of a function's requests find such an examination's window open; 0: never examined again."
    ),
    Option(
        "rollback-cost", .ratio, default: "0.02",
        help:
            "Examine a part of a busy container at a time that lengthens a request by at most this share; 0: all at once."
    ),
    Option(
        "semi-warm-delay", .duration, default: "0s",
        help: "A container is drained when idle for this long; 0s learns it per function."),
    Option(
        "reuse-percentile", .ratio, default: "0.99",
        help: "A container is drained when idle longer than this share of reuses."),
    Option(
        "wake-cost", .ratio, default: "0.05",
        help:
            "Drain sooner while requests that wake a container raise its function's mean latency by less; 0: never."
    ),
    Option(
        "semi-warm-prior", .duration, default: "10s",
        help: "The delay while few reuses of a function are known."),
    Option(
        "semi-warm-patience", .duration, default: "200s",
        help:
            "Keep memory beyond semi-warm-prior for at most this long per request spared a wake-up; 0s: however long."
    ),
    Option(
        "reuse-samples", .integer(1...1000), default: "5",
        help: "How many reuses must be known before they count."),
    Option(
        "semi-warm-min", .duration, default: "2s",
        help: "A learned delay is never shorter than this."),
    Option(
        "drain-percent", .integer(1...10_000), default: "10",
        help: "Percent of its memory that a semi-warm container gives per second."),
    Option("drain-rate", .rate, help: "Give this much per second instead of a percentage."),
    Option(
        "drain-step", .duration, default: "0s",
        help:
            "Apply the rate once in this time, to what an idle container held; 0s: all the time."),
    Option("floor", .size, default: "1MiB", help: "Local memory that a container keeps."),
    Option(
        "recycle-guard", .duration, default: "5s",
        help: "Move nothing of a container that ends within this time."),
    Option("budget", .flag, default: "true", help: "Keep to --bandwidth and --burst."),
    Option(
        "bandwidth", .rate, default: "256MiB/s",
        help: "What all containers together may write to far memory in any second."),
    Option(
        "burst", .size, default: "256MiB", help: "What may be on its way to far memory at once."),
    Option(
        "pressure-max", .ratio, default: "0.2",
        help: "Pause while tasks wait for memory for more than this share of the time; 1: never."),
    Option("pressure-pause", .duration, default: "5s", help: "How long such a pause lasts."),
    Option(
        "refault-max", .ratio, default: "0.1",
        help: "Back off when more than this share of released pages comes back; 1: never."),
    Option(
        "latency-max", .integer(0...10_000), default: "50",
        help:
            "Back off when a function's p95 is more percent above its undisturbed requests'; 0: never."
    ),
    Option("far-reserve", .size, default: "64MiB", help: "Swap space that stays free."),
    Option(
        "far-latency-max", .duration, default: "0s",
        help: "Pause while far memory takes longer than this to answer; 0s: never."),
    Option(
        "tmo-interval", .duration, default: "6s", help: "tmo: pause between two requests."),
    Option(
        "tmo-ratio", .ratio, default: "0.0005",
        help: "tmo: share of a container's memory in a request."),
    Option(
        "tmo-pressure", .ratio, default: "0.001",
        help: "tmo: share of the time that tasks wait for memory at which nothing is requested."),
    Option(
        "damon-age", .duration, default: "60s",
        help: "damon: page out regions without an access for this long."),
]

/// The defaults of the policy that `--policy` names, changed by what was given.
package func policySettings(_ invocation: Invocation) throws -> PolicySettings {
    try policySettings(PolicyKind(rawValue: invocation.string("policy")) ?? .farmem, invocation)
}

/// A policy's defaults, changed by what was given.
package func policySettings(
    _ kind: PolicyKind, _ invocation: Invocation
) throws -> PolicySettings {
    var policy = PolicySettings(kind)
    func given<Value>(_ name: String, _ read: (String) -> Value, _ use: (Value) -> Void) {
        if invocation.isGiven(name) { use(read(name)) }
    }
    let flag = invocation.flag
    let duration = invocation.duration
    let size = invocation.size
    given("runtime-pucket", flag) { policy.offloadsRuntime = $0 }
    given("init-pucket", flag) { policy.offloadsInitialization = $0 }
    given("semi-warm", flag) { policy.drainsIdle = $0 }
    given("prefetch", invocation.string) {
        policy.prefetch = PrefetchMode(rawValue: $0) ?? .adaptive
    }
    given("prefetch-after", duration) { policy.recallAfter = $0 }
    given("shared-pages", flag) { policy.reclaimsShared = $0 }
    given("request-window", invocation.integer) {
        policy.requestWindow = $0 == 0 ? nil : UInt32($0)
        policy.requestWindows = [:]
    }
    given("rollback-interval", duration) { policy.rollbackInterval = $0 }
    given("rollback-interval-max", duration) { policy.rollbackIntervalMaximum = $0 }
    given("rollback-share", invocation.ratio) { policy.rollbackPermille = share($0, of: 1000) }
    given("rollback-cost", invocation.ratio) {
        policy.rollbackSlicePermille = share($0, of: 1000)
    }
    policy.rollbackIntervalMaximum = max(policy.rollbackIntervalMaximum, policy.rollbackInterval)
    given("semi-warm-delay", duration) { policy.semiWarmDelay = $0 == .zero ? nil : $0 }
    given("reuse-percentile", invocation.ratio) { policy.reusePermille = share($0, of: 1000) }
    given("wake-cost", invocation.ratio) { policy.wakePermille = share($0, of: 1000) }
    given("semi-warm-prior", duration) { policy.semiWarmPrior = $0 }
    given("semi-warm-patience", duration) { policy.semiWarmPatience = $0 }
    given("reuse-samples", invocation.integer) { policy.reuseSamplesMinimum = UInt64($0) }
    given("semi-warm-min", duration) { policy.semiWarmMinimum = $0 }
    given("drain-percent", invocation.integer) {
        policy.drainRate = .percentPerSecond(UInt64($0))
    }
    if let rate = invocation.rateIfSet("drain-rate") { policy.drainRate = .bytesPerSecond(rate) }
    given("drain-step", duration) { policy.drainStep = $0 }
    given("floor", size) { policy.floor = $0 }
    given("recycle-guard", duration) { policy.recycleGuard = $0 }
    given("budget", flag) { policy.usesBudget = $0 }
    given("bandwidth", invocation.rate) { policy.bandwidth = $0 }
    given("burst", size) { policy.burst = $0 }
    given("pressure-max", invocation.ratio) { policy.pressurePermille = share($0, of: 1000) }
    given("pressure-pause", duration) { policy.pressurePause = $0 }
    given("refault-max", invocation.ratio) { policy.refaultPermille = share($0, of: 1000) }
    given("latency-max", invocation.integer) {
        policy.latencyPermille = $0 == 0 ? nil : UInt64($0) * 10
    }
    given("far-reserve", size) { policy.farReserve = $0 }
    given("far-latency-max", duration) { policy.farLatencyMaximum = $0 == .zero ? nil : $0 }
    given("tmo-interval", duration) { policy.senpai.interval = $0 }
    given("tmo-ratio", invocation.ratio) {
        policy.senpai.ratioMillionths = share($0, of: 1_000_000)
    }
    given("tmo-pressure", invocation.ratio) {
        policy.senpai.pressureMillionths = share($0, of: 1_000_000)
    }
    given("damon-age", duration) { policy.coldRegions.age = $0 }
    for text in invocation.strings("function-window") {
        let (name, window) = try functionWindow(text)
        policy.requestWindows[name] = window
    }
    return policy
}

private func functionWindow(_ text: String) throws(UsageError) -> (String, UInt32) {
    guard let equals = text.lastIndex(of: "="), equals != text.startIndex,
        let window = UInt32(text[text.index(after: equals)...]), (1...1000).contains(window)
    else {
        throw UsageError(
            "--function-window: '\(text)' is not NAME=N with N from 1 to 1000, as in bert=8")
    }
    return (String(text[..<equals]), window)
}

/// A share of one as a share of a whole number.
package func share(_ ratio: Double, of whole: Double) -> UInt64 {
    UInt64((ratio * whole).rounded())
}
