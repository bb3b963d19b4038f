import FarMemory

// The law of sharing, applied once at each tick to all who want to write: max-min fairness. Who wants less than an equal share gets all
// of it, the others divide the rest equally. Where an equal share would be too small to be worth a call, as many as can have
// a whole one are served, and the next tick begins with the one behind them. Who asks between two ticks, to open a window, gets
// at once what would be an equal share among those who asked lately.

/// Grants smaller than this wait: a call for a few pages costs more than it moves.
let grantMinimum = ByteCount.kib(256)

/// What one container asks of the budget at a tick.
struct BudgetRequest: Sendable {
    enum Kind: Sendable {
        case examine(PageScope, ByteCount)
        case drain(ByteCount)
        case reclaimShared(ByteCount)
        case shrink(ByteCount)
    }
    let place: Int
    let wanted: Kind

    var bytes: UInt64 {
        switch wanted {
        case .examine(_, let wanted), .drain(let wanted), .reclaimShared(let wanted),
            .shrink(let wanted):
            ByteCount(pages: wanted.pages).bytes
        }
    }
}

extension PolicyMachine {
    mutating func shareBudget(at now: Nanoseconds, into decisions: inout [Decision]) {
        guard !asking.isEmpty else { return }
        rivals = (asking.count, now)
        let available = budget.available(at: now).bytes
        let requests = asking
        let total = requests.reduce(UInt64(0)) { $0.addingReportingOverflow($1.bytes).partialValue }
        if total <= available {
            for request in requests { serve(request, request.bytes, at: now, into: &decisions) }
            return
        }
        let share = equalShare(of: available, among: requests)
        guard share < grantMinimum.bytes else {
            for request in requests {
                serve(request, min(request.bytes, share), at: now, into: &decisions)
            }
            return
        }
        let first = requests.firstIndex { $0.place >= nextServed } ?? 0
        var left = available
        for index in requests.indices {
            let request = requests[(first + index) % requests.count]
            let amount = min(request.bytes, grantMinimum.bytes)
            guard amount <= left else {
                containers.records[request.place].lastRule = .budget
                continue
            }
            left -= amount
            nextServed = request.place + 1
            serve(request, amount, at: now, into: &decisions)
        }
    }

    /// What one more may have at once beside those who asked lately.
    mutating func equalShare(at now: Nanoseconds) -> ByteCount {
        let isLate = now - rivals.at > .milliseconds(100)
        let others = isLate ? 0 : UInt64(rivals.count)
        return max(ByteCount(budget.available(at: now).bytes / (others + 1)), grantMinimum)
    }

    /// The share that uses up what there is when nobody gets more than asked for.
    private func equalShare(of available: UInt64, among requests: [BudgetRequest]) -> UInt64 {
        var left = available
        var waiting = UInt64(requests.count)
        for wanted in requests.map(\.bytes).sorted() {
            guard wanted < left / waiting else { break }
            left -= wanted
            waiting -= 1
        }
        return waiting > 0 ? left / waiting : available
    }

    private mutating func serve(
        _ request: BudgetRequest, _ amount: UInt64, at now: Nanoseconds,
        into decisions: inout [Decision]
    ) {
        let granted = budget.take(upTo: ByteCount(amount), at: now)
        guard granted > .zero else { return }
        change(request.place, at: now, into: &decisions) { machine, container, output in
            machine.grant(granted, to: &container, for: request.wanted, into: &output)
        }
    }

    private func grant(
        _ granted: ByteCount, to container: inout ContainerRecord,
        for wanted: BudgetRequest.Kind, into output: inout Output
    ) {
        switch wanted {
        case .examine(let scope, _):
            container.examineOwed -= min(container.examineOwed, granted.bytes)
            output.addPageAction(
                .examine(scope, grant: granted), scope == .all ? .rollback : .initPucket,
                "more of the open window", &container)
        case .drain:
            container.drainOwed -= min(container.drainOwed, granted.bytes)
            let reason = drainReason(container, at: output.now)
            output.addPageAction(.drain(grant: granted), .semiWarm, reason, &container)
        case .reclaimShared:
            container.reclaimedShared = true
            output.addPageAction(
                .reclaim(granted), .sharedPages, "\(granted) of shared pages left", &container)
        case .shrink:
            container.drainOwed -= min(container.drainOwed, granted.bytes)
            output.addPageAction(
                .reclaim(granted), .idleShrink, "idle, \(granted) above the floor", &container)
        }
    }

    private func drainReason(_ container: ContainerRecord, at now: Nanoseconds) -> String {
        guard explainsDrains else { return "" }
        let idle = container.idleSince.map { now - $0 } ?? .zero
        let (delay, origin) = semiWarmDelay(of: container)
        return "idle \(idle.milliseconds)ms, delay \(delay) (\(origin))"
    }
}
