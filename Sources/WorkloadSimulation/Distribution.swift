package import FarMemory

/// Counts of times in buckets a thirty-second of a power of two wide (2 % at most), and the largest exactly. 0 to 2^44 ns (5 hours) and above.
package struct TimeDistribution: Equatable, Sendable {
    private static let perOctave = 32
    private static let octaves = 45
    private var counts = [UInt64](repeating: 0, count: perOctave * octaves)
    package private(set) var total: UInt64 = 0
    package private(set) var sum: Double = 0
    package private(set) var largest: Int64 = 0

    package init() {}

    package mutating func record(_ nanoseconds: Int64, count: UInt64 = 1) {
        counts[Self.bucket(nanoseconds)] += count
        total += count
        sum += Double(nanoseconds) * Double(count)
        largest = max(largest, nanoseconds)
    }

    /// Below which this share lies, to the end of its bucket; nil when nothing was counted.
    package func quantile(_ share: Double) -> Nanoseconds? {
        guard total > 0 else { return nil }
        let rank = max(1, UInt64((Double(total) * share).rounded(.up)))
        var seen: UInt64 = 0
        for (bucket, count) in counts.enumerated() where count > 0 {
            seen += count
            if seen >= rank { return Nanoseconds(min(Self.end(bucket), largest)) }
        }
        return Nanoseconds(largest)
    }

    package var mean: Double { total > 0 ? sum / Double(total) : 0 }

    private static func bucket(_ nanoseconds: Int64) -> Int {
        let value = UInt64(max(nanoseconds, 1))
        let octave = 63 - value.leadingZeroBitCount
        guard octave < octaves else { return perOctave * octaves - 1 }
        let fraction =
            octave >= 5 ? (value >> UInt64(octave - 5)) & 31 : (value << UInt64(5 - octave)) & 31
        return octave * perOctave + Int(fraction)
    }

    private static func end(_ bucket: Int) -> Int64 {
        let octave = Double(bucket / perOctave)
        let part = 1 + Double(bucket % perOctave + 1) / Double(perOctave)
        var power = 1.0
        for _ in 0..<Int(octave) { power *= 2 }
        return Int64(power * part)
    }
}

/// One value a second, and what reports want of it.
package struct SecondSeries: Equatable, Sendable {
    package private(set) var values: [UInt32]

    package init(seconds: Int) {
        values = Array(repeating: 0, count: seconds)
    }

    mutating func fill(_ range: Range<Int>, with value: UInt64) {
        let clamped = UInt32(clamping: value)
        for second in range.clamped(to: values.indices) { values[second] = clamped }
    }

    mutating func add(_ value: UInt64, at second: Int) {
        guard values.indices.contains(second) else { return }
        values[second] = UInt32(clamping: UInt64(values[second]) + value)
    }

    package struct Summary: Equatable, Sendable {
        package var mean: Double
        package var p50: Double
        package var p99: Double
        package var peak: Double
        package var peakSecond: Int
    }

    /// Values times `unit`.
    package func summary(unit: Double) -> Summary {
        guard !values.isEmpty else {
            return Summary(mean: 0, p50: 0, p99: 0, peak: 0, peakSecond: 0)
        }
        let sum = values.reduce(0.0) { $0 + Double($1) }
        let peakSecond = values.indices.max { values[$0] < values[$1] } ?? 0
        var places = values
        func at(_ share: Double) -> Double {
            let rank = min(places.count - 1, Int(Double(places.count) * share))
            return Double(places.select(rank)) * unit
        }
        return Summary(
            mean: sum / Double(values.count) * unit, p50: at(0.5), p99: at(0.99),
            peak: Double(values[peakSecond]) * unit, peakSecond: peakSecond)
    }
}

/// Shares between 0 and 1 in hundredths.
package struct ShareDistribution: Equatable, Sendable {
    private var counts = [UInt64](repeating: 0, count: 101)
    package private(set) var total: UInt64 = 0

    package init() {}

    mutating func record(_ share: Double) {
        counts[min(100, max(0, Int((share * 100).rounded())))] += 1
        total += 1
    }

    /// The share of what was counted that is at most so many hundredths, from 0 to 100.
    package var cumulative: [Double] {
        var seen: UInt64 = 0
        return counts.map { count in
            seen += count
            return total > 0 ? Double(seen) / Double(total) : 0
        }
    }
}

extension Array where Element: Comparable {
    /// The value that sorting would put at this place, in linear time; changes the order. The place must be one of the array's, and
    /// every value comparable with itself.
    mutating func select(_ rank: Int) -> Element {
        precondition(indices.contains(rank), "a place that the array does not have")
        var low = startIndex
        var high = endIndex - 1
        while low < high {
            // The middle one of three keeps sorted arrays from being the worst.
            let middle = low + (high - low) / 2
            if self[middle] < self[low] { swapAt(middle, low) }
            if self[high] < self[low] { swapAt(high, low) }
            if self[high] < self[middle] { swapAt(high, middle) }
            let pivot = self[middle]
            var left = low
            var right = high
            while left <= right {
                while self[left] < pivot { left += 1 }
                while pivot < self[right] { right -= 1 }
                if left <= right {
                    swapAt(left, right)
                    left += 1
                    right -= 1
                }
            }
            if rank <= right {
                high = right
            } else if rank >= left {
                low = left
            } else {
                return self[rank]
            }
        }
        return self[rank]
    }
}
