package import FarMemory

/// One request that is to be sent.
package struct ScheduledRequest: Equatable, Sendable {
    /// From the start of the replay, in real time.
    package var due: Nanoseconds
    /// Index into the schedule's function names.
    package var function: Int
    /// The request's own seed, from a small set: each is verified against its first answer.
    package var seed: UInt64
}

/// A trace mapped onto real functions and compressed in time.
package struct RequestSchedule: Equatable, Sendable {
    package var functions: [String]
    /// In order of `due`.
    package var requests: [ScheduledRequest]
    /// Per function: how many of the trace's functions it stands for.
    package var sources: [Int]

    init() {
        functions = []
        requests = []
        sources = []
    }

    /// Maps each function of the trace onto one of `functions`, which are ordered from short to long running: by the rank of its mean
    /// duration, so that each gets about as many; those of unknown duration by the seed. Time is divided by `speedup`.
    package init(
        trace: WorkloadTrace, functions: [String], seedsPerFunction: Int, speedup: Double,
        seed: UInt64
    ) {
        precondition(
            !functions.isEmpty && seedsPerFunction > 0 && speedup > 0, "nothing to map onto")
        var random = SeededRandom(seed: seed)
        self.functions = functions
        requests = []
        sources = Array(repeating: 0, count: functions.count)
        let ranked = trace.functions.sorted {
            ($0.duration ?? .zero, $0.name) < ($1.duration ?? .zero, $1.name)
        }
        let offset = random.below(functions.count)
        let known = ranked.filter { $0.duration != nil }.count
        var rank = 0
        for source in ranked {
            var own = random.split()
            let place: Int
            if source.duration == nil {
                place = own.below(functions.count)
            } else if known < functions.count {
                // Fewer than there are functions: spread them, starting anywhere.
                place = (offset + rank) % functions.count
                rank += 1
            } else {
                place = rank * functions.count / known
                rank += 1
            }
            sources[place] += 1
            for arrival in source.arrivals {
                requests.append(
                    ScheduledRequest(
                        due: Nanoseconds(Int64(Double(arrival.nanoseconds) / speedup)),
                        function: place, seed: UInt64(own.below(seedsPerFunction)) + 1))
            }
        }
        requests.sort { ($0.due, $0.function, $0.seed) < ($1.due, $1.function, $1.seed) }
    }
}
