import LinuxSystem

/// How a connection waits for its next request, learned from how that went lately. Pure but for the clock.
///
/// A client with one request in flight answers a reply within tens of microseconds: looking for it again and
/// again for that long saves the wake-up, which costs more. A client with many in flight sends them one by one,
/// and waking for each is what costs: a nap lets them gather, and one receive and one send serve them all.
/// Each is given up for a while when it does not pay, so that a client of another kind is not hurt.
struct NBDPatience {
    enum Choice {
        case sleep
        case nap
        case spin(start: Int64, length: Int64)
    }

    /// A nap must gather this many to have paid.
    static let napRequestsMin = 3
    /// Requests served since the last wait that hint at many in flight.
    private static let windowNanoseconds: Int64 = 50_000
    private static let windowRequests = 5

    private let spinMax: Int64
    private var spin: Int64
    private var windowStart: Int64 = 0
    private var windowCount = 0
    private var isBusy = false
    private var hasNapped = false
    private var napPays = false
    private var now: Int64 = 0
    /// Waits until a nap is tried again, and how many there will be after the next failure.
    private var napPause = 0
    private var napPauseNext = 16

    init(spin: Int64) {
        spinMax = spin
        self.spin = spin
    }

    /// To be asked before each look for more, with the number of requests that the last round served: whether to nap first.
    /// While naps pay there is always something to find, but one request at a time.
    mutating func gathers(served: Int) -> Bool {
        now = monotonicNow()
        windowCount += served
        if hasNapped { napped(served) }
        let elapsed = now - windowStart
        if elapsed > Self.windowNanoseconds {
            isBusy =
                Int64(windowCount) * Self.windowNanoseconds
                >= Int64(Self.windowRequests) * elapsed
            windowStart = now
            windowCount = 0
        }
        guard isBusy, napPays else { return false }
        hasNapped = true
        return true
    }

    /// What to do now that nothing is there.
    mutating func choose() -> Choice {
        // A nap that found nothing was no good.
        if hasNapped { napped(0) }
        if isBusy {
            if napPause == 0 {
                hasNapped = true
                return .nap
            }
            napPause -= 1
        }
        return spin > 0 ? .spin(start: now, length: spin) : .sleep
    }

    /// Judges a nap by the round after it.
    private mutating func napped(_ requests: Int) {
        hasNapped = false
        napPays = requests >= Self.napRequestsMin
        if napPays {
            napPauseNext = 16
        } else {
            napPause = napPauseNext
            napPauseNext = min(1024, napPauseNext * 2)
        }
    }

    mutating func spun(_ hit: Bool) {
        if hit {
            spin = spinMax
        } else {
            spin /= 2
            if spin < 2000 { spin = 0 }
        }
    }

    /// A sleep that a spin would have covered brings spinning back.
    mutating func slept(_ length: Int64) {
        if length < spinMax { spin = spinMax }
    }
}
