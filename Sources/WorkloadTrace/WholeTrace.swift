package import FarMemory

/// One call of a function, or several back to back that are simulated as one.
package struct Arrival: Equatable, Sendable {
    /// From the start of the trace.
    package var start: Nanoseconds
    package var duration: Nanoseconds
    /// Index into the trace's functions.
    package var function: Int32
    /// How many calls it stands for.
    package var calls: UInt32

    package init(start: Nanoseconds, duration: Nanoseconds, function: Int32, calls: UInt32 = 1) {
        self.start = start
        self.duration = duration
        self.function = function
        self.calls = calls
    }
}

/// What a trace says of a quantity: its values at some percentiles, between which it is taken as linear.
package struct Percentiles: Equatable, Sendable {
    /// Shares from 0 to 1, ascending, and the values at them.
    package let shares: [Double]
    package let values: [Float]

    package init(shares: [Double], values: [Float]) {
        precondition(shares.count == values.count && shares.count >= 2, "too few percentiles")
        self.shares = shares
        self.values = values
    }

    /// The value below which this share lies.
    package func value(at share: Double) -> Double {
        for index in 1..<shares.count where share <= shares[index] {
            let width = shares[index] - shares[index - 1]
            let within = width > 0 ? (share - shares[index - 1]) / width : 0
            let low = Double(values[index - 1])
            return low + (Double(values[index]) - low) * min(max(within, 0), 1)
        }
        return Double(values[values.count - 1])
    }
}

/// One function of a whole trace.
package struct WholeFunction: Equatable, Sendable {
    /// As the trace names it: application/function.
    package var name: String
    package var calls = 0
    /// Mean duration, and its distribution in milliseconds where the trace has one.
    package var duration: Nanoseconds?
    package var durations: Percentiles?
    /// Mean memory, and its distribution in MiB where the trace has one.
    package var memory: ByteCount?
    package var memories: Percentiles?
}

/// A trace at full size, as it is published.
package struct WholeTrace: Sendable {
    package enum Calls: Sendable {
        /// Each call on its own, by start.
        case single([Arrival])
        /// Calls per function and minute.
        case perMinute(MinuteCounts)
    }

    package var source: String
    package var functions: [WholeFunction]
    package var calls: Calls
    /// From the first to the last moment that the trace covers.
    package var length: Nanoseconds
    package var bytesRead = 0
    /// Malformed lines that were left out, and the first of them.
    package var skipped = 0
    package var firstSkipped: TraceError?
    package var notes: [String] = []

    package var callCount: Int { functions.reduce(0) { $0 + $1.calls } }
}

/// Calls of functions in minutes, those without a call left out; kept by minute.
package struct MinuteCounts: Sendable {
    package struct Entry: Equatable, Sendable {
        package var function: Int32
        package var calls: UInt32
    }
    /// Entries of minute m: `entries[starts[m] ..< starts[m + 1]]`, in the order of functions.
    package let starts: [Int]
    package let entries: [Entry]

    package var minutes: Int { starts.count - 1 }
}

/// What a loader may take.
package struct WholeTraceLimits: Sendable {
    /// Calls of a trace that lists each one, 24 bytes in memory apiece.
    package var callsMax = 16 << 20
    package var functionsMax = 1 << 20
    /// Functions times minutes with a call, 16 bytes in memory apiece while loading.
    package var entriesMax = 96 << 20
    /// Malformed lines are counted and left out; the first is reported.
    package var skipsMalformed = false

    package init() {}
}

extension WholeTrace {
    /// Loads a whole trace: a file of 2021 (calls one by one) or of 2019 (calls per minute; durations and memory of the same day are
    /// looked for beside it).
    package static func load(
        _ path: String, limits: WholeTraceLimits = WholeTraceLimits(),
        progress: (Int) -> Void = { _ in }
    ) throws(TraceError) -> WholeTrace {
        let file = try WorkloadTrace.invocationsFile(path)
        switch try WorkloadTrace.kind(of: file) {
        case .invocations: return try loadSingle(file, limits, progress)
        case .invocationsPerMinute: return try loadPerMinute(file, limits, progress)
        case .durations, .memory:
            throw .unusable(
                path, "has no invocations; give the invocations file of the same day")
        case nil:
            throw .unusable(
                path, "is no Azure Functions trace: its first line is none of the published headers"
            )
        }
    }
}

/// Counts malformed lines, or refuses the first.
struct MalformedLines {
    let isSkipping: Bool
    private(set) var count = 0
    private(set) var first: TraceError?

    init(isSkipping: Bool) { self.isSkipping = isSkipping }

    mutating func note(_ path: String, _ line: Int, _ why: String) throws(TraceError) {
        let error = TraceError.malformed(file: path, line: line, why)
        guard isSkipping else { throw error }
        count += 1
        if first == nil { first = error }
    }
}
