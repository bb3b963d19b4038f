import FarMemory
import LinuxSystem
import WorkloadTrace

/// A trace file of any published kind: a trace within the window's bounds, or a typed error.
@Sendable func fuzzTrace(_ bytes: [UInt8]) {
    guard let file = try? makeMemoryFile("trace", size: 0, fixedSize: false),
        // SAFETY: the array lives through the call.
        (try? unsafe bytes.withUnsafeBytes({ try unsafe file.writeAll($0) })) != nil
    else { preconditionFailure("no memory for the input") }
    let window = TraceWindow(
        start: .zero, length: .seconds(600), functionsMax: 4, invocationsMax: 1000, seed: 1)
    var limits = WholeTraceLimits()
    limits.functionsMax = 8
    limits.callsMax = 1000
    limits.entriesMax = 1000
    limits.skipsMalformed = bytes.count % 2 == 0
    if let whole = try? WholeTrace.load("/proc/self/fd/\(file.rawValue)", limits: limits) {
        precondition(whole.functions.count <= 8, "more functions than allowed")
        precondition(limits.skipsMalformed || whole.skipped == 0, "skipped without leave")
    }
    guard let trace = try? WorkloadTrace.load("/proc/self/fd/\(file.rawValue)", window: window)
    else { return }
    precondition(trace.functions.count <= 4, "more functions than asked for")
    precondition(trace.invocationCount <= 1000, "more invocations than asked for")
    for function in trace.functions {
        precondition(function.arrivals == function.arrivals.sorted(), "arrivals are in order")
        precondition(
            function.arrivals.allSatisfy { $0 >= .zero && $0 < .seconds(600) },
            "an arrival outside the window")
    }
}
