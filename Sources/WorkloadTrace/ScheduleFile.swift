package import FarMemory

extension RequestSchedule {
    /// Loads a schedule that says itself which function is called when: `seconds,function` and, if it is to be chosen, `,seed`
    /// (1 to `seedsPerFunction`; else drawn). Seconds are the trace's; time is divided by `speedup`. The first line is the heading.
    /// A malformed line is an error that names it; so is a time beyond `length`, which is in the trace's time too.
    package static func load(
        _ path: String, seedsPerFunction: Int, speedup: Double, length: Nanoseconds, seed: UInt64
    ) throws(TraceError) -> RequestSchedule {
        precondition(seedsPerFunction > 0 && speedup > 0, "nothing to schedule")
        var reader = try LineReader(path)
        guard let heading = try reader.next(),
            ["seconds,function", "seconds,function,seed"].contains(
                String(decoding: heading, as: UTF8.self))
        else {
            throw .unusable(path, "its first line must be seconds,function or with ,seed")
        }
        var schedule = RequestSchedule()
        var places: [String: Int] = [:]
        var random = SeededRandom(seed: seed)
        while let line = try reader.next() {
            let row = fields(line)
            guard row.count == 2 || row.count == 3 else {
                throw reader.malformed("\(row.count) columns where there must be 2 or 3")
            }
            guard let seconds = decimalNumber(row[0]), seconds >= 0,
                seconds < length.seconds
            else {
                throw reader.malformed(
                    "the time must be seconds from 0 to \(length.seconds)")
            }
            let name = text(row[1])
            guard !name.isEmpty else { throw reader.malformed("a function must be named") }
            var chosen = UInt64(random.below(seedsPerFunction)) + 1
            if row.count == 3 {
                guard let given = decimalNumber(row[2]), given >= 1,
                    given <= Double(seedsPerFunction), given.rounded() == given
                else {
                    throw reader.malformed("the seed must be from 1 to \(seedsPerFunction)")
                }
                chosen = UInt64(given)
            }
            let place = places[name] ?? schedule.functions.count
            if place == schedule.functions.count {
                places[name] = place
                schedule.functions.append(name)
                schedule.sources.append(1)
            }
            schedule.requests.append(
                ScheduledRequest(
                    due: Nanoseconds(Int64(seconds * 1e9 / speedup)), function: place,
                    seed: chosen))
        }
        schedule.requests.sort {
            ($0.due, $0.function, $0.seed) < ($1.due, $1.function, $1.seed)
        }
        return schedule
    }

    /// The same without the functions of these names.
    package func without(_ names: Set<String>) -> RequestSchedule {
        var kept = RequestSchedule()
        var places: [Int?] = []
        for (index, name) in functions.enumerated() {
            guard !names.contains(name) else {
                places.append(nil)
                continue
            }
            places.append(kept.functions.count)
            kept.functions.append(name)
            kept.sources.append(sources[index])
        }
        for request in requests {
            guard let place = places[request.function] else { continue }
            var moved = request
            moved.function = place
            kept.requests.append(moved)
        }
        return kept
    }
}
