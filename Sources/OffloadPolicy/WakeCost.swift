import FarMemory

// The law of the price of a wake-up.
//
// A percentile of the reuse intervals says how many requests find their container semi-warm, not what that costs them. The
// latencies of such requests say it, beside those of the function's others. So many may find one as raise the
// function's mean by the allowed share:
//
//     share of requests = allowed * mean / (median of woken requests - median of undisturbed ones)
//
// and while wake-ups would show in the 95th percentile, at most 4 in 100. The start of semi-warm is the percentile that leaves this
// share, and never later than the one that is set. What a wake-up costs is learned from the first few: until then the
// delay is at most the prior. Where nobody reports latencies the percentile that is set stands alone.
//
// The mean and the 95th percentile are of requests as they would be without a controller: those that it left alone, and first
// requests of containers, which wait for their start.

/// What requests to semi-warm containers of a function pay, learned online.
package struct WakeCost: Equatable, Sendable {
    private static let wokenEnough = 3
    private static let others = 5
    /// Of the requests, in thousandths, as long as the 95th percentile would show them.
    private static let visibleShare: UInt64 = 40

    private var woken = LatencyRing(kept: 32)
    private var undisturbed = LatencyRing(kept: 64)
    private var ordinary = LatencyRing(kept: 64)
    private var notes: UInt32 = 0

    package init() {}

    /// What kind of request it was.
    enum Kind { case woken, first, undisturbed, disturbed }

    /// Whether what is known of the share may have changed.
    mutating func note(_ latency: Nanoseconds, _ kind: Kind) -> Bool {
        let micros = latency.ringMicroseconds
        switch kind {
        case .woken: woken.put(micros)
        case .first: ordinary.put(micros)
        case .undisturbed:
            undisturbed.put(micros)
            ordinary.put(micros)
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
        let price = woken.percentile(50) - undisturbed.percentile(50)
        guard price > 0 else { return 1000 }
        let share = min(1000, scaled(permille, UInt64(ordinary.mean), over: UInt64(price)))
        let isVisible = woken.percentile(75) * 100 > ordinary.percentile(95) * 105
        return isVisible ? min(share, Self.visibleShare) : share
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

    /// There must be values.
    var mean: Int64 { values.reduce(0) { $0 + Int64($1) } / Int64(values.count) }
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
