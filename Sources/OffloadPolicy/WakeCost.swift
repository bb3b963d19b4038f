import FarMemory

// The law of the price of a wake-up.
//
// A percentile of the reuse intervals says how many requests find their container semi-warm, not what that costs them. The
// latencies of such requests say it, beside those of the function's others. So many may find one as raise the
// function's mean by the allowed share:
//
//     share of requests = allowed * mean / (3rd quartile of woken requests - 1st quartile of undisturbed ones)
//
// at most half of them, for the others have to be seen too, and while wake-ups would show in the 95th percentile at most 25 in a
// thousand, which leaves the other half of the slowest twentieth to whatever else is slow. They do not show when they are hardly slower than
// the others, or when one request in ten is a cold start anyhow. The start of semi-warm is the percentile that leaves this share, and
// never later than the one that is set. A percentile of few intervals is a guess: when more requests have been woken than
// permitted, the one that is set holds until it has evened out.
//
// What a wake-up costs is learned from the first few: until then the delay is at most the prior. Where nobody reports latencies the
// percentile that is set stands alone.
//
// The mean is of requests as they would be without a controller: those that it left alone, and first requests of containers,
// which wait for their start.

/// What requests to semi-warm containers of a function pay, learned online.
package struct WakeCost: Equatable, Sendable {
    private static let wokenEnough = 3
    private static let others = 5
    /// Of the requests, in thousandths, as long as the 95th percentile would show them.
    private static let visibleShare: UInt64 = 25
    private static let shareMost: UInt64 = 500
    /// Requests from which on it counts how many were woken, and at which the counts are halved.
    private static let countsFrom: UInt32 = 20
    private static let fadeAt: UInt32 = 256

    private var woken = LatencyRing(kept: 32)
    private var undisturbed = LatencyRing(kept: 64)
    private var ordinary = LatencyRing(kept: 64)
    private var notes: UInt32 = 0
    private var requests: UInt32 = 0
    private var wokenRequests: UInt32 = 0
    /// First requests among the last ordinary ones.
    private var coldStarts = LatencyRing(kept: 64)

    package init() {}

    /// What kind of request it was.
    enum Kind { case woken, first, undisturbed, disturbed }

    /// Whether what is known of the share may have changed.
    mutating func note(_ latency: Nanoseconds, _ kind: Kind) -> Bool {
        let micros = latency.ringMicroseconds
        count(kind)
        switch kind {
        case .woken: woken.put(micros)
        case .first:
            ordinary.put(micros)
            coldStarts.put(1)
        case .undisturbed:
            undisturbed.put(micros)
            ordinary.put(micros)
            coldStarts.put(0)
        case .disturbed: return false
        }
        notes &+= 1
        return kind == .woken || notes % 16 == 0
    }

    /// Others than woken requests are known, and too few woken ones.
    var isUnknown: Bool { undisturbed.count >= Self.others && woken.count < Self.wokenEnough }

    /// Thousandths of the requests that may find a semi-warm container, when wake-ups may raise the mean by `permille`
    /// thousandths; nil while too little is known.
    func share(permille: UInt64) -> UInt64? {
        guard woken.count >= Self.wokenEnough, undisturbed.count >= Self.others else { return nil }
        let price = max(1, woken.percentile(75) - undisturbed.percentile(25))
        let share = min(
            Self.shareMost, scaled(permille, UInt64(ordinary.mean), over: UInt64(price)))
        let isHidden =
            woken.percentile(75) * 100 <= undisturbed.percentile(50) * 105
            || coldStarts.count >= 10 && coldStarts.sum * 10 >= Int64(coldStarts.count)
        let permitted = isHidden ? share : min(share, Self.visibleShare)
        return isOverdrawn(permitted) ? 0 : permitted
    }

    private mutating func count(_ kind: Kind) {
        requests += 1
        if kind == .woken { wokenRequests += 1 }
        if requests >= Self.fadeAt {
            requests /= 2
            wokenRequests /= 2
        }
    }

    /// Whether one request more than permitted was woken.
    private func isOverdrawn(_ permitted: UInt64) -> Bool {
        requests >= Self.countsFrom
            && UInt64(wokenRequests) * 1000 > permitted * UInt64(requests) + 1000
    }
}

/// The last latencies of one kind, in microseconds.
struct LatencyRing: Equatable, Sendable {
    private let kept: Int
    private var values: [UInt32] = []
    private var next = 0

    init(kept: Int) { self.kept = kept }

    var count: Int { values.count }

    mutating func put(_ value: UInt32) {
        if values.count < kept { values.append(value) } else { values[next] = value }
        next = (next + 1) % kept
    }

    mutating func removeAll() {
        values = []
        next = 0
    }

    /// Nearest rank. There must be values.
    func percentile(_ percent: Int) -> Int64 {
        Int64(values.sorted()[max(0, (values.count * percent + 99) / 100 - 1)])
    }

    var sum: Int64 { values.reduce(0) { $0 + Int64($1) } }

    /// There must be values.
    var mean: Int64 { sum / Int64(values.count) }
}

extension Nanoseconds {
    /// As a ring keeps it.
    var ringMicroseconds: UInt32 { UInt32(clamping: max(0, microseconds)) }
}

extension PolicySettings {
    /// How many thousandths of the reuses a container must outlast to be drained.
    func reuseShare(_ wakes: WakeShare) -> UInt64 {
        guard wakePermille > 0, let share = wakes.permitted else { return reusePermille }
        return min(reusePermille, 1000 - min(1000, share))
    }
}

/// What was learned of wake-ups, as the delay needs it.
package struct WakeShare: Equatable, Sendable {
    /// Thousandths of the requests that may find a semi-warm container.
    package internal(set) var permitted: UInt64?
    /// Their price is to be found out.
    var isSought = false
}
