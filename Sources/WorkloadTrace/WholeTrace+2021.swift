import FarMemory

extension WholeTrace {
    /// app,func,end_timestamp,duration: a call started at its end less its duration.
    static func loadSingle(
        _ path: String, _ limits: WholeTraceLimits, _ progress: (Int) -> Void
    ) throws(TraceError) -> WholeTrace {
        var scanner = try LineScanner(path)
        var malformed = MalformedLines(isSkipping: limits.skipsMalformed)
        var names = NameTable()
        var arrivals: [Arrival] = []
        var sums: [(calls: Int, nanoseconds: Double)] = []
        var isSorted = true
        var end: Int64 = 0
        _ = try scanner.next { _, _ in }
        var reported = 0
        while try scanner.next({ (line, number) throws(TraceError) in
            guard let (name, times) = line.split(afterCommas: 2) else {
                return try malformed.note(path, number, "fewer than 4 columns")
            }
            var rest: ByteLine? = times
            guard let endField = ByteLine.takeField(&rest),
                let durationField = ByteLine.takeField(&rest), rest == nil
            else { return try malformed.note(path, number, "not 4 columns") }
            guard let ended = endField.nanoseconds, let duration = durationField.nanoseconds else {
                return try malformed.note(
                    path, number, "end_timestamp and duration must be seconds")
            }
            let function = names.number(of: name)
            if function == sums.count {
                guard function < limits.functionsMax else {
                    throw .unusable(path, "has more than \(limits.functionsMax) functions")
                }
                sums.append((0, 0))
            }
            guard arrivals.count < limits.callsMax else {
                throw .unusable(path, "has more than \(limits.callsMax) invocations")
            }
            sums[function].calls += 1
            sums[function].nanoseconds += Double(duration)
            let start = Nanoseconds(max(0, ended - duration))
            if let last = arrivals.last, start < last.start { isSorted = false }
            end = max(end, ended)
            arrivals.append(
                Arrival(start: start, duration: Nanoseconds(duration), function: Int32(function)))
        }) {
            if scanner.bytesRead - reported > 8 << 20 {
                reported = scanner.bytesRead
                progress(reported)
            }
        }
        if !isSorted {
            arrivals.sort { ($0.start, $0.function) < ($1.start, $1.function) }
        }
        let functions = sums.enumerated().map { index, sum in
            WholeFunction(
                name: names.name(index).replacingComma(), calls: sum.calls,
                duration: Nanoseconds(Int64(sum.nanoseconds / Double(max(1, sum.calls)))))
        }
        return WholeTrace(
            source: path, functions: functions, calls: .single(arrivals), length: Nanoseconds(end),
            bytesRead: scanner.bytesRead, skipped: malformed.count, firstSkipped: malformed.first)
    }
}

extension String {
    /// `app,func` as `app/func`.
    fileprivate func replacingComma() -> String {
        String(
            decoding: utf8.map { $0 == UInt8(ascii: ",") ? UInt8(ascii: "/") : $0 }, as: UTF8.self)
    }
}
