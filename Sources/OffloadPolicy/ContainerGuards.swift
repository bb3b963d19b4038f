import FarMemory

// The law of two guards that look at one container or function, beside those of the host (Guards.swift).
//
// - latency: requests of a function that found all of their pages as they had left them are its own baseline. When the 95th percentile of
//   its last requests, whatever they found, lies further above the baseline's than allowed, the container of the last one rests for its
//   rollback interval, and the evidence starts anew. Few requests prove nothing. Who reports no latencies has no such guard.
// - pressure: tasks of the container waited for memory for a larger share of the time than the host may; it rests for the pause. Where
//   the kernel does not tell (cgroup v1) there is no such guard.

/// The last latencies of a function, whatever its requests found.
package struct LatencyWatch: Equatable, Sendable {
    private static let enough = 20
    /// Less than this is noise, whatever its share.
    private static let worthwhile = Nanoseconds.milliseconds(5)

    private var recent = LatencyRing(kept: 64)

    package init() {}

    mutating func note(_ latency: Nanoseconds) { recent.put(latency.ringMicroseconds) }

    /// Whether the recent 95th percentile is more than `permille` thousandths above the baseline's: that of requests which found their
    /// pages in place.
    func isWorse(than baseline: LatencyRing, by permille: UInt64) -> Bool {
        guard recent.count >= Self.enough, baseline.count >= Self.enough else { return false }
        let (own, now) = (baseline.percentile(95), recent.percentile(95))
        return now - own >= Self.worthwhile.microseconds
            && UInt64(now) * 1000 > UInt64(own) * (1000 + permille)
    }

    mutating func forgetRecent() { recent.removeAll() }
}

extension PolicyMachine {
    /// Takes in how long a request took that has just ended.
    mutating func noteLatency(
        _ latency: Nanoseconds?, _ container: inout ContainerRecord, at now: Nanoseconds
    ) {
        guard settings.kind == .farmem, let latency else { return }
        let place = container.functionPlace
        let kind: WakeCost.Kind =
            container.isWoken
            ? .woken
            : container.requests == 0
                ? .first : container.isDisturbed ? .disturbed : .undisturbed
        let isWorse = functions.records[place].noteLatency(
            latency, kind, container.function, settings)
        if isWorse { container.backOff(.latency, until: now + container.rollbackInterval) }
    }

    /// Takes in the container's total time of waiting for memory, before `measure` replaces the last one.
    func noteStall(
        _ measure: ContainerMeasure, _ container: inout ContainerRecord, at now: Nanoseconds
    ) {
        guard settings.kind == .farmem, settings.guardsPressure, let total = measure.stall else {
            container.stallSeen = nil
            return
        }
        guard let seen = container.stallSeen else {
            container.stallSeen = StallMark(total: total, at: now)
            return
        }
        guard now - seen.at >= .milliseconds(500) else { return }
        container.stallSeen = StallMark(total: total, at: now)
        let waited = UInt64(max(0, (total - seen.total).nanoseconds))
        let share = waited * 1000 / UInt64((now - seen.at).nanoseconds)
        if share > settings.pressurePermille {
            container.backOff(.pressure, until: now + settings.pressurePause)
        }
    }
}

/// A container's total stall time at a moment.
struct StallMark: Equatable, Sendable {
    var total: Nanoseconds
    var at: Nanoseconds
}

extension ContainerRecord {
    /// Nothing of it leaves until then.
    mutating func backOff(_ rule: Rule, until end: Nanoseconds) {
        guard end > backOffUntil ?? .zero else { return }
        backOffUntil = end
        backOffRule = rule
        lastRule = rule
    }
}
