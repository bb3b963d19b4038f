package import FarMemory

// The law: a container may be drained when it has been idle longer than almost every idle time that
// ended with a request for the same function. The idle times are counted in buckets whose width grows with
// the time (an eighth of a power of two, so 9 % at most), all containers of a function together.
// Where most of them are so long that waiting spares hardly a request its wake-up, waiting is in vain.
// Idle times that ended in recycling say nothing about reuse and are not counted. Old behaviour fades: when
// 1024 are counted, all counts are halved.
//
// There may be tens of thousands of functions, most of them with a few intervals close together: counts are small, and only the
// buckets between the shortest and the longest interval are held.

/// The distribution of one function's reuse intervals, learned online.
package struct ReuseIntervals: Equatable, Sendable {
    /// Eight buckets per power of two of microseconds, up to 2^40 us (12 days).
    private static let bucketsPerOctave = 8
    private static let octaves = 40
    private static let fadeAt = 1024

    /// Counts of the buckets from `first` on; all below `fadeAt`.
    private var counts: [UInt16] = []
    private var first: UInt16 = 0
    /// How many intervals are counted now.
    private var total: UInt16 = 0
    package var samples: UInt64 { UInt64(total) }

    package init() {}

    package mutating func record(_ interval: Nanoseconds) {
        let bucket = Self.bucket(interval)
        makeRoom(for: bucket)
        counts[bucket - Int(first)] += 1
        total += 1
        if total >= Self.fadeAt { fade() }
    }

    /// The shortest time that at least `permille` thousandths of the intervals do not exceed, rounded
    /// up to its bucket's end; nil without intervals.
    package func quantile(permille: UInt64) -> Nanoseconds? {
        guard total > 0 else { return nil }
        let rank = max(1, (samples * min(permille, 1000) + 999) / 1000)
        var seen: UInt64 = 0
        for index in counts.indices {
            seen += UInt64(counts[index])
            if seen >= rank { return Self.end(of: Int(first) + index) }
        }
        return Self.end(of: Int(first) + counts.count - 1)
    }

    /// Of n intervals the longest is exceeded by one in n + 1: as long as that is more than the percentile allows, no interval tells
    /// it. Reuse intervals have a heavy tail, so a time is exceeded about half as often as half of it: the longest is stretched by that.
    package func stretched(_ quantile: Nanoseconds, permille: UInt64) -> Nanoseconds {
        let exceeding = (1000 - min(permille, 999)) * (samples + 1)
        guard exceeding < 1000 else { return quantile }
        return Nanoseconds(
            Int64(scaled(UInt64(quantile.nanoseconds), 1000, over: exceeding)))
    }

    /// Whether most intervals exceed `least`, and keeping memory beyond it, up to `most`, takes more than `patience` for each
    /// request that comes meanwhile. No patience: never.
    package func makeKeepingVain(
        from least: Nanoseconds, to most: Nanoseconds, patience: Nanoseconds
    ) -> Bool {
        guard patience > .zero, most > least else { return false }
        var (kept, spared, exceeding) = (UInt64(0), UInt64(0), UInt64(0))
        let shortest = max(0, Self.bucket(least) - Int(first))
        for index in counts.indices.dropFirst(shortest) where counts[index] > 0 {
            let interval = Self.end(of: Int(first) + index)
            guard interval > least else { continue }
            let count = UInt64(counts[index])
            exceeding += count
            if interval <= most { spared += count }
            kept += count * UInt64((min(interval, most) - least).microseconds)
        }
        guard exceeding * 2 > samples else { return false }
        let (limit, overflow) = spared.multipliedReportingOverflow(
            by: UInt64(patience.microseconds))
        return !overflow && kept > limit
    }

    private mutating func makeRoom(for bucket: Int) {
        if counts.isEmpty {
            first = UInt16(bucket)
            counts = [0]
        } else if bucket < Int(first) {
            counts.insert(contentsOf: repeatElement(0, count: Int(first) - bucket), at: 0)
            first = UInt16(bucket)
        } else if bucket - Int(first) >= counts.count {
            counts.append(
                contentsOf: repeatElement(0, count: bucket - Int(first) - counts.count + 1))
        }
    }

    private mutating func fade() {
        total = 0
        for index in counts.indices {
            counts[index] /= 2
            total += counts[index]
        }
    }

    private static func bucket(_ interval: Nanoseconds) -> Int {
        let micros = UInt64(max(interval.microseconds, 1))
        let octave = min(63 - micros.leadingZeroBitCount, octaves - 1)
        if 63 - micros.leadingZeroBitCount >= octaves {
            return bucketsPerOctave * octaves - 1
        }
        // The three bits behind the leading one.
        let fraction =
            octave >= 3 ? (micros >> UInt64(octave - 3)) & 7 : (micros << UInt64(3 - octave)) & 7
        return octave * bucketsPerOctave + Int(fraction)
    }

    private static func end(of bucket: Int) -> Nanoseconds {
        let octave = UInt64(bucket / bucketsPerOctave)
        let eighths = UInt64(bucket % bucketsPerOctave) + 9
        let micros = octave >= 3 ? eighths << (octave - 3) : max(1, (eighths << octave) >> 3)
        return .microseconds(Int64(micros))
    }
}
