import FarMemory

/// What the policy knows of one container.
package struct ContainerRecord: Equatable, Sendable {
    package let function: String
    package internal(set) var phase = ContainerPhase.launching
    /// The rule that decided last.
    package internal(set) var lastRule = Rule.discovered
    package internal(set) var requests: UInt64 = 0
    package internal(set) var measure: ContainerMeasure?

    /// Requests that run now.
    var running: UInt32 = 0
    var idleSince: Nanoseconds?
    var recycledAt: Nanoseconds?
    /// Actions on pages that were issued and not reported.
    var outstanding: UInt32 = 0
    var runtimeExamined = false

    /// Requests left until the open window closes; nil without one.
    var windowLeft: UInt32?
    var windowScope = PageScope.initialization
    /// A release that a request halted, to be repeated.
    var unfinishedRelease: PageScope?
    var examinedAt: Nanoseconds?
    /// Requests that ended since then.
    var requestsSinceExamined: UInt64 = 0
    var rollbackInterval: Nanoseconds

    /// Since the last release: pages that left, and the refault count then.
    var releasedPages: UInt64 = 0
    var refaultsAtRelease: UInt64?
    var backOffUntil: Nanoseconds?

    /// Local memory when the drain began, and bytes that the rate allows and that are not granted.
    var drainBase = ByteCount.zero
    var drainedAt = Nanoseconds.zero
    var drainOwed: UInt64 = 0
    /// Nothing is left that process_madvise can move; the group's reclaim was tried.
    var isExhausted = false
    var reclaimedShared = false

    init(function: String, rollbackInterval: Nanoseconds) {
        self.function = function
        self.rollbackInterval = rollbackInterval
    }

    /// Whether a window is open.
    package var windowIsOpen: Bool { windowLeft != nil }
}

/// What all containers of a function have taught.
package struct FunctionRecord: Equatable, Sendable {
    package internal(set) var reuse = ReuseIntervals()
    /// Requests per window, as learned.
    package internal(set) var window: UInt32
    /// Requests of one container between two examinations of it.
    package internal(set) var rollbackRequests = FunctionRecord.rollbackRequestsMinimum

    private static let rollbackRequestsMinimum: UInt64 = 2
    private static let rollbackRequestsMaximum: UInt64 = 4096

    init(window: UInt32) { self.window = window }

    /// A rollback of one of its containers found this share cold: it pays, or it does not.
    mutating func noteRollback(paid: Bool) {
        rollbackRequests =
            paid
            ? max(rollbackRequests / 4, Self.rollbackRequestsMinimum)
            : min(rollbackRequests * 4, Self.rollbackRequestsMaximum)
    }
}
