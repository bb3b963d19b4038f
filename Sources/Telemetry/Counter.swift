// Telemetry: counters, gauges, histograms, Prometheus text, logfmt.
//
// Thread model: recording is lock-free and allocates nothing, from any thread; registering and rendering take a lock
// and allocate. Invariants: counters never go down; what is rendered together was read one after the other, not at one
// instant. Must not import: Foundation.

import Glibc
package import Synchronization

/// A count that only grows. For counts that several threads add to on a hot path use `ShardedCounter`.
package final class Counter: Sendable {
    package let count = Atomic<UInt64>(0)

    package init() {}

    /// Any thread; a few nanoseconds without contention.
    @inlinable package func add(_ amount: UInt64 = 1) {
        count.wrappingAdd(amount, ordering: .relaxed)
    }

    package var value: UInt64 { count.load(ordering: .relaxed) }
}

/// A value that goes up and down.
package final class Gauge: Sendable {
    package let level = Atomic<Int64>(0)

    package init() {}

    @inlinable package func set(_ value: Int64) { level.store(value, ordering: .relaxed) }

    @inlinable package func add(_ amount: Int64) {
        level.wrappingAdd(amount, ordering: .relaxed)
    }

    package var value: Int64 { level.load(ordering: .relaxed) }
}

/// One atomic on cache lines of its own (two, for the adjacent-line prefetcher).
package struct PaddedAtomic: ~Copyable, Sendable {
    package let count = Atomic<UInt64>(0)
    private let padding = InlineArray<15, UInt64>(repeating: 0)

    package init() {}
}

/// A counter that several threads add to without sharing a cache line. Reading sums the shards.
package final class ShardedCounter: Sendable {
    package static let shardCount = 8
    package let shards = InlineArray<8, PaddedAtomic> { _ in PaddedAtomic() }

    package init() {}

    /// Adds to the calling thread's shard.
    package func add(_ amount: UInt64 = 1) {
        add(amount, shard: threadShard())
    }

    /// Adds to a given shard, for threads that know their number.
    @inlinable package func add(_ amount: UInt64, shard: Int) {
        shards[shard & (Self.shardCount - 1)].count.wrappingAdd(amount, ordering: .relaxed)
    }

    package var value: UInt64 {
        var sum: UInt64 = 0
        for index in 0..<Self.shardCount {
            sum &+= shards[index].count.load(ordering: .relaxed)
        }
        return sum
    }
}

/// Threads' control blocks lie at least a stack apart, so their addresses spread over the shards.
private func threadShard() -> Int {
    let address = UInt64(pthread_self())
    return Int(truncatingIfNeeded: (address &* 0x9e37_79b9_7f4a_7c15) >> 61)
}
