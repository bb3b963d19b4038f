// OffloadPolicy: which pages of which container leave, and when. Pure: no clock, no files, no
// randomness; the same code runs in the daemon and in simulation.
//
// Thread model: one owner, value semantics. All arithmetic is on integers. Time is an argument.

package import FarMemory

/// How fast a semi-warm container gives its memory away.
package enum DrainRate: Equatable, Sendable {
    /// Hundredths of the memory that it held when it became semi-warm, per second.
    case percentPerSecond(UInt64)
    case bytesPerSecond(ByteCount)
}

/// Every knob of the policy. docs/operations.md says how to choose.
package struct PolicySettings: Equatable, Sendable {
    package var kind = PolicyKind.farmem
    /// Offload what the runtime loaded and neither initialization nor the first request touched.
    package var offloadsRuntime = true
    /// Offload what a window of requests did not touch.
    package var offloadsInitialization = true
    /// Drain containers that are idle longer than almost all reuse intervals.
    package var drainsIdle = true
    /// Bring the working set back at once when a request comes to a drained container.
    package var prefetch = PrefetchMode.adaptive
    /// A pause in an open window after which a request reads the working set back too.
    package var recallAfter = Nanoseconds.seconds(1)
    /// Reclaim through the group's limit what process_madvise cannot move (pages shared by forks).
    package var reclaimsShared = true

    /// Requests in a window; nil lets it grow by itself when released pages come back.
    package var requestWindow: UInt32? = nil
    /// Windows of functions that are known better than the default.
    package var requestWindows: [String: UInt32] = [:]
    package var windowLaw = WindowLaw.spaced
    /// Engines release nothing when fewer pages than this are cold.
    package var releaseMinimum = PageCount.zero
    /// Pause between two examinations of a container that stays busy; doubled, up to the maximum,
    /// while examinations find nothing.
    package var rollbackInterval = Nanoseconds.seconds(10)
    package var rollbackIntervalMaximum = Nanoseconds.seconds(600)
    /// How many thousandths of a function's requests may find the window of such an examination.
    package var rollbackPermille: UInt64 = 10
    /// By how many thousandths an examination of a part may lengthen the request that finds it. 0: always all at once.
    package var rollbackSlicePermille: UInt64 = 20

    /// Which share of reuse intervals a container must outlast to be drained, in thousandths.
    package var reusePermille: UInt64 = 990
    /// By how many thousandths requests to semi-warm containers may raise a function's mean latency: where they cost little, a container
    /// is drained sooner than `reusePermille` says. 0: never.
    package var wakePermille: UInt64 = 50
    /// The delay as long as fewer than `reuseSamplesMinimum` intervals of the function are known.
    package var semiWarmPrior = Nanoseconds.seconds(10)
    package var reuseSamplesMinimum: UInt64 = 5
    /// Fewer intervals than this say nothing of a time shorter than the prior.
    package var reuseSamplesEnough: UInt64 = 20
    /// A fixed delay in place of the learned one.
    package var semiWarmDelay: Nanoseconds? = nil
    /// Delays of functions that are not learned but given: an operator's, or an oracle's in simulation.
    package var semiWarmDelays: [String: Nanoseconds] = [:]
    /// How much longer than the prior the containers of a function may keep their memory for each request that is thereby spared a
    /// wake-up. Where most idle times are longer than the prior and that does not suffice, they are drained after the prior.
    /// Zero: the percentile alone counts.
    package var semiWarmPatience = Nanoseconds.seconds(200)
    /// Never drained sooner than this.
    package var semiWarmMinimum = Nanoseconds.seconds(2)
    package var drainRate = DrainRate.percentPerSecond(10)
    /// The rate is applied once in this time, the first time one step after the delay, and is a share of what the container
    /// held when it became idle. Zero: at each tick, and of what it held when it became semi-warm.
    package var drainStep = Nanoseconds.zero
    /// Local memory that a container keeps.
    package var floor = ByteCount.mib(1)
    /// No page leaves within this time of the container's end.
    package var recycleGuard = Nanoseconds.seconds(5)
    /// No drain begins whose delay ends later than this before the container's end.
    package var recycleMargin = Nanoseconds.zero

    /// Whether there is a budget at all.
    package var usesBudget = true
    /// What all containers together may write to far memory.
    package var bandwidth = ByteCount.mib(256)
    /// What may leave at once after a quiet time.
    package var burst = ByteCount.mib(256)

    /// A request of which nothing was heard for this long is over: its end was lost. Nil: it may run for ever.
    package var requestPatience: Nanoseconds? = .seconds(900)

    /// Thousandths of the time in which tasks may wait for memory before offloading pauses; from 1000 on it never does.
    package var pressurePermille: UInt64 = 200
    package var pressurePause = Nanoseconds.seconds(5)
    /// Thousandths of the released pages that may come back in a window before the policy backs off; from 1000 on it
    /// never does.
    package var refaultPermille: UInt64 = 100
    /// Thousandths by which the 95th percentile of a function's requests may lie above that of its undisturbed ones; nil: however far.
    package var latencyPermille: UInt64? = 500
    /// Nothing new leaves while far memory takes longer than this to answer; nil: however long.
    package var farLatencyMaximum: Nanoseconds? = nil
    /// Swap space that stays free.
    package var farReserve = ByteCount.mib(64)

    package var senpai = SenpaiSettings()
    package var coldRegions = ColdRegions()

    package init() {}
}

/// `value * numerator / denominator`, exact in between, clamped at the end.
func scaled(_ value: UInt64, _ numerator: UInt64, over denominator: UInt64) -> UInt64 {
    precondition(denominator > 0, "a share of nothing")
    let product = value.multipliedFullWidth(by: numerator)
    guard product.high < denominator else { return .max }
    return denominator.dividingFullWidth(product).quotient
}
