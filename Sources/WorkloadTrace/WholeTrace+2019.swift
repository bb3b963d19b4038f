import FarMemory

extension WholeTrace {
    /// HashOwner,HashApp,HashFunction,Trigger,1,...: calls per minute of one day.
    static func loadPerMinute(
        _ path: String, _ limits: WholeTraceLimits, _ progress: (Int) -> Void
    ) throws(TraceError) -> WholeTrace {
        var scanner = try LineScanner(path)
        var malformed = MalformedLines(isSkipping: limits.skipsMalformed)
        var minutes = 0
        _ = try scanner.next { line, _ in
            var rest: ByteLine? = line
            while ByteLine.takeField(&rest) != nil { minutes += 1 }
            minutes -= 4
        }
        guard (1...44_640).contains(minutes) else {
            throw .unusable(path, "has \(max(0, minutes)) minutes; 1 to 44640 are known")
        }
        var table = PerMinuteTable(minutes: minutes)
        var reported = 0
        while try scanner.next({ (line, number) throws(TraceError) in
            let why = try table.take(line, limits, path)
            if let why { try malformed.note(path, number, why) }
        }) {
            if scanner.bytesRead - reported > 8 << 20 {
                reported = scanner.bytesRead
                progress(reported)
            }
        }
        var trace = WholeTrace(
            source: path, functions: table.functions(), calls: .perMinute(table.counts()),
            length: .seconds(Int64(minutes) * 60), bytesRead: scanner.bytesRead)
        try trace.addDurations(path, table.names, &malformed)
        try trace.addMemory(path, table, &malformed)
        trace.skipped = malformed.count
        trace.firstSkipped = malformed.first
        return trace
    }

    private mutating func addDurations(
        _ path: String, _ names: NameTable, _ malformed: inout MalformedLines
    ) throws(TraceError) {
        guard let file = try WorkloadTrace.sibling(of: path, kind: .durations) else {
            notes.append("no durations beside \(path)")
            return
        }
        // Average,Count,Minimum,Maximum and percentiles 0, 1, 25, 50, 75, 99, 100.
        let shares = [0, 0.01, 0.25, 0.5, 0.75, 0.99, 1]
        var scanner = try LineScanner(file)
        _ = try scanner.next { _, _ in }
        var functions = functions
        while try scanner.next({ (line, number) throws(TraceError) in
            guard let (name, numbers) = line.split(afterCommas: 3),
                let values = decimals(numbers, max: 11), let average = values.first,
                values.count >= 2
            else {
                return try malformed.note(file, number, "durations must be numbers of ms")
            }
            guard let at = names.known(name) else { return }
            functions[at].duration = Nanoseconds(Int64(min(average, 1e9) * 1e6))
            if values.count == 11 {
                functions[at].durations = Percentiles(
                    shares: shares, values: values[4...].map { Float($0) })
            }
        }) {}
        self.functions = functions
        bytesRead += scanner.bytesRead
    }

    /// Memory is published per application, in excerpts per function.
    private mutating func addMemory(
        _ path: String, _ table: PerMinuteTable, _ malformed: inout MalformedLines
    ) throws(TraceError) {
        guard let file = try WorkloadTrace.sibling(of: path, kind: .memory) else {
            notes.append("no memory beside \(path)")
            return
        }
        let shares = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1]
        var scanner = try LineScanner(file)
        var perFunction = false
        _ = try scanner.next { line, _ in
            perFunction = line.text.hasPrefix("HashOwner,HashApp,HashFunction,")
        }
        var byApplication: [Int: (ByteCount, Percentiles?)] = [:]
        var functions = functions
        while try scanner.next({ (line, number) throws(TraceError) in
            guard let (name, numbers) = line.split(afterCommas: perFunction ? 3 : 2),
                let values = decimals(numbers, max: 10), values.count >= 2
            else {
                return try malformed.note(file, number, "memory must be numbers of MB")
            }
            let mean = ByteCount(UInt64(min(values[1], 1e9) * 1_048_576))
            let spread =
                values.count == 10
                ? Percentiles(shares: shares, values: values[2...].map { Float($0) }) : nil
            if perFunction {
                guard let at = table.names.known(name) else { return }
                functions[at].memory = mean
                functions[at].memories = spread
            } else if let at = table.applications.known(name) {
                byApplication[at] = (mean, spread)
            }
        }) {}
        for at in functions.indices where !perFunction {
            guard let (mean, spread) = byApplication[Int(table.applicationOf[at])] else { continue }
            functions[at].memory = mean
            functions[at].memories = spread
        }
        self.functions = functions
        bytesRead += scanner.bytesRead
    }
}

