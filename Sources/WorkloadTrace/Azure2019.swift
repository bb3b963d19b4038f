import FarMemory

extension WorkloadTrace {
    /// Loads invocations per minute. Within its minute an invocation's place is drawn from the seed: the trace does not say.
    static func loadPerMinute(
        _ path: String, window: TraceWindow
    ) throws(TraceError) -> WorkloadTrace {
        var reader = try LineReader(path)
        let columns = try fields(reader.next() ?? []).count
        guard columns >= 5 else { throw reader.malformed("a header without minutes") }
        let minute = Nanoseconds.seconds(60)
        let first = Int(window.start.nanoseconds / minute.nanoseconds)
        let end = window.start + window.length
        let last = min(
            columns - 5, Int((end.nanoseconds - 1) / minute.nanoseconds))
        guard first <= last else { throw .unusable(path, "ends before the part that is wanted") }
        var sample = FunctionSample(window: window)
        while let line = try reader.next() {
            let row = fields(line)
            guard row.count == columns else {
                throw reader.malformed("\(row.count) columns where the header has \(columns)")
            }
            var counts: [Int] = []
            for index in first...last {
                guard let count = wholeNumber(row[4 + index]) else {
                    throw reader.malformed(
                        "minute \(index + 1): '\(text(row[4 + index]))' is not a number")
                }
                counts.append(count)
            }
            let total = counts.reduce(0, +)
            guard total > 0 else { continue }
            sample.offer(name: "\(text(row[1]))/\(text(row[2]))", total: total) { random in
                var arrivals: [Nanoseconds] = []
                for (offset, count) in counts.enumerated() {
                    let start = Int64(first + offset) * minute.nanoseconds
                    for _ in 0..<count {
                        let within = Int64(random.below(Int(minute.nanoseconds)))
                        let time = Nanoseconds(start + within)
                        if window.contains(time) { arrivals.append(time - window.start) }
                    }
                }
                return arrivals.sorted()
            }
        }
        var trace = sample.trace(source: path)
        try trace.addDurations(path)
        try trace.addMemory(path)
        return trace
    }

    /// Applications of a file of memory alone: a seeded sample of them, called as the generator has it.
    static func loadMemoryAlone(
        _ path: String, window: TraceWindow
    ) throws(TraceError) -> WorkloadTrace {
        var reader = try LineReader(path)
        let header = fields(try reader.next() ?? []).map(text)
        guard let column = header.firstIndex(of: "AverageAllocatedMb") else {
            throw reader.malformed("no column AverageAllocatedMb")
        }
        var random = SeededRandom(seed: window.seed)
        var sample: [(name: String, memory: ByteCount)] = []
        var seen = 0
        while let line = try reader.next() {
            let row = fields(line)
            guard row.count == header.count, let mebibytes = decimalNumber(row[column]) else {
                throw reader.malformed("column \(column + 1) must be the average memory in MB")
            }
            seen += 1
            let place = sample.count < window.functionsMax ? sample.count : random.below(seen)
            guard place < window.functionsMax else { continue }
            let application = (text(row[1]), ByteCount(UInt64(min(mebibytes, 1e9) * 1_048_576)))
            if place == sample.count {
                sample.append(application)
            } else {
                sample[place] = application
            }
        }
        let generated = WorkloadTrace.generated(
            seed: window.seed, functions: sample.count, length: window.length)
        var trace = WorkloadTrace(source: path, functions: [])
        for (function, application) in zip(generated.functions, sample) {
            trace.functions.append(
                TraceFunction(
                    name: application.name, arrivals: function.arrivals,
                    duration: function.duration, memory: application.memory))
        }
        trace.notes = [
            "\(trace.functions.count) of \(seen) applications; the file says nothing of their calls: arrivals and durations are generated, seed \(window.seed)"
        ]
        return trace
    }

    private mutating func addDurations(_ path: String) throws(TraceError) {
        guard let file = try Self.sibling(of: path, kind: .durations) else {
            notes.append("no durations beside \(path): functions are mapped by the seed alone")
            return
        }
        let index = indices { $0 }
        var reader = try LineReader(file)
        _ = try reader.next()
        while let line = try reader.next() {
            let row = fields(line)
            guard row.count >= 5, let milliseconds = decimalNumber(row[3]) else {
                throw reader.malformed("the fourth column must be the average duration in ms")
            }
            guard let at = index["\(text(row[1]))/\(text(row[2]))"] else { continue }
            functions[at].duration = Nanoseconds(Int64(min(milliseconds, 1e9) * 1e6))
        }
    }

    /// Memory is published per application, in the excerpts per function.
    private mutating func addMemory(_ path: String) throws(TraceError) {
        guard let file = try Self.sibling(of: path, kind: .memory) else { return }
        var reader = try LineReader(file)
        let header = fields(try reader.next() ?? []).map(text)
        guard let column = header.firstIndex(of: "AverageAllocatedMb") else { return }
        var byName: [String: ByteCount] = [:]
        let perFunction = header.count > 2 && header[2] == "HashFunction"
        let wanted = Set(
            functions.map { perFunction ? $0.name : Self.application($0.name) })
        while let line = try reader.next() {
            let row = fields(line)
            guard row.count == header.count, let mebibytes = decimalNumber(row[column]) else {
                throw reader.malformed("column \(column + 1) must be the average memory in MB")
            }
            let name = perFunction ? "\(text(row[1]))/\(text(row[2]))" : text(row[1])
            guard wanted.contains(name) else { continue }
            byName[name] = ByteCount(UInt64(min(mebibytes, 1e9) * 1_048_576))
        }
        for at in functions.indices {
            let name = functions[at].name
            functions[at].memory = byName[perFunction ? name : Self.application(name)]
        }
    }

    private static func application(_ name: String) -> String {
        String(name.split(separator: "/").first ?? "")
    }

    private func indices(_ key: (String) -> String) -> [String: Int] {
        var index: [String: Int] = [:]
        for (at, function) in functions.enumerated() { index[key(function.name)] = at }
        return index
    }
}
