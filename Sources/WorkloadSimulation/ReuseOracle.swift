package import FarMemory
package import OffloadPolicy

/// What a policy would do that knew the whole trace in advance: FaaSMem's artifact takes the percentile of the very hours that it replays.
package struct ReuseOracle: Sendable {
    /// Exact percentile of the pauses that ended in reuse, per function; nil where none did.
    package let percentiles: [Nanoseconds?]

    /// `reuse`: from a run with `collectsReuse` and without offloading.
    package init(reuse: [[Int64]], permille: UInt64) {
        percentiles = reuse.map { pauses in
            guard !pauses.isEmpty else { return nil }
            let sorted = pauses.sorted()
            let rank = max(1, (UInt64(sorted.count) * min(permille, 1000) + 999) / 1000)
            return Nanoseconds(sorted[Int(rank) - 1])
        }
    }

    /// The same policy with these delays, none shorter than `minimum`. Functions never reused get the policy's prior.
    package func informed(_ policy: PolicySettings, minimum: Nanoseconds) -> PolicySettings {
        var informed = policy
        for (function, percentile) in percentiles.enumerated() {
            if let percentile { informed.semiWarmDelays["f\(function)"] = max(percentile, minimum) }
        }
        return informed
    }
}
