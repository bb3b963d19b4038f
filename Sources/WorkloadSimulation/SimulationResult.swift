package import FarMemory

/// What containers of one load class did.
package struct ClassFigures: Equatable, Sendable {
    package var functions = 0
    package var requests: UInt64 = 0
    package var coldStarts: UInt64 = 0
    /// Of the containers that ended within the trace.
    package var containers: UInt64 = 0
    package var lifetime = TimeDistribution()
    /// Time in semi-warm over lifetime, of each container.
    package var semiWarmShare = ShareDistribution()
    package var localByteSeconds = 0.0
}

/// What one policy made of the trace.
package struct SimulationResult: Equatable, Sendable {
    package var name: String
    package var length: Nanoseconds
    /// Calls, and what they found.
    package var requests: UInt64 = 0
    package var coldStarts: UInt64 = 0
    package var semiWarmRequests: UInt64 = 0
    package var containersStarted: UInt64 = 0
    /// Time that page movements added to requests of warm containers that waited for any, and what requests took altogether.
    package var added = TimeDistribution()
    package var latency = TimeDistribution()
    package var localByteSeconds = 0.0
    package var farByteSeconds = 0.0
    /// Pages, one value a second: sampled at its end, or moved within it.
    package var local: SecondSeries
    package var far: SecondSeries
    package var containers: SecondSeries
    package var out: SecondSeries
    package var back: SecondSeries
    package var pagesOut: UInt64 = 0
    package var pagesPrefetched: UInt64 = 0
    package var pagesFaulted: UInt64 = 0
    package var classes = [ClassFigures](repeating: ClassFigures(), count: LoadClass.allCases.count)
    /// Per profile of the cost model: local and containers' byte-seconds and seconds.
    package var profileLocalByteSeconds: [Double]
    package var profileContainerSeconds: [Double]
    package var decisions: UInt64 = 0
    package var ticks: UInt64 = 0
    /// Per function, when asked for: the pauses that ended in reuse.
    package var reuse: [[Int64]] = []

    init(name: String, length: Nanoseconds, profiles: Int) {
        self.name = name
        self.length = length
        let seconds = Int((length.nanoseconds + 999_999_999) / 1_000_000_000)
        local = SecondSeries(seconds: seconds)
        far = SecondSeries(seconds: seconds)
        containers = SecondSeries(seconds: seconds)
        out = SecondSeries(seconds: seconds)
        back = SecondSeries(seconds: seconds)
        profileLocalByteSeconds = Array(repeating: 0, count: profiles)
        profileContainerSeconds = Array(repeating: 0, count: profiles)
    }

    /// Share of the other's local memory over time that this one does without.
    package func saved(against reference: SimulationResult) -> Double {
        reference.localByteSeconds > 0 ? 1 - localByteSeconds / reference.localByteSeconds : 0
    }

    /// How many containers fit into this much local memory in 99 of 100 seconds, going by what those of each second held.
    package func packed(into memory: ByteCount) -> Double {
        var fits: [Double] = []
        for second in containers.values.indices where containers.values[second] > 0 {
            let each =
                Double(max(1, local.values[second])) * Double(pageBytes)
                / Double(containers.values[second])
            fits.append(Double(memory.bytes) / each)
        }
        guard !fits.isEmpty else { return 0 }
        return fits.select(fits.count / 100)
    }
}
