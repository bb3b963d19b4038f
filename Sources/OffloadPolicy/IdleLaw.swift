package import FarMemory

// The law of idle containers, applied at each tick.
//
// A container becomes semi-warm when it has been idle for the function's delay (see ReuseIntervals). From then on
// it owes what the drain rate says for the time that has passed: a percentage of what it held at that moment per second, or
// an amount per second. Each tick what it owes is granted out of the shared budget, but never below the floor; one grant at a
// time is under way. Who went away empty-handed is served first at the next tick. When nothing is left that
// process_madvise can move, the rest above the floor is reclaimed once through the group, if that is allowed.

/// Grants smaller than this wait: a call for a few pages costs more than it moves.
private let grantMinimum = ByteCount.kib(256)

extension PolicyMachine {
    /// Passes time: takes in the host's figures and serves the idle containers.
    package mutating func tick(
        host: HostMeasure, at now: Nanoseconds, into decisions: inout [Decision]
    ) {
        noteHost(host, at: now)
        guard settings.drainsIdle else { return }
        serve(containers.keys.sorted(), at: now, into: &decisions)
    }

    /// Serves containers, given in the order of their handles.
    mutating func serve(
        _ order: [ContainerHandle], at now: Nanoseconds, into decisions: inout [Decision]
    ) {
        guard !order.isEmpty else { return }
        let first = order.firstIndex { $0 >= nextServed } ?? 0
        var turn = BudgetTurn()
        for id in order[first...] + order[..<first] {
            guard var container = containers[id] else { continue }
            var output = Output(id: id)
            serve(&container, at: now, turn: &turn, into: &output)
            containers[id] = container
            decisions += output.decisions
        }
        if let next = turn.emptyHanded ?? turn.cutShort { nextServed = next }
    }

    private mutating func serve(
        _ container: inout ContainerRecord, at now: Nanoseconds, turn: inout BudgetTurn,
        into output: inout Output
    ) {
        noteRefaults(&container, at: now)
        guard let idleSince = container.idleSince else { return }
        if container.phase == .idle || container.phase == .ready {
            enterSemiWarm(&container, idle: now - idleSince, at: now)
        }
        guard container.phase == .semiWarm, container.outstanding == 0 else { return }
        accrue(&container, at: now)
        if let reason = mayWrite(container, at: now) {
            container.lastRule = reason
            return
        }
        if container.isExhausted {
            reclaimShared(&container, at: now, turn: &turn, into: &output)
        } else {
            grant(&container, idle: now - idleSince, at: now, turn: &turn, into: &output)
        }
    }

    /// What is left belongs to several processes, or is not anonymous: once, the kernel's own reclaim.
    private mutating func reclaimShared(
        _ container: inout ContainerRecord, at now: Nanoseconds, turn: inout BudgetTurn,
        into output: inout Output
    ) {
        let measure = container.measure
        let above = (measure?.local ?? .zero) - settings.floor
        let wanted = min(above, measure?.anonymous ?? .zero)
        guard settings.reclaimsShared, !container.reclaimedShared, wanted >= .mib(1) else {
            container.phase = .drained
            container.lastRule = above == .zero ? .floor : .nothingLeft
            return
        }
        let granted = budget.take(upTo: wanted, at: now)
        turn.note(output.id, wanted: wanted, granted: granted)
        guard granted > .zero else { return }
        container.reclaimedShared = true
        output.addPageAction(
            .reclaim(granted), .sharedPages, "\(granted) of shared pages left", &container)
    }

    private func enterSemiWarm(
        _ container: inout ContainerRecord, idle: Nanoseconds, at now: Nanoseconds
    ) {
        guard idle >= semiWarmWait(of: container.function),
            let measure = container.measure, mayWrite(container, at: now) == nil
        else { return }
        container.phase = .semiWarm
        container.lastRule = .semiWarm
        container.drainBase = measure.local
        container.drainedAt = now
        container.drainOwed = 0
    }

    /// Adds what the rate allows for the time since the last tick.
    private func accrue(_ container: inout ContainerRecord, at now: Nanoseconds) {
        let elapsed = UInt64(max(0, (now - container.drainedAt).nanoseconds))
        container.drainedAt = now
        let gained: UInt64
        switch settings.drainRate {
        case .percentPerSecond(let percent):
            gained = scaled(
                scaled(container.drainBase.bytes, percent, over: 100), elapsed, over: 1_000_000_000)
        case .bytesPerSecond(let rate): gained = scaled(rate.bytes, elapsed, over: 1_000_000_000)
        }
        // Time in which nothing could be granted does not pile up beyond the container itself.
        container.drainOwed = min(container.drainOwed + gained, container.drainBase.bytes)
    }

    private mutating func grant(
        _ container: inout ContainerRecord, idle: Nanoseconds, at now: Nanoseconds,
        turn: inout BudgetTurn, into output: inout Output
    ) {
        guard let measure = container.measure else { return }
        let above = measure.local - settings.floor
        guard above >= ByteCount(UInt64(pageBytes)) else {
            container.phase = .drained
            container.lastRule = .floor
            return
        }
        let wanted = min(above, ByteCount(container.drainOwed))
        guard wanted >= min(grantMinimum, above) else { return }
        let granted = budget.take(upTo: wanted, at: now)
        turn.note(output.id, wanted: wanted, granted: granted)
        guard granted > .zero else {
            container.lastRule = .budget
            return
        }
        container.drainOwed -= granted.bytes
        let (delay, origin) = semiWarmDelay(of: container.function)
        output.addPageAction(
            .drain(grant: granted), .semiWarm,
            "idle \(idle.milliseconds)ms, delay \(delay) (\(origin))",
            &container)
    }
}

/// Who was served worst in one tick. Depends on what was wanted only, not on how often there was a tick.
struct BudgetTurn {
    /// The first that wanted pages and got none.
    private(set) var emptyHanded: ContainerHandle?
    /// The first that got fewer than it wanted.
    private(set) var cutShort: ContainerHandle?

    mutating func note(_ id: ContainerHandle, wanted: ByteCount, granted: ByteCount) {
        guard granted.pages < wanted.pages else { return }
        if granted == .zero {
            if emptyHanded == nil { emptyHanded = id }
        } else if cutShort == nil {
            cutShort = id
        }
    }
}
