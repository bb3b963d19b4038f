import FarMemory
import OffloadPolicy

// Between the simulation and the policy: events in, actions carried out at once and reported, ticks when they can change something.

extension Simulator {
    private var host: HostMeasure {
        let free = farPages < farCapacity ? farCapacity - farPages : 0
        var host = HostMeasure(pressurePermille: 0, farFree: ByteCount(pages: PageCount(free)))
        host.pressureMillionths = 0
        return host
    }

    /// Tells the policy what the engine would have measured.
    mutating func measure(_ index: Int) {
        settle(index)
        guard offloads else { return }
        feed(.measured(containers[index].pages.measure), index)
    }

    /// Tells the policy what happened and carries out what it decides; what a recall among that read back.
    @discardableResult
    mutating func feed(_ event: ContainerEvent, _ index: Int) -> PagesTouched {
        var recalled = PagesTouched()
        guard offloads else { return recalled }
        decisions.removeAll(keepingCapacity: true)
        machine.handle(event, of: containers[index].handle, at: Nanoseconds(now), into: &decisions)
        carryOutAll(&recalled)
        return recalled
    }

    private mutating func carryOutAll(_ recalled: inout PagesTouched) {
        var done = 0
        // Reports may lead to further decisions.
        while done < decisions.count {
            let decision = decisions[done]
            done += 1
            result.decisions += 1
            log?.append((Nanoseconds(now), decision))
            let index = Int(byHandle[Int(decision.container.number) - 1])
            guard containers[index].handle == decision.container, containers[index].function >= 0
            else { continue }
            if let report = carryOut(decision.action, index, &recalled) {
                machine.handle(
                    .reported(report), of: decision.container, at: Nanoseconds(now),
                    into: &decisions)
            }
        }
    }

    private mutating func carryOut(
        _ action: Action, _ index: Int, _ recalled: inout PagesTouched
    ) -> ActionReport? {
        var report = ActionReport(action: action)
        let moved: PagesMoved
        switch action {
        case .snapshot, .halt, .forget: return nil
        case .recall, .pullBack:
            recalled = containers[index].pages.recall()
            settle(index)
            return nil
        case .startColdPageout(let regions):
            containers[index].coldAge = regions.age.nanoseconds
            scheduleColdPageout(index)
            return report
        case .stopColdPageout:
            containers[index].coldAge = nil
            return nil
        case .examine(let scope, let grant):
            moved = containers[index].pages.examine(scope, allowed(grant))
        case .release(let scope):
            moved = containers[index].pages.release(scope)
        case .drain(let grant):
            moved = containers[index].pages.drain(allowed(grant))
        case .reclaim(let grant):
            moved = containers[index].pages.reclaim(allowed(grant))
        }
        settle(index)
        report.written = ByteCount(pages: PageCount(moved.out))
        report.released = PageCount(moved.released)
        report.hot = PageCount(moved.hot)
        report.isExhausted = moved.isExhausted
        report.measure = containers[index].pages.measure
        count(moved)
        return report
    }

    // MARK: DAMON

    /// Its monitor's next finding: pages that were not touched for the age.
    mutating func scheduleColdPageout(_ index: Int) {
        guard let age = containers[index].coldAge, !containers[index].isColdPending else { return }
        containers[index].isColdPending = true
        queue.put(.cold, at: now + age, container: index, life: containers[index].life)
    }

    /// What was idle for the age leaves whole; of a busy container, what its requests do not touch.
    mutating func pageOutCold(_ index: Int) {
        containers[index].isColdPending = false
        guard let age = containers[index].coldAge else { return }
        let room = farPages < farCapacity ? farCapacity - farPages : 0
        let isIdle = !containers[index].isBusy
        let moved: PagesMoved
        if isIdle, now - containers[index].idleSince >= age {
            moved = containers[index].pages.drain(room)
        } else {
            moved = containers[index].pages.drainCold(room)
            scheduleColdPageout(index)
        }
        count(moved)
        measure(index)
        if isIdle, containers[index].semiWarmSince == nil, !containers[index].isColdPending {
            containers[index].semiWarmSince = now
        }
    }

    private mutating func count(_ moved: PagesMoved) {
        guard moved.out > 0 else { return }
        result.pagesOut += moved.out
        result.out.add(moved.out, at: Int(now / 1_000_000_000))
    }

