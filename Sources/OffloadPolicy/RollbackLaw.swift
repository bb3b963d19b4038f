import FarMemory

// The law of the rollback: how often a container that stays busy is examined again, its hot pages included.
//
// An examination unmaps everything, and the requests of its window fault all of it back, so it must pay and must not show.
//
// - It pays when a twentieth of what it examines is cold. While it does not, the container's interval doubles, up to its maximum, and all
//   containers of the function wait for four times as many requests. One that finds nothing to examine does not pay.
// - It does not show in the 95th percentile while few requests find such a window: at most `rollbackPermille` thousandths of the function's,
//   after the first, which comes on credit when there were 20 times as many requests as its window is long. It finds most: what a function
//   needs for its first requests alone is hot until then.
//
//
// Where the function's latencies are known, a container is examined in parts instead, each so small that a request that faults all of it back
// is hardly longer for it (`rollbackSlicePermille`): that does not show, so the share is none of its business. Each part goes on where the
// last one ended; what pays is judged by the part.
//
// Requests of all containers of a function count together. Both counts are halved now and then: what was long ago pays for little.

/// When the containers of one function may be examined again.
package struct RollbackLaw: Equatable, Sendable {
    private static let requestsMinimum: UInt64 = 2
    private static let requestsMaximum: UInt64 = 4096
    private static let fadeAt: UInt64 = 8192
    private static let creditFrom: UInt64 = 20

    /// Requests of one container between two examinations of it.
    package private(set) var requestsBetween = RollbackLaw.requestsMinimum
    private var requests: UInt64 = 0
    /// Of these found the window of a rollback open.
    private var disturbed: UInt64 = 0

    package init() {}

    mutating func noteRequest() {
        requests += 1
        if requests >= Self.fadeAt {
            requests /= 2
            disturbed /= 2
        }
    }

    /// Whether a window of so many requests stays within the share, for a container that served `since` requests after its last examination.
    func allows(window: UInt32, after since: UInt64, permille: UInt64) -> Bool {
        guard permille > 0, isDue(after: since) else { return false }
        if disturbed == 0 && requests >= Self.creditFrom * UInt64(window) { return true }
        return (disturbed + UInt64(window)) * 1000 <= requests * permille
    }

    /// Whether one that does not show may come.
    func isDue(after since: UInt64) -> Bool { since >= requestsBetween }

    mutating func noteWindow(of length: UInt32) { disturbed += UInt64(length) }

    /// A rollback of one of its containers has ended: it paid, or it did not.
    mutating func note(paid: Bool) {
        requestsBetween =
            paid
            ? max(requestsBetween / 4, Self.requestsMinimum)
            : min(requestsBetween * 4, Self.requestsMaximum)
    }
}

extension PolicyMachine {
    /// Whether the container may be examined anew now.
    func mayRollBack(_ container: ContainerRecord, since last: Nanoseconds, at now: Nanoseconds)
        -> Bool
    {
        // FaaSMem's own law asks for the interval alone, and when a window closes.
        guard settings.windowLaw == .spaced else { return true }
        guard now - last >= container.rollbackInterval else { return false }
        let law = functions.records[container.functionPlace].rollback
        if slice(of: container) != nil {
            return settings.rollbackPermille > 0
                && law.isDue(after: container.requestsSinceExamined)
        }
        return law.allows(
            window: window(container), after: container.requestsSinceExamined,
            permille: settings.rollbackPermille)
    }

    /// How much of a container may be examined at once, so that it does not show; nil: all, and it may.
    func slice(of container: ContainerRecord) -> ByteCount? {
        guard settings.windowLaw == .spaced else { return nil }
        return functions.records[container.functionPlace].slice
    }

    /// Learns from a closed window of everything how often to look again.
    mutating func noteRollback(_ report: ActionReport, _ container: inout ContainerRecord) {
        let examined = report.released.pages + report.hot.pages
        let paid = examined > 0 && report.released.pages * 20 >= examined
        functions.records[container.functionPlace].rollback.note(paid: paid)
        if paid {
            container.rollbackInterval = settings.rollbackInterval
        } else {
            container.doubleRollbackInterval(settings)
        }
    }

    /// A request stopped the examination: when next to nothing was examined there is no window, and what was to be examined is so when the
    /// next request has ended. (What was unmapped is released with the next window.) Where more was done the rest is left to a rollback:
    /// to begin anew would unmap hot pages over and over.
    func noteHaltedExamination(
        _ report: ActionReport, _ scope: PageScope, of grant: ByteCount,
        _ container: inout ContainerRecord
    ) {
        guard scope != .runtime, max(report.written, report.reserved).bytes < grant.bytes / 8 else {
            return
        }
        if container.windowScope == scope { container.windowLeft = nil }
        if scope == .initialization && settings.windowLaw == .spaced { container.examinedAt = nil }
    }
}

extension ContainerRecord {
    mutating func doubleRollbackInterval(_ settings: PolicySettings) {
        rollbackInterval = min(
            rollbackInterval + rollbackInterval, settings.rollbackIntervalMaximum)
    }
}