/// At most `max` decimal numbers between commas; nil when one is none.
private func decimals(_ line: ByteLine, max: Int) -> [Double]? {
    var values: [Double] = []
    var rest: ByteLine? = line
    while values.count < max, let field = ByteLine.takeField(&rest) {
        guard let value = field.decimal else { return nil }
        values.append(value)
    }
    return values
}

/// The file by function while it is read.
struct PerMinuteTable {
    let minutes: Int
    var names = NameTable()
    var applications = NameTable()
    var applicationOf: [Int32] = []
    private var totals: [Int] = []
    private var entries: [(minute: UInt16, calls: UInt32, function: Int32)] = []
    private var row: [UInt32] = []

    init(minutes: Int) {
        self.minutes = minutes
        row = Array(repeating: 0, count: minutes)
    }

    /// Takes a line in, whole or not at all; the reason when it is malformed.
    mutating func take(
        _ line: ByteLine, _ limits: WholeTraceLimits, _ path: String
    ) throws(TraceError) -> String? {
        guard let (application, _) = line.split(afterCommas: 2),
            let (name, tail) = line.split(afterCommas: 3),
            let (_, counts) = tail.split(afterCommas: 1)
        else { return "fewer columns than the header" }
        switch counts.wholeNumbers(into: &row) {
        case .notANumber(let minute): return "minute \(minute + 1) is not a number"
        case .tooMany: return "more columns than the header"
        case .tooFew(let minute):
            return "\(minute + 4) columns where the header has \(minutes + 4)"
        case nil: break
        }
        var total = 0
        for count in row { total += Int(count) }
        guard names.known(name) == nil else { return "a function for the second time" }
        guard names.count < limits.functionsMax else {
            throw .unusable(path, "has more than \(limits.functionsMax) functions")
        }
        let function = names.number(of: name)
        applicationOf.append(Int32(applications.number(of: application)))
        totals.append(total)
        for minute in 0..<minutes where row[minute] > 0 {
            entries.append((UInt16(minute), row[minute], Int32(function)))
        }
        guard entries.count <= limits.entriesMax else {
            throw .unusable(path, "has more than \(limits.entriesMax) minutes with calls")
        }
        return nil
    }

    func functions() -> [WholeFunction] {
        totals.enumerated().map { index, total in
            // owner,app,function: the owner says nothing.
            let parts = names.name(index).split(separator: ",", omittingEmptySubsequences: false)
            return WholeFunction(
                name: parts.dropFirst().joined(separator: "/"), calls: total)
        }
    }

    /// By minute: counting sort, so that functions stay in order.
    func counts() -> MinuteCounts {
        var starts = [Int](repeating: 0, count: minutes + 1)
        for entry in entries { starts[Int(entry.minute) + 1] += 1 }
        for minute in 0..<minutes { starts[minute + 1] += starts[minute] }
        var next = starts
        var sorted = [MinuteCounts.Entry](
            repeating: .init(function: 0, calls: 0), count: entries.count)
        for entry in entries {
            sorted[next[Int(entry.minute)]] = .init(function: entry.function, calls: entry.calls)
            next[Int(entry.minute)] += 1
        }
        return MinuteCounts(starts: starts, entries: sorted)
    }
}
