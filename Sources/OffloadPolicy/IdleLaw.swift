package import FarMemory

// The law of idle containers, applied at each tick.
//
// A container becomes semi-warm when it has been idle for the function's delay (see SemiWarmDelay.swift). From then on
// it owes what the drain rate says for the time that has passed: a percentage of what it held at that moment per second, or
// an amount per second. Each tick what it owes is granted out of the shared budget (BudgetSharing.swift), but never below the
// floor; one grant at a time is under way. When nothing is left that process_madvise can move, the rest above the floor is
// reclaimed once through the group, if that is allowed.
//
// What the budget did not let be examined when a window opened is examined here, as long as no request has begun.

/// An action whose report did not come for this long is given up: the container would rest for ever.
let reportPatience = Nanoseconds.seconds(60)

extension PolicyMachine {
    /// Passes time: takes in the host's figures and serves the containers.
    package mutating func tick(
        host: HostMeasure, at now: Nanoseconds, into decisions: inout [Decision]
    ) {
        noteHost(host, at: now)
        asking.removeAll(keepingCapacity: true)
        for place in containers.records.indices where wake(of: place, at: now) <= now {
            serve(place, at: now, into: &decisions)
        }
        shareBudget(at: now, into: &decisions)
    }

    /// Changes what time changes; who wants to write is noted in `asking`.
    mutating func serve(
        _ place: Int, at now: Nanoseconds, into decisions: inout [Decision]
    ) {
        change(place, at: now, into: &decisions) { machine, container, output in
            if container.isBusyMoving && now - container.pendingSince >= reportPatience {
                for action in container.givePendingUp() { machine.settle(action, at: now) }
            }
            if machine.settings.kind == .tmo {
                machine.serveSenpai(&container, at: now, into: &output)
            } else if let request = machine.wants(&container, at: now) {
                machine.asking.append(BudgetRequest(place: place, wanted: request))
            }
        }
    }

    /// What it may have now.
    private func wants(
        _ container: inout ContainerRecord, at now: Nanoseconds
    ) -> BudgetRequest.Kind? {
        endLostRequest(&container, at: now)
        guard let idleSince = container.idleSince, !container.isBusyMoving else { return nil }
        if container.hasExaminationLeft {
            if mayWrite(container, at: now) != nil { return nil }
            return .examine(container.windowScope, ByteCount(container.examineOwed))
        }
        guard settings.drainsIdle else { return nil }
        if container.phase == .idle || container.phase == .ready {
            enterSemiWarm(&container, since: idleSince, at: now)
        }
        guard container.phase == .semiWarm else { return nil }
        if settings.kind != .idleShrink { accrue(&container, at: now) }
        if let reason = mayWrite(container, at: now) {
            container.lastRule = reason
            return nil
        }
        if settings.kind == .idleShrink { return wantsShrinking(&container) }
        if container.isExhausted { return wantsReclaim(&container) }
        return wantsDraining(&container)
    }

    /// A request whose end was lost would keep the container for ever.
    private func endLostRequest(_ container: inout ContainerRecord, at now: Nanoseconds) {
        guard container.running > 0, let patience = settings.requestPatience else { return }
        guard now - container.heardAt >= patience else { return }
        container.running = 0
        container.phase = .idle
        container.idleSince = now
        container.idleLocal = container.measure?.local
    }

    /// What is left belongs to several processes, or is not anonymous: once, the kernel's own reclaim.
    private func wantsReclaim(_ container: inout ContainerRecord) -> BudgetRequest.Kind? {
        let measure = container.measure
        let above = (measure?.local ?? .zero) - floor(of: container)
        let wanted = min(above, measure?.anonymous ?? .zero)
        guard settings.reclaimsShared, !container.reclaimedShared, wanted >= .mib(1) else {
            container.becomeDrained(above == .zero ? .floor : .nothingLeft)
            return nil
        }
        return .reclaimShared(wanted)
    }

    private func wantsDraining(_ container: inout ContainerRecord) -> BudgetRequest.Kind? {
        guard let measure = container.measure else { return nil }
        let above = measure.local - floor(of: container)
        guard above >= ByteCount(UInt64(pageBytes)) else {
            container.becomeDrained(.floor)
            return nil
        }
        let wanted = min(above, ByteCount(container.drainOwed))
        guard wanted >= min(grantMinimum, above) else { return nil }
        return .drain(wanted)
    }

    private func enterSemiWarm(
        _ container: inout ContainerRecord, since idleSince: Nanoseconds, at now: Nanoseconds
    ) {
        let due = idleSince + semiWarmWait(of: container)
        guard now >= due, let measure = container.measure, mayWrite(container, at: now) == nil,
            !isTooLate(container, due: due, at: now)
        else { return }
        container.phase = .semiWarm
        container.lastRule = settings.kind == .idleShrink ? .idleShrink : .semiWarm
        container.drainedAt = now
        container.drainOwed = 0
        container.drainBase = measure.local
        if settings.kind == .idleShrink {
            container.drainOwed = (measure.local - floor(of: container)).bytes
        } else if settings.drainStep > .zero {
            container.drainBase = container.idleLocal ?? measure.local
        }
    }

    /// Its end is so near when its delay ends that the drain is not to begin.
    func isTooLate(
        _ container: ContainerRecord, due: Nanoseconds, at now: Nanoseconds
    ) -> Bool {
        guard let end = container.recycledAt, !container.hasOutlived(end, at: now) else {
            return false
        }
        return due > end - settings.recycleMargin
    }

    /// Adds what the rate allows for the time since the last tick, or for the steps that have passed.
    private func accrue(_ container: inout ContainerRecord, at now: Nanoseconds) {
        var elapsed = max(.zero, now - container.drainedAt)
        if settings.drainStep > .zero {
            elapsed -= Nanoseconds(elapsed.nanoseconds % settings.drainStep.nanoseconds)
        }
        container.drainedAt += elapsed
        let nanoseconds = UInt64(elapsed.nanoseconds)
        let gained: UInt64
        switch settings.drainRate {
        case .percentPerSecond(let percent):
            gained = scaled(
                scaled(container.drainBase.bytes, percent, over: 100), nanoseconds,
                over: 1_000_000_000)
        case .bytesPerSecond(let rate):
            gained = scaled(rate.bytes, nanoseconds, over: 1_000_000_000)
        }
        // Time in which nothing could be granted does not pile up beyond the container itself.
        let (sum, overflow) = container.drainOwed.addingReportingOverflow(gained)
        container.drainOwed =
            overflow ? container.drainBase.bytes : min(sum, container.drainBase.bytes)
    }
}
