import FarMemory
import WorkloadTrace

// Calls per minute become calls at moments: their places within the minute are drawn from the seed, for the trace does not say. A function
// that is called more often than `callsPerMinuteMax` in a minute would make a day of the 2019 data set a thousand million requests, almost
// all of them to containers that never rest. They are run back to back: as few requests as keep the containers as busy as the calls would.

/// The calls of a trace in order, a batch at a time.
struct ArrivalSource {
    private let trace: WholeTrace
    private let callsPerMinuteMax: UInt32
    private let seed: UInt64
    private let means: [Double]
    private let durations: [Percentiles?]
    private var minute = 0
    private var isDone = false
    private(set) var batch: [Arrival] = []

    /// No call back to back is longer than this.
    private static let runMax = 15e9

    init(_ trace: WholeTrace, _ settings: SimulationSettings) {
        self.trace = trace
        callsPerMinuteMax = settings.callsPerMinuteMax
        seed = settings.seed
        means = trace.functions.map { Double($0.duration?.nanoseconds ?? 100_000_000) }
        durations = trace.functions.map(\.durations)
    }

    /// The next calls, by start, none before the last ones; empty when there are no more.
    mutating func next() -> [Arrival] {
        switch trace.calls {
        case .single(let arrivals):
            defer { isDone = true }
            return isDone ? [] : arrivals
        case .perMinute(let counts):
            while minute < counts.minutes {
                batch.removeAll(keepingCapacity: true)
                for entry in counts.entries[counts.starts[minute]..<counts.starts[minute + 1]] {
                    place(entry)
                }
                minute += 1
                if batch.isEmpty { continue }
                batch.sort { ($0.start, $0.function) < ($1.start, $1.function) }
                return batch
            }
            return []
        }
    }

    private mutating func place(_ entry: MinuteCounts.Entry) {
        let function = Int(entry.function)
        let start = Int64(minute) * 60_000_000_000
        // One stream per function and minute: a minute does not depend on the others.
        var random = SeededRandom(
            seed: seed &+ UInt64(minute) &* 0x9e37_79b9_7f4a_7c15
                ^ UInt64(entry.function) &* 0xbf58_476d_1ce4_e5b9)
        let mean = means[function]
        func moment() -> Nanoseconds { Nanoseconds(start + Int64(random.unit() * 60e9)) }
        if entry.calls <= callsPerMinuteMax {
            for _ in 0..<entry.calls {
                let at = moment()
                let duration =
                    durations[function].map { $0.value(at: random.unit()) * 1e6 } ?? mean
                batch.append(
                    Arrival(
                        start: at, duration: Nanoseconds(Int64(duration)), function: entry.function)
                )
            }
            return
        }
        let busy = mean * Double(entry.calls)
        let runs = max(Double(callsPerMinuteMax), (busy / Self.runMax).rounded(.up))
        let count = UInt32(min(runs, Double(entry.calls)))
        var left = entry.calls
        for run in 0..<count {
            // Spread over the minute, each within its share of it.
            let calls = left / (count - run)
            left -= calls
            let at = start + Int64((Double(run) + random.unit()) / Double(count) * 60e9)
            batch.append(
                Arrival(
                    start: Nanoseconds(at), duration: Nanoseconds(Int64(mean * Double(calls))),
                    function: entry.function, calls: calls))
        }
    }
}
