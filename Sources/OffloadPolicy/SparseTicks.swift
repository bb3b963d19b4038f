package import FarMemory

// The law of ticks that are left out. A tick changes something of a container only when its idle time reaches the function's delay, while
// it drains or is examined, at the senpai law's turns, and when a report or the end of a request is given up. So a tick serves only
// containers for which `wake` says that it is time, and a driver that knows the time in advance (the simulator) may tick at the
// multiples of its tick interval that follow a container's next wake, serving only containers that are due: every decision
// is the same as with a tick at each multiple that serves all.
//
// That holds when the driver asks again after each event of the container and after each event that changes the delay of its
// function, and ticks whenever the host's figures change what the guards say.

extension PolicyMachine {
    /// The first moment at which a tick would change something of the container; nil: none before its next event.
    package func nextWake(of id: ContainerHandle, at now: Nanoseconds) -> Nanoseconds? {
        guard let place = containers.place(of: id) else { return nil }
        let wake = wake(of: place, at: now)
        return wake == Nanoseconds(.max) ? nil : max(wake, now)
    }

    /// Passes time like `tick(host:at:into:)`, but serves only these containers.
    package mutating func tick(
        host: HostMeasure, serving due: [ContainerHandle], at now: Nanoseconds,
        into decisions: inout [Decision]
    ) {
        noteHost(host, at: now)
        asking.removeAll(keepingCapacity: true)
        for place in due.compactMap({ containers.place(of: $0) }).sorted() {
            serve(place, at: now, into: &decisions)
        }
        shareBudget(at: now, into: &decisions)
    }

    /// The same for the record at a place: a moment that has passed is now.
    func wake(of place: Int, at now: Nanoseconds) -> Nanoseconds {
        let never = Nanoseconds(.max)
        if containers.records[place].isBusyMoving {
            return containers.records[place].pendingSince + reportPatience
        }
        switch settings.kind {
        case .none, .damon: return never
        case .tmo: return containers.records[place].senpaiAt ?? now
        case .farmem, .faasmem, .idleShrink: break
        }
        guard let idleSince = containers.records[place].idleSince else {
            guard let patience = settings.requestPatience, containers.records[place].running > 0
            else { return never }
            return containers.records[place].heardAt + patience
        }
        switch containers.records[place].phase {
        case .launching, .initializing, .running: return never
        case .drained: return never
        case .ready, .idle:
            if containers.records[place].hasExaminationLeft {
                return unguarded(place, from: now, at: now)
            }
            guard settings.drainsIdle, containers.records[place].measure != nil else {
                return never
            }
            let due = idleSince + semiWarmWait(of: containers.records[place])
            return due > now ? due : unguarded(place, from: due, at: now)
        case .semiWarm: return unguarded(place, from: nextDrain(place, at: now), at: now)
        }
    }

    private func nextDrain(_ place: Int, at now: Nanoseconds) -> Nanoseconds {
        guard settings.drainStep > .zero,
            containers.records[place].drainOwed < grantMinimum.bytes
        else { return now }
        return containers.records[place].drainedAt + settings.drainStep
    }

    /// When the container's own guards let it: while it rests after refaults, or its end is near, there is nothing to do.
    private func unguarded(
        _ place: Int, from due: Nanoseconds, at now: Nanoseconds
    ) -> Nanoseconds {
        var time = due
        if let rest = containers.records[place].backOffUntil { time = max(time, rest) }
        guard let end = containers.records[place].recycledAt else { return time }
        let isNear = end - max(time, now) <= settings.recycleGuard
        let isLate = due > end - settings.recycleMargin
        return isNear || isLate ? max(time, end + ContainerRecord.outliving) : time
    }
}
