package import FarMemory

// The law: one bucket of bytes for all containers. It fills at the configured rate up to the burst; whatever is to
// be written to far memory is taken out first, and nothing is lent. So in any stretch of time t at most burst + rate * t
// bytes are granted. What a grant did not use is put back.

/// The bandwidth that all containers share.
package struct BandwidthBudget: Equatable, Sendable {
    private let bytesPerSecond: UInt64
    private let burst: UInt64
    private var available: UInt64
    private var filledAt: Nanoseconds

    /// Starts full at `now`.
    package init(rate: ByteCount, burst: ByteCount, at now: Nanoseconds) {
        bytesPerSecond = rate.bytes
        self.burst = burst.bytes
        available = burst.bytes
        filledAt = now
    }

    /// What could be granted at `now`.
    package mutating func available(at now: Nanoseconds) -> ByteCount {
        fill(now)
        return ByteCount(available)
    }

    /// Grants at most `wanted`, in whole pages.
    package mutating func take(upTo wanted: ByteCount, at now: Nanoseconds) -> ByteCount {
        fill(now)
        let granted = ByteCount(pages: ByteCount(min(wanted.bytes, available)).pages)
        available -= granted.bytes
        return granted
    }

    /// Puts back what a grant did not use.
    package mutating func putBack(_ unused: ByteCount) {
        available = min(burst, available + unused.bytes)
    }

    private mutating func fill(_ now: Nanoseconds) {
        guard now > filledAt else { return }
        let elapsed = UInt64((now - filledAt).nanoseconds)
        let gained = scaled(bytesPerSecond, elapsed, over: 1_000_000_000)
        if gained == 0 { return }
        filledAt = now
        available = gained >= burst - available ? burst : available + gained
    }
}
