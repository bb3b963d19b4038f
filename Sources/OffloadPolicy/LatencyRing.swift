import FarMemory

// Latencies are noted with each request and asked about nearly as often, so what is asked is kept ready: a ring is sorted as it is filled,
// and a mean is a running sum.

/// The last latencies of one kind, in microseconds, by time and by size.
struct LatencyRing: Equatable, Sendable {
    private let kept: Int
    private var values: [UInt32] = []
    private var sorted: [UInt32] = []
    private var next = 0

    init(kept: Int) { self.kept = kept }

    var count: Int { values.count }

    mutating func put(_ value: UInt32) {
        if values.count < kept {
            values.append(value)
            sorted.insert(value, at: place(of: value))
        } else {
            replace(values[next], by: value)
            values[next] = value
        }
        next = next + 1 == kept ? 0 : next + 1
    }

    /// Moves what lies between the two by one place.
    private mutating func replace(_ old: UInt32, by new: UInt32) {
        var hole = place(of: old)
        while hole + 1 < sorted.count, sorted[hole + 1] < new {
            sorted[hole] = sorted[hole + 1]
            hole += 1
        }
        while hole > 0, sorted[hole - 1] > new {
            sorted[hole] = sorted[hole - 1]
            hole -= 1
        }
        sorted[hole] = new
    }

    /// The first place whose value is not smaller.
    private func place(of value: UInt32) -> Int {
        var low = 0
        var high = sorted.count
        while low < high {
            let middle = (low + high) / 2
            if sorted[middle] < value { low = middle + 1 } else { high = middle }
        }
        return low
    }

    mutating func removeAll() {
        values.removeAll(keepingCapacity: true)
        sorted.removeAll(keepingCapacity: true)
        next = 0
    }

    /// Nearest rank. There must be values.
    func percentile(_ percent: Int) -> Int64 {
        Int64(sorted[max(0, (sorted.count * percent + 99) / 100 - 1)])
    }
}

/// The last 64 requests that nothing had been done to: undisturbed ones, and first ones of their containers.
struct OrdinaryLatencies: Equatable, Sendable {
    private static let kept = 64

    private var values: [UInt32] = []
    private var next = 0
    private var sum: Int64 = 0
    /// A bit for each place: whether it was its container's first.
    private var firstBits: UInt64 = 0

    var count: Int { values.count }
    var firsts: Int { firstBits.nonzeroBitCount }
    /// There must be values.
    var mean: Int64 { sum / Int64(values.count) }

    mutating func put(_ value: UInt32, isFirst: Bool) {
        sum += Int64(value)
        if values.count < Self.kept {
            values.append(value)
        } else {
            sum -= Int64(values[next])
            values[next] = value
        }
        let bit = UInt64(1) << UInt64(next)
        if isFirst { firstBits |= bit } else { firstBits &= ~bit }
        next = (next + 1) % Self.kept
    }
}

extension Nanoseconds {
    /// As a ring keeps it.
    var ringMicroseconds: UInt32 { UInt32(clamping: max(0, microseconds)) }
}
