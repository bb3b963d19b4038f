import FarMemory

// The law of the price of a wake-up.
//
// A percentile of the reuse intervals says how many requests find their container semi-warm, not what that costs them. The
// latencies of such requests say it, beside those of the function's others. So many may find one as raise the
// function's mean by the allowed share:
//
//     share of requests = allowed * mean / (3rd quartile of woken requests - 1st quartile of undisturbed ones)
//
// at most half of them, for the others have to be seen too, and while wake-ups would show in the 95th percentile at most 15 in a
// thousand: with rollbacks (RollbackLaw.swift) half of the slowest twentieth, which leaves the other half to whatever else is slow.
// They do not show when they are hardly slower than the others, or when one request in ten is a cold start anyhow. The start of
// semi-warm is the percentile that leaves this share, and never later than the one that is set. A percentile of few intervals is a
// guess (ReuseIntervals stretches it): when more requests have been woken than permitted, it is twice the one that is set until that
// has evened out.
//
// What a wake-up costs is learned from the first few: until then the delay is at most the prior, as long as asking does not show either.
// Where nobody reports latencies the percentile that is set stands alone.
//
// The mean is of requests as they would be without a controller: those that it left alone, and first requests of containers.

/// What requests to semi-warm containers of a function pay, learned online.
package struct WakeCost: Equatable, Sendable {
    private static let wokenEnough = 3
    private static let others = 5
    private static let startsEnough = 3
    /// A minor fault on a page in the swap cache, and the least that is worth an examination.
    private static let faultNanoseconds: UInt64 = 2000
    private static let sliceLeast: UInt64 = 64
    /// Of the requests, in thousandths, as long as the 95th percentile would show them.
    private static let visibleShare: UInt64 = 15
    private static let shareMost: UInt64 = 500
    /// Requests from which on it counts how many were woken, and at which the counts are halved.
    private static let countsFrom: UInt32 = 20
    private static let fadeAt: UInt32 = 256

    private var woken = LatencyRing(kept: 32)
    /// Requests that found their pages in place: the baseline of the latency guard too (ContainerGuards.swift).
    private(set) var undisturbed = LatencyRing(kept: 64)
    private var ordinary = OrdinaryLatencies()
    private var notes: UInt32 = 0
    private var requests: UInt32 = 0
    private var wokenRequests: UInt32 = 0

    package init() {}

    /// What kind of request it was.
    enum Kind { case woken, first, undisturbed, disturbed }

    /// Whether what is known of the share may have changed.
    mutating func note(_ latency: Nanoseconds, _ kind: Kind) -> Bool {
        let micros = latency.ringMicroseconds
        count(kind)
        switch kind {
        case .woken: woken.put(micros)
        case .first: ordinary.put(micros, isFirst: true)
        case .undisturbed:
            undisturbed.put(micros)
            ordinary.put(micros, isFirst: false)
        case .disturbed: return false
        }
        notes &+= 1
        return kind == .woken || notes % 16 == 0
    }

    /// Pages whose faults, all of them taken in one request, lengthen it by so many thousandths; nil while too little is known.
    func pages(costing permille: UInt64) -> PageCount? {
        guard undisturbed.count >= Self.others else { return nil }
        let time = scaled(UInt64(undisturbed.percentile(50)), permille * 1000, over: 1000)
        return PageCount(max(Self.sliceLeast, time / Self.faultNanoseconds))
    }

    /// Others than woken requests are known, and too few woken ones; one more would not show.
    var isSought: Bool {
        undisturbed.count >= Self.others && woken.count < Self.wokenEnough
            && (isOftenCold
                || UInt64(wokenRequests + 1) * 1000 <= Self.visibleShare * UInt64(requests))
    }

    /// One request in ten waits for the start of its container. One start among the first ten says nothing of that: most functions have it.
    private var isOftenCold: Bool {
        ordinary.firsts >= Self.startsEnough && ordinary.firsts * 10 >= ordinary.count
    }

    /// Thousandths of the requests that may find a semi-warm container, when wake-ups may raise the mean by `permille`
    /// thousandths; nil while too little is known.
    func share(permille: UInt64) -> UInt64? {
        guard woken.count >= Self.wokenEnough, undisturbed.count >= Self.others else { return nil }
        let price = max(1, woken.percentile(75) - undisturbed.percentile(25))
        let share = min(
            Self.shareMost, scaled(permille, UInt64(ordinary.mean), over: UInt64(price)))
        let isHidden =
            woken.percentile(75) * 100 <= undisturbed.percentile(50) * 105
            || isOftenCold
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
    /// None more may for now: too many have, or their price is too high.
    var isExhausted: Bool { permitted == 0 }
    /// Their price is to be found out.
    var isSought = false
}
