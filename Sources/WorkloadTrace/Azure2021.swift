import FarMemory

extension WorkloadTrace {
    /// Loads invocations one by one. Time 0 is the trace's own. An invocation started at its end less its duration.
    static func loadInvocations(
        _ path: String, window: TraceWindow
    ) throws(TraceError) -> WorkloadTrace {
        var reader = try LineReader(path)
        _ = try reader.next()
        var byName: [String: Int] = [:]
        var functions: [TraceFunction] = []
        var durations: [Double] = []
        var count = 0
        while let line = try reader.next() {
            let row = fields(line)
            guard row.count == 4 else {
                throw reader.malformed("\(row.count) columns where the header has 4")
            }
            guard let end = decimalNumber(row[2]), let duration = decimalNumber(row[3]),
                end < 1e9, duration < 1e9
            else { throw reader.malformed("end_timestamp and duration must be seconds") }
            let start = Nanoseconds(Int64(max(0, end - duration) * 1e9))
            guard window.contains(start) else { continue }
            count += 1
            guard count <= Self.invocationsHeldMax else {
                throw .unusable(
                    path,
                    "has more than \(Self.invocationsHeldMax) invocations in this part; take a shorter one"
                )
            }
            let name = "\(text(row[0]))/\(text(row[1]))"
            let at = byName[name] ?? functions.count
            if at == functions.count {
                byName[name] = at
                functions.append(TraceFunction(name: name, arrivals: []))
                durations.append(0)
            }
            functions[at].arrivals.append(start - window.start)
            durations[at] += duration
        }
        var sample = FunctionSample(window: window)
        for function in functions {
            sample.offer(name: function.name, total: function.arrivals.count) { _ in
                function.arrivals.sorted()
            }
        }
        var trace = sample.trace(source: path)
        for at in trace.functions.indices {
            guard let index = byName[trace.functions[at].name] else { continue }
            let mean = durations[index] / Double(functions[index].arrivals.count)
            trace.functions[at].duration = Nanoseconds(Int64(mean * 1e9))
        }
        return trace
    }

    /// The file is sorted by end, so a part's invocations are all held before the sample is drawn.
    private static let invocationsHeldMax = 8 << 20
}
