import FarMemory

// The laws of the policies that ours is measured against, with the constants of their authors.
//
// tmo. Every interval the container's memory times the ratio is reclaimed through its group, less in proportion to the share of
// the time in which its tasks wait for memory, nothing from the threshold on. Requests under the minimum are rounded up
// to it, and what was too much is not asked for again until it is used up. Running or idle makes no difference.
//
// idle-shrink. When the container has been idle for the delay, all of it above the floor is reclaimed through its group at once.
//
// damon. From the time when the runtime is up the kernel watches the container's processes and pages out by itself; the policy
// only starts and stops it.

extension PolicyMachine {
    func startColdPageout(_ container: inout ContainerRecord, into output: inout Output) {
        guard settings.kind == .damon, container.settings.offloads != false, !inMaintenance,
            !container.hasColdPageout
        else { return }
        container.hasColdPageout = true
        output.add(
            .startColdPageout(settings.coldRegions), .damon,
            "no access for \(settings.coldRegions.age)", &container)
    }

    /// A drained container holds its memory again, or may: it is to be drained anew.
    func becomeIdle(_ container: inout ContainerRecord) {
        container.phase = .idle
        container.isExhausted = false
        container.reclaimedShared = false
    }

    mutating func serveSenpai(
        _ container: inout ContainerRecord, at now: Nanoseconds, into output: inout Output
    ) {
        let senpai = settings.senpai
        guard let due = container.senpaiAt else {
            container.senpaiAt = now + senpai.interval
            return
        }
        guard now >= due else { return }
        container.senpaiAt = max(due + senpai.interval, now)
        if let reason = mayWrite(container, at: now) {
            container.lastRule = reason
            return
        }
        guard let measure = container.measure, !container.isBusyMoving else { return }
        guard let pressure = measure.pressureMillionths ?? host.pressureMillionths else {
            container.lastRule = .unknownPressure
            return
        }
        let left = senpai.pressureMillionths - min(pressure, senpai.pressureMillionths)
        let full = scaled(measure.local.bytes, senpai.ratioMillionths, over: 1_000_000)
        let bytes = scaled(full, left, over: max(1, senpai.pressureMillionths))
        let wanted = ByteCount(bytes).pages.pages
        let asked = container.senpaiRequest(wanted, minimum: senpai.requestMinimum.pages)
        guard asked > 0 else { return }
        let granted = budget.take(upTo: ByteCount(pages: PageCount(asked)), at: now)
        guard granted > .zero else {
            container.lastRule = .budget
            return
        }
        output.addPageAction(
            .reclaim(granted), .tmo,
            "\(wanted) pages at \(pressure) millionths of pressure", &container)
    }

    func wantsShrinking(_ container: inout ContainerRecord) -> BudgetRequest.Kind? {
        guard container.drainOwed >= UInt64(pageBytes) else {
            container.becomeDrained(.floor)
            return nil
        }
        return .shrink(ByteCount(container.drainOwed))
    }
}

extension ContainerRecord {
    mutating func becomeDrained(_ rule: Rule) {
        phase = .drained
        lastRule = rule
    }

    /// What to ask for when `wanted` pages are to go, at least `minimum` at a time: zero while earlier requests were more
    /// than was wanted.
    mutating func senpaiRequest(_ wanted: UInt64, minimum: UInt64) -> UInt64 {
        guard wanted > 0, wanted < minimum else { return wanted }
        if wanted <= senpaiOverdraft {
            senpaiOverdraft -= wanted
            return 0
        }
        let rest = wanted - senpaiOverdraft
        senpaiOverdraft = minimum - rest
        return minimum
    }
}
