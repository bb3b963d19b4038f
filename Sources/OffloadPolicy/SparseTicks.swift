package import FarMemory

// The law of ticks that are left out. A tick changes something of a container only when released pages came back, when its idle time
// reaches the function's delay, or while it drains. So a driver that knows the time in advance (the simulator) may tick at the
// multiples of its tick interval that follow a container's next wake, serving only containers that are due, and every decision
// is the same as with a tick at each multiple that serves all.
//
// That holds when the driver asks again after each event of the container and after each event that changes the delay of its
// function, and ticks whenever the host's figures change what the guards say.

extension PolicyMachine {
    /// The first moment at which a tick would change something of the container; nil: none before its next event.
    package func nextWake(of id: ContainerHandle, at now: Nanoseconds) -> Nanoseconds? {
        guard settings.drainsIdle, let container = containers[id] else { return nil }
        if refaultsExceed(container) { return now }
        guard let idleSince = container.idleSince else { return nil }
        switch container.phase {
        case .launching, .initializing, .running, .drained: return nil
        case .semiWarm:
            guard container.outstanding == 0 else { return nil }
            return isGuarded(container, at: now) ? nil : now
        case .ready, .idle:
            guard container.measure != nil else { return nil }
            var due = max(now, idleSince + semiWarmWait(of: container.function))
            if let backOffUntil = container.backOffUntil { due = max(due, backOffUntil) }
            return isGuarded(container, at: due) ? nil : due
        }
    }

    /// Passes time like `tick(host:at:into:)`, but serves only these containers, given in the order of their handles.
    package mutating func tick(
        host: HostMeasure, serving due: [ContainerHandle], at now: Nanoseconds,
        into decisions: inout [Decision]
    ) {
        noteHost(host, at: now)
        guard settings.drainsIdle else { return }
        serve(due, at: now, into: &decisions)
    }

    /// From then on, until its next request, nothing of it moves: it ends too soon.
    private func isGuarded(_ container: ContainerRecord, at time: Nanoseconds) -> Bool {
        container.recycledAt.map { $0 - time <= settings.recycleGuard } ?? false
    }
}