    /// Pages of a grant that far memory has room for.
    private func allowed(_ grant: ByteCount) -> UInt64 {
        min(grant.pages.pages, farPages < farCapacity ? farCapacity - farPages : 0)
    }

    // MARK: Ticks

    /// The first multiple of the tick interval that is not before a moment.
    private func onGrid(_ time: Int64) -> Int64 { (time + tick - 1) / tick * tick }

    /// Puts a container's next wake-up into the queue, unless an earlier one is there.
    mutating func scheduleWake(_ index: Int, from time: Int64) {
        guard offloads, !settings.isDense,
            let due = machine.nextWake(of: containers[index].handle, at: Nanoseconds(time))
        else { return }
        let at = onGrid(due.nanoseconds)
        guard at < containers[index].wakeAt else { return }
        containers[index].wakeAt = at
        queue.put(.wake, at: at, container: index, life: containers[index].life)
    }

    /// A request to a container may have shortened its function's delay: then its idle containers wake sooner.
    mutating func wakeSooner(_ function: Int, by index: Int) {
        guard offloads, !settings.isDense,
            let wait = machine.semiWarmWait(ofFunctionOf: containers[index].handle)?.nanoseconds
        else { return }
        if wait < waits[function] {
            for index in idle[function] { scheduleWake(Int(index), from: now) }
        }
        waits[function] = wait
    }

    /// The policy's guards are told in time when far memory becomes short, or is no longer.
    mutating func checkFarSpace() {
        guard offloads, !settings.isDense else { return }
        let free = farPages < farCapacity ? farCapacity - farPages : 0
        let isShort = free <= machine.settings.farReserve.pages.pages
        guard isShort != toldShort, hostTickAt == .max else { return }
        hostTickAt = onGrid(now)
        if hostTickAt == lastTickAt { hostTickAt += tick }
        queue.put(.wake, at: hostTickAt, container: -1, life: 0)
    }

    /// A tick that serves all containers that wake now.
    mutating func wake(_ first: SimulatedEvent) {
        var due: [ContainerHandle] = []
        var event = first
        while true {
            note(event, &due)
            guard let next = queue.next, next.time == now, let taken = queue.take() else { break }
            event = taken
        }
        let isHostDue = hostTickAt == now
        if isHostDue { hostTickAt = .max }
        guard isHostDue || !due.isEmpty else { return }
        due.sort()
        runTick(serving: due)
    }

    private mutating func note(_ event: SimulatedEvent, _ due: inout [ContainerHandle]) {
        guard event.container >= 0 else { return }
        let index = Int(event.container)
        guard containers[index].life == event.life, containers[index].wakeAt == event.time else {
            return
        }
        containers[index].wakeAt = .max
        guard let wake = machine.nextWake(of: containers[index].handle, at: Nanoseconds(now))
        else { return }
        if wake.nanoseconds <= now {
            due.append(containers[index].handle)
        } else {
            scheduleWake(index, from: now)
        }
    }

    private mutating func runTick(serving due: [ContainerHandle]) {
        let host = host
        decisions.removeAll(keepingCapacity: true)
        machine.tick(host: host, serving: due, at: Nanoseconds(now), into: &decisions)
        afterTick(host)
        for handle in due {
            let index = Int(byHandle[Int(handle.number) - 1])
            noteSemiWarm(index)
            scheduleWake(index, from: now + 1)
        }
    }

    /// For the dense run: every tick, serving all.
    mutating func tickAll() {
        guard offloads else { return }
        let host = host
        decisions.removeAll(keepingCapacity: true)
        machine.tick(host: host, at: Nanoseconds(now), into: &decisions)
        afterTick(host)
        for index in containers.indices where containers[index].function >= 0 {
            noteSemiWarm(index)
        }
    }

    private mutating func afterTick(_ host: HostMeasure) {
        result.ticks += 1
        lastTickAt = now
        let free = host.farFree?.pages.pages ?? 0
        toldShort = free <= machine.settings.farReserve.pages.pages
        var ignored = PagesTouched()
        carryOutAll(&ignored)
        checkFarSpace()
    }

    private mutating func noteSemiWarm(_ index: Int) {
        guard containers[index].semiWarmSince == nil, !containers[index].isBusy,
            let phase = machine.containers[containers[index].handle]?.phase,
            phase == .semiWarm || phase == .drained
        else { return }
        containers[index].semiWarmSince = now
    }
}
