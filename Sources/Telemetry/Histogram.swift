package import FarMemory
package import Synchronization

/// Which bucket a value falls into: exact below 8, then eight buckets per power of two, so that a bucket is at most an
/// eighth wide and a percentile at most 6.25 % off its middle.
package enum HistogramScale {
    package static let bucketCount = 496

    @inlinable package static func bucket(of value: UInt64) -> Int {
        if value < 8 { return Int(value) }
        let exponent = 63 - value.leadingZeroBitCount
        let mantissa = Int(truncatingIfNeeded: (value >> UInt64(exponent - 3)) & 7)
        return (exponent - 2) * 8 + mantissa
    }

    /// The smallest value of a bucket.
    static func lowerBound(_ bucket: Int) -> UInt64 {
        if bucket < 8 { return UInt64(bucket) }
        let exponent = bucket / 8 + 2
        return UInt64(8 + bucket % 8) << UInt64(exponent - 3)
    }

    /// The middle of a bucket, for percentiles.
    static func middle(_ bucket: Int) -> UInt64 {
        if bucket < 8 { return UInt64(bucket) }
        return lowerBound(bucket) + (UInt64(1) << UInt64(bucket / 8 - 1)) / 2
    }
}

/// A distribution of latencies (nanoseconds) or sizes. Recording is lock-free, allocates nothing, any thread.
package final class Histogram: Sendable {
    package let buckets = InlineArray<496, Atomic<UInt64>> { _ in Atomic(0) }
    package let sum = Atomic<UInt64>(0)
    package let largest = Atomic<UInt64>(0)

    package init() {}

    @inlinable package func record(_ value: UInt64) {
        buckets[HistogramScale.bucket(of: value)].wrappingAdd(1, ordering: .relaxed)
        sum.wrappingAdd(value, ordering: .relaxed)
        // Atomic.max compares UInt64 as signed numbers (seen with Swift 6.3), so this loop.
        var seen = largest.load(ordering: .relaxed)
        while value > seen {
            let (done, current) = largest.weakCompareExchange(
                expected: seen, desired: value, ordering: .relaxed)
            if done { return }
            seen = current
        }
    }

    /// Negative lengths (a clock that was read in the wrong order) count as zero.
    @inlinable package func record(_ length: Nanoseconds) {
        record(UInt64(max(0, length.nanoseconds)))
    }

    /// What was recorded so far. Concurrent records may be in some figures and not yet in others.
    package func snapshot() -> HistogramSnapshot {
        var counts = [UInt64](repeating: 0, count: HistogramScale.bucketCount)
        for index in 0..<counts.count { counts[index] = buckets[index].load(ordering: .relaxed) }
        return HistogramSnapshot(
            counts: counts, sum: sum.load(ordering: .relaxed),
            largest: largest.load(ordering: .relaxed))
    }
}

/// A histogram's state at one time: percentiles, differences, sums.
package struct HistogramSnapshot: Sendable, Equatable {
    private(set) var counts: [UInt64]
    /// Sum of all values.
    package private(set) var sum: UInt64
    /// Largest value ever recorded (a difference keeps it: it may lie before the interval).
    package private(set) var largest: UInt64

    init(counts: [UInt64], sum: UInt64, largest: UInt64) {
        self.counts = counts
        self.sum = sum
        self.largest = largest
    }

    /// Empty.
    package init() {
        self.init(
            counts: [UInt64](repeating: 0, count: HistogramScale.bucketCount), sum: 0, largest: 0)
    }

    package var count: UInt64 { counts.reduce(0, &+) }

    package var mean: Double { count == 0 ? 0 : Double(sum) / Double(count) }

    /// The value that a fraction `ratio` (0 to 1) of all values does not exceed, within an eighth; 0 when empty.
    package func percentile(_ ratio: Double) -> UInt64 {
        precondition((0...1).contains(ratio), "a percentile is given as 0 to 1")
        let total = count
        guard total > 0 else { return 0 }
        let rank = max(1, UInt64((ratio * Double(total)).rounded(.up)))
        var seen: UInt64 = 0
        for (bucket, number) in counts.enumerated() where number > 0 {
            seen += number
            if seen >= rank { return min(HistogramScale.middle(bucket), largest) }
        }
        return largest
    }

    /// Values up to and including 2^exponent − 1.
    func count(below exponent: Int) -> UInt64 {
        let end = HistogramScale.bucket(of: 1 << UInt64(exponent))
        return counts[..<end].reduce(0, &+)
    }

    /// What was recorded since `earlier`, a snapshot of the same histogram.
    package func since(_ earlier: HistogramSnapshot) -> HistogramSnapshot {
        var difference = self
        for index in counts.indices { difference.counts[index] &-= earlier.counts[index] }
        difference.sum &-= earlier.sum
        return difference
    }

    /// Both together.
    package func merged(with other: HistogramSnapshot) -> HistogramSnapshot {
        var both = self
        for index in counts.indices { both.counts[index] &+= other.counts[index] }
        both.sum &+= other.sum
        both.largest = max(largest, other.largest)
        return both
    }
}
