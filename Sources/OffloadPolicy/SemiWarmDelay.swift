package import FarMemory

// How long a container is idle before it is semi-warm: what is set for it or its function, or what its function's reuses tell
// (ReuseIntervals.swift), with what wake-ups cost (WakeCost.swift).

extension PolicyMachine {
    /// When a container of this function may be drained, and by what: idle time, and its origin.
    package func semiWarmDelay(of function: String) -> (delay: Nanoseconds, origin: String) {
        let wait = semiWarmWait(of: function)
        if settings.semiWarmDelays[function] != nil { return (wait, "given") }
        if settings.semiWarmDelay != nil { return (wait, "fixed") }
        let reuse = functions[function]?.reuse ?? ReuseIntervals()
        let samples = reuse.samples
        guard samples >= settings.reuseSamplesMinimum else { return (wait, "prior") }
        let wakes = functions[function]?.wakes ?? WakeShare()
        if wakes.isSought && wait == settings.semiWarmSoonest {
            return (wait, "prior, to see what a wake-up costs")
        }
        let share = settings.reuseShare(wakes)
        if wait == settings.semiWarmSoonest, let quantile = reuse.quantile(permille: share),
            settings.isKeepingVain(quantile, reuse)
        {
            return (wait, "prior, as keeping more would spare too few of \(samples) reuses")
        }
        let why =
            wakes.isExhausted
            ? ", twice, as enough were woken"
            : share < settings.reusePermille ? ", as wake-ups cost little" : ""
        return (wait, "p\(share)/1000 of \(samples) reuses\(why)")
    }

    /// The same for a container, whose own settings come first.
    package func semiWarmDelay(
        of container: ContainerRecord
    ) -> (delay: Nanoseconds, origin: String) {
        if let own = container.settings.semiWarmDelay, own > .zero { return (own, "set for it") }
        return semiWarmDelay(of: container.function)
    }

    /// The delay of a container's function, found by the container; nil when it is gone.
    package func semiWarmWait(ofFunctionOf id: ContainerHandle) -> Nanoseconds? {
        containers.place(of: id).map {
            functions.records[containers.records[$0].functionPlace].wait
        }
    }

    /// A function's delay without its origin: cheap enough for each request.
    package func semiWarmWait(of function: String) -> Nanoseconds {
        functions[function]?.wait ?? settings.semiWarmWait(of: function, ReuseIntervals())
    }

    func semiWarmWait(of container: ContainerRecord) -> Nanoseconds {
        if let own = container.settings.semiWarmDelay, own > .zero {
            return min(own, FunctionRecord.waitMaximum)
        }
        return functions.records[container.functionPlace].wait
    }
}

extension PolicySettings {
    /// Few intervals are stretched to so many priors at most.
    private static let stretchPriors: Int64 = 12

    /// The delay where nothing is known, or what is known does not make waiting worth it.
    var semiWarmSoonest: Nanoseconds { max(semiWarmPrior, semiWarmMinimum) }

    /// Whether keeping memory up to that quantile of the reuses would spare too few requests.
    func isKeepingVain(_ quantile: Nanoseconds, _ reuse: ReuseIntervals) -> Bool {
        reuse.makeKeepingVain(from: semiWarmSoonest, to: quantile, patience: semiWarmPatience)
    }

    /// How long a container of the function must be idle to be drained, given its reuses.
    func semiWarmWait(
        of function: String, _ reuse: ReuseIntervals, _ wakes: WakeShare = WakeShare()
    ) -> Nanoseconds {
        if let given = semiWarmDelays[function] ?? semiWarmDelay { return given }
        guard reuse.samples >= reuseSamplesMinimum,
            let quantile = reuse.quantile(permille: reuseShare(wakes))
        else { return semiWarmSoonest }
        if isKeepingVain(quantile, reuse) { return semiWarmSoonest }
        // What was idle for so long is not one of the busy ones, whose few requests would otherwise show what is not known yet.
        let stretchedMost = Nanoseconds(
            min(semiWarmPrior.nanoseconds, .max / Self.stretchPriors) * Self.stretchPriors)
        let stretched = max(
            quantile, min(reuse.stretched(quantile, permille: reuseShare(wakes)), stretchedMost))
        let known = reuse.samples < reuseSamplesEnough ? max(stretched, semiWarmPrior) : stretched
        let wait =
            wakes.isSought
            ? min(known, semiWarmPrior) : wakes.isExhausted ? known + known : known
        return max(wait, semiWarmMinimum)
    }
}
