package import FarMemory

// The law of the guards. Each answers one question before anything new is written to far memory; what it cannot know
// counts as no.
//
// - recycle-guard: the container ends within the guard time; its pages will be free then anyway.
// - refaults: in the last window more released pages came back than the ceiling allows; the container rests for a
//   rollback interval, which doubles, and its function's window grows if it is automatic.
// - pressure: tasks waited for memory longer than the ceiling allows; all containers rest for the pause.
// - far-space: less swap space is free than the reserve.
// - unknown-*: the kernel did not say.

extension PolicyMachine {
    /// The rule that forbids writing pages of the container to far memory now, or nil.
    func mayWrite(_ container: ContainerRecord, at now: Nanoseconds) -> Rule? {
        if let recycledAt = container.recycledAt, recycledAt - now <= settings.recycleGuard {
            return .recycleGuard
        }
        if let backOffUntil = container.backOffUntil, now < backOffUntil { return .refaults }
        return hostForbids(at: now)
    }

    /// The rule that makes all containers rest now, or nil.
    package func hostForbids(at now: Nanoseconds) -> Rule? {
        guard host.pressurePermille != nil else { return .unknownPressure }
        guard let farFree = host.farFree else { return .unknownFarSpace }
        if let pressedUntil, now < pressedUntil { return .pressure }
        if farFree <= settings.farReserve { return .farSpace }
        return nil
    }

    mutating func noteHost(_ measure: HostMeasure, at now: Nanoseconds) {
        host = measure
        if let pressure = measure.pressurePermille, pressure > settings.pressurePermille {
            pressedUntil = now + settings.pressurePause
        }
    }

    /// Backs off when released pages come back outside of a recall.
    mutating func noteRefaults(_ container: inout ContainerRecord, at now: Nanoseconds) {
        guard refaultsExceed(container) else { return }
        container.refaultsAtRelease = nil
        container.rollbackInterval = min(
            container.rollbackInterval + container.rollbackInterval,
            settings.rollbackIntervalMaximum)
        container.backOffUntil = now + container.rollbackInterval
        container.lastRule = .refaults
        if settings.requestWindow == nil, settings.requestWindows[container.function] == nil,
            let window = functions[container.function]?.window
        {
            functions[container.function]?.window = min(window * 2, 32)
        }
    }

    /// Whether more of the last release came back than the ceiling allows.
    func refaultsExceed(_ container: ContainerRecord) -> Bool {
        guard let before = container.refaultsAtRelease, let after = container.measure?.refaults,
            container.releasedPages > 0
        else { return false }
        let back = after >= before ? after - before : 0
        return back * 1000 > container.releasedPages * settings.refaultPermille && back > 256
    }
}
