package import FarMemory

/// What the policy knows of one container.
package struct ContainerRecord: Equatable, Sendable {
    package let function: String
    /// Where its function's record is.
    let functionPlace: Int
    package internal(set) var settings = ContainerSettings()
    package internal(set) var phase = ContainerPhase.launching
    /// The rule that decided last.
    package internal(set) var lastRule = Rule.discovered
    package internal(set) var requests: UInt64 = 0
    package internal(set) var measure: ContainerMeasure?

    /// Requests that run now.
    var running: UInt32 = 0
    var idleSince: Nanoseconds?
    /// The last event of its life.
    var heardAt = Nanoseconds.zero
    var recycledAt: Nanoseconds?
    /// Actions on pages that were issued and not reported, oldest first.
    private(set) var pending: [Action] = []
    private(set) var pendingSince = Nanoseconds.zero
    var runtimeExamined = false

    /// DAMON was asked to page out its cold regions.
    var hasColdPageout = false
    /// When the senpai law looks next, and pages that it asked for beyond what it wanted.
    var senpaiAt: Nanoseconds?
    var senpaiOverdraft: UInt64 = 0

    /// Requests left until the open window closes; nil without one.
    var windowLeft: UInt32?
    var windowScope = PageScope.initialization
    /// It is over a part that a request hardly notices.
    var windowIsSlice = false
    /// A release that a request halted, to be repeated.
    var unfinishedRelease: PageScope?
    /// Such a repetition is under way.
    var repeatsRelease = false
    var examinedAt: Nanoseconds?
    /// Requests that ended since then.
    var requestsSinceExamined: UInt64 = 0
    var rollbackInterval: Nanoseconds

    /// The pages of the last release.
    var watch: RefaultWatch?
    /// Requests that the last window had when it opened.
    var windowLength: UInt32 = 1
    /// Bytes of the open window that the budget did not let be examined yet.
    var examineOwed: UInt64 = 0
    var backOffUntil: Nanoseconds?
    /// Why it rests until then.
    var backOffRule = Rule.refaults
    /// The request that runs did not find its pages as the last one left them.
    var isDisturbed = false
    /// The request that runs found the container semi-warm or drained.
    var isWoken = false
    var stallSeen: StallMark?

    /// Local memory when it became idle.
    var idleLocal: ByteCount?
    /// When the last window closed.
    var windowClosedAt: Nanoseconds?
    /// Local memory that the drain rate is a share of, and bytes that the rate allows and that are not granted.
    var drainBase = ByteCount.zero
    var drainedAt = Nanoseconds.zero
    var drainOwed: UInt64 = 0
    /// Nothing is left that process_madvise can move; the group's reclaim was tried.
    var isExhausted = false
    var reclaimedShared = false

    init(function: String, functionPlace: Int = 0, rollbackInterval: Nanoseconds) {
        self.function = function
        self.functionPlace = functionPlace
        self.rollbackInterval = rollbackInterval
    }

    var isWatched: Bool { watch != nil }

    /// Whether anything is under way.
    var isBusyMoving: Bool { !pending.isEmpty }

    mutating func issued(_ action: Action, at now: Nanoseconds) {
        if pending.isEmpty { pendingSince = now }
        pending.append(action)
    }

    /// Whether the action was issued and not reported before. A report that comes twice is none.
    mutating func wasReported(_ action: Action, at now: Nanoseconds) -> Bool {
        guard let index = pending.firstIndex(of: action) else { return false }
        pending.remove(at: index)
        pendingSince = now
        return true
    }

    mutating func givePendingUp() -> [Action] {
        defer { pending = [] }
        return pending
    }

    /// Whether a window is open.
    package var windowIsOpen: Bool { windowLeft != nil }
}

/// What all containers of a function have taught.
package struct FunctionRecord: Equatable, Sendable {
    package private(set) var reuse = ReuseIntervals()
    /// How long a container is idle before it is drained.
    package private(set) var wait: Nanoseconds
    var choice: WindowChoice
    private var latencies = LatencyWatch()
    private var wakeCost = WakeCost()
    /// What may be examined at once without lengthening a request by more than `rollbackSlicePermille`; nil while that is not known.
    /// Kept, for it is asked for with each request.
    private(set) var slice: ByteCount?
    /// What the requests to its semi-warm containers have shown.
    package private(set) var wakes = WakeShare()
    /// Requests per window, as set or learned.
    package var window: UInt32 { choice.window }
    /// How often its containers are examined again.
    package internal(set) var rollback = RollbackLaw()

    /// A century: "never" as a delay must not overflow a moment.
    static let waitMaximum = Nanoseconds.seconds(3_155_760_000)

    init(window: UInt32, wait: Nanoseconds) {
        choice = WindowChoice(window: window)
        self.wait = min(wait, Self.waitMaximum)
    }

    mutating func noteReuse(
        after interval: Nanoseconds, of function: String, _ settings: PolicySettings
    ) {
        reuse.record(interval)
        wait = min(settings.semiWarmWait(of: function, reuse, wakes), Self.waitMaximum)
    }

    /// One of its requests took so long. Whether the last ones were so much slower than undisturbed ones that its container is to rest;
    /// then the evidence starts anew.
    mutating func noteLatency(
        _ latency: Nanoseconds, _ kind: WakeCost.Kind, _ function: String,
        _ settings: PolicySettings
    ) -> Bool {
        let mayBeOther = wakeCost.note(latency, kind) || wakes.permitted == nil
        if settings.rollbackSlicePermille > 0 {
            slice = wakeCost.pages(costing: settings.rollbackSlicePermille)
                .map { ByteCount(pages: $0) }
        }
        if mayBeOther, settings.wakePermille > 0 { learnWakes(function, settings) }
        guard let limit = settings.latencyPermille else { return false }
        latencies.note(latency)
        guard latencies.isWorse(than: wakeCost.undisturbed, by: limit) else { return false }
        latencies.forgetRecent()
        return true
    }

    private mutating func learnWakes(_ function: String, _ settings: PolicySettings) {
        let seen = WakeShare(
            permitted: wakeCost.share(permille: settings.wakePermille),
            isSought: wakeCost.isSought)
        guard seen != wakes else { return }
        wakes = seen
        wait = min(settings.semiWarmWait(of: function, reuse, wakes), Self.waitMaximum)
    }
}
