// WorkloadTrace: when which function is called.
//
// Purpose: read the Azure Functions traces as they are published, or generate one from a seed, and turn either into a
// schedule of requests to the functions of this repository.
// Thread model: values only. Invariants: files are read as streams, once, in bounded memory; a malformed line is named by
// file and line, and nothing is guessed.
// Must not import: Foundation.

package import FarMemory

/// One function of a trace, in the part of it that is replayed.
package struct TraceFunction: Equatable, Sendable {
    /// As the trace names it.
    package var name: String
    /// Starts of its invocations from the start of the part, ascending, in the trace's own time.
    package var arrivals: [Nanoseconds]
    /// Mean duration, nil when the trace does not say.
    package var duration: Nanoseconds?
    /// Mean allocated memory, nil when the trace does not say.
    package var memory: ByteCount?

    package init(
        name: String, arrivals: [Nanoseconds], duration: Nanoseconds? = nil,
        memory: ByteCount? = nil
    ) {
        self.name = name
        self.arrivals = arrivals
        self.duration = duration
        self.memory = memory
    }
}

/// A part of a trace.
package struct WorkloadTrace: Equatable, Sendable {
    /// Where it is from, for the report: a path, or the generator with its seed.
    package var source: String
    package var functions: [TraceFunction]
    /// What was left out, and why; lines for the report.
    package var notes: [String]

    package init(source: String, functions: [TraceFunction], notes: [String] = []) {
        self.source = source
        self.functions = functions
        self.notes = notes
    }

    package var invocationCount: Int { functions.reduce(0) { $0 + $1.arrivals.count } }
}

/// Which part of a trace is wanted.
package struct TraceWindow: Equatable, Sendable {
    /// In the trace's time, from its start.
    package var start: Nanoseconds
    package var length: Nanoseconds
    /// Most functions; of more, a seeded sample is kept.
    package var functionsMax: Int
    /// Most invocations altogether; of functions that would exceed it, the busiest are left out.
    package var invocationsMax: Int
    package var seed: UInt64

    package init(
        start: Nanoseconds = .zero, length: Nanoseconds, functionsMax: Int = 64,
        invocationsMax: Int = 1 << 20, seed: UInt64
    ) {
        precondition(length > .zero && functionsMax > 0 && invocationsMax > 0, "an empty window")
        self.start = start
        self.length = length
        self.functionsMax = functionsMax
        self.invocationsMax = invocationsMax
        self.seed = seed
    }

    func contains(_ time: Nanoseconds) -> Bool { time >= start && time < start + length }
}

/// Why a trace cannot be used.
package enum TraceError: Error, Equatable, CustomStringConvertible {
    case unreadable(String, String)
    case malformed(file: String, line: Int, String)
    /// The files hold something else than what is needed.
    case unusable(String, String)

    package var description: String {
        switch self {
        case .unreadable(let path, let why): "cannot read \(path): \(why)"
        case .malformed(let file, let line, let why): "\(file):\(line): \(why)"
        case .unusable(let path, let why): "\(path): \(why)"
        }
    }
}
