package import FarMemory

// The law of the guards. Each answers one question before anything new is written to far memory; what it cannot know
// counts as no.
//
// - opted-out: a label or the configuration says that the container is left alone.
// - recycle-guard: the container ends within the guard time; its pages will be free then anyway.
// - refaults: in the last window more released pages came back than the ceiling allows; the container rests for a
//   rollback interval, which doubles (and the function's window may grow: RequestWindow.swift).
// - pressure: tasks waited for memory longer than the ceiling allows; all containers rest for the pause.
// - far-space: less swap space is free than the reserve.
// - far-latency: far memory takes longer to answer than allowed. link-down: its link is down. Where nothing tells
//   either, there is no such guard.
// - maintenance: someone wants everything local.
// - unknown-*: the kernel did not say.

extension PolicyMachine {
    /// The rule that forbids writing pages of the container to far memory now, or nil.
    func mayWrite(_ container: ContainerRecord, at now: Nanoseconds) -> Rule? {
        if container.settings.offloads == false { return .optedOut }
        if let recycledAt = container.recycledAt, recycledAt - now <= settings.recycleGuard,
            !container.hasOutlived(recycledAt, at: now)
        {
            return .recycleGuard
        }
        if let backOffUntil = container.backOffUntil, now < backOffUntil {
            return container.backOffRule
        }
        return hostForbids(at: now)
    }

    /// The rule that makes all containers rest now, or nil.
    package func hostForbids(at now: Nanoseconds) -> Rule? {
        if inMaintenance { return .maintenance }
        if settings.guardsPressure && host.pressurePermille == nil { return .unknownPressure }
        guard let farFree = host.farFree else { return .unknownFarSpace }
        if host.farIsConnected == false { return .linkDown }
        if let pressedUntil, now < pressedUntil { return .pressure }
        if farFree <= settings.farReserve { return .farSpace }
        if let limit = settings.farLatencyMaximum, let latency = host.farLatency, latency > limit {
            return .farLatency
        }
        return nil
    }

    /// From now on nothing leaves, and all that is far is read back; or things go on as before.
    package mutating func setMaintenance(
        _ isOn: Bool, at now: Nanoseconds, into decisions: inout [Decision]
    ) {
        guard isOn != inMaintenance else { return }
        inMaintenance = isOn
        for place in containers.records.indices {
            change(place, at: now, into: &decisions) { machine, container, output in
                machine.changeMaintenance(isOn, &container, into: &output)
            }
        }
    }

    private mutating func changeMaintenance(
        _ isOn: Bool, _ container: inout ContainerRecord, into output: inout Output
    ) {
        guard isOn else {
            if container.phase != .launching { startColdPageout(&container, into: &output) }
            return
        }
        output.add(.halt, .maintenance, "maintenance", &container)
        if container.hasColdPageout {
            container.hasColdPageout = false
            output.add(.stopColdPageout, .maintenance, "maintenance", &container)
        }
        output.add(.pullBack, .maintenance, "maintenance", &container)
        if container.phase == .semiWarm || container.phase == .drained { becomeIdle(&container) }
    }

    mutating func noteHost(_ measure: HostMeasure, at now: Nanoseconds) {
        host = measure
        if settings.guardsPressure, let pressure = measure.pressurePermille,
            pressure > settings.pressurePermille
        {
            pressedUntil = now + settings.pressurePause
        }
    }

    /// Backs off when released pages come back outside of a recall.
    mutating func noteRefaults(_ container: inout ContainerRecord, at now: Nanoseconds) {
        noteBack(&container)
        guard settings.guardsRefaults, let watch = container.watch,
            let refaults = container.measure?.refaults
        else { return }
        let back = watch.back(refaults)
        guard back * 1000 > watch.released * settings.refaultPermille, back > 256 else { return }
        endWatch(&container)
        container.doubleRollbackInterval(settings)
        container.backOffUntil = nil
        container.backOff(.refaults, until: now + container.rollbackInterval)
    }
}

extension ContainerRecord {
    static let outliving = Nanoseconds.seconds(60)

    /// It should have ended a minute ago: whoever said so was wrong, or did not say that it was asked again.
    func hasOutlived(_ end: Nanoseconds, at now: Nanoseconds) -> Bool {
        now - end >= Self.outliving
    }

    /// The budget did not let all of the open window be examined, and no request has begun.
    var hasExaminationLeft: Bool { examineOwed > 0 && windowLeft != nil }
}

extension PolicySettings {
    /// From a share of one on a guard is off: what it would have to know is not asked.
    var guardsPressure: Bool { pressurePermille < 1000 }
    var guardsRefaults: Bool { refaultPermille < 1000 }
}
