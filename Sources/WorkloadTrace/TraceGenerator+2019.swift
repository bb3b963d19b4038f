import FarMemory
import Glibc

// The shape of a day of the 2019 data set, as far as Shahrad et al. (Serverless in the Wild, USENIX ATC 2020) give it: calls a day
// span eight orders of magnitude, 45 % of what runs is called at most once an hour, 81 % at most once a minute; average
// durations are log-normal (log mean -0.38, deviation 2.36, in seconds); average memory of an application follows a Burr law
// (c 11.652, k 0.221, lambda 107.083 MB). More than half of the applications have one function.

extension TraceGenerator {
    /// The three files of one day in a directory, named as published; returns calls and bytes.
    package func write2019(
        to directory: String, progress: (Double) -> Void = { _ in }
    ) throws(TraceError) -> (calls: Int, bytes: Int) {
        var calls = try TraceWriter("\(directory)/invocations_per_function_md.anon.d01.csv")
        var durations = try TraceWriter(
            "\(directory)/function_durations_percentiles.anon.d01.csv")
        var memory = try TraceWriter("\(directory)/app_memory_percentiles.anon.d01.csv")
        calls.append("HashOwner,HashApp,HashFunction,Trigger")
        for minute in 1...1440 { calls.append(",\(minute)") }
        try calls.endLine()
        durations.append("HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum")
        for share in [0, 1, 25, 50, 75, 99, 100] {
            durations.append(",percentile_Average_\(share)")
        }
        try durations.endLine()
        memory.append("HashOwner,HashApp,SampleCount,AverageAllocatedMb")
        for share in [1, 5, 25, 50, 75, 95, 99, 100] {
            memory.append(",AverageAllocatedMb_pct\(share)")
        }
        try memory.endLine()
        var random = SeededRandom(seed: seed)
        var application: [UInt8] = []
        var total = 0
        for index in 0..<functions {
            var own = random.split()
            if index == 0 || own.chance(54, in: 100) {
                application = own.digest() + [UInt8(ascii: ",")] + own.digest()
                try writeMemory(&memory, application, &own)
            }
            let name = application + [UInt8(ascii: ",")] + own.digest()
            let trigger = Trigger(&own)
            calls.append(name)
            calls.append(",\(trigger.word)")
            let row = minutes(perDay: Self.callsPerDay(own.unit()), trigger, &own)
            for count in row {
                calls.comma()
                calls.append(number: count)
            }
            try calls.endLine()
            let sum = row.reduce(0, +)
            total += sum
            try writeDurations(&durations, name, sum, &own)
            if index % 500 == 0 { progress(Double(index) / Double(functions)) }
        }
        try calls.flush()
        try durations.flush()
        try memory.flush()
        return (total, calls.bytesWritten + durations.bytesWritten + memory.bytesWritten)
    }

    private enum Trigger {
        case timer
        case other(String)

        init(_ random: inout SeededRandom) {
            switch random.below(1000) {
            case ..<156: self = .timer
            case ..<706: self = .other("http")
            case ..<858: self = .other("queue")
            case ..<927: self = .other("orchestration")
            case ..<955: self = .other("storage")
            case ..<977: self = .other("event")
            default: self = .other("others")
            }
        }

        var word: String {
            switch self {
            case .timer: "timer"
            case .other(let word): word
            }
        }
    }

    /// Linear in the logarithm between the points of the distribution.
    static func callsPerDay(_ share: Double) -> Double {
        let points: [(Double, Double)] = [
            (0, 1), (0.2, 3), (0.45, 24), (0.81, 1440), (0.97, 20_000), (0.999, 1e6), (1, 2e7),
        ]
        for (low, high) in zip(points, points.dropFirst()) where share <= high.0 {
            let within = (share - low.0) / (high.0 - low.0)
            return low.1 * pow(high.1 / low.1, within)
        }
        return 2e7
    }

    private func minutes(
        perDay: Double, _ trigger: Trigger, _ random: inout SeededRandom
    ) -> [Int] {
        var row = [Int](repeating: 0, count: 1440)
        if case .timer = trigger {
            // Whole minutes, as timers are written.
            let period = max(1, (1440 / perDay).rounded())
            let each = max(1, Int((perDay * period / 1440).rounded()))
            var minute = Double(random.below(Int(min(period, 1440))))
            while minute < 1440 {
                row[Int(minute)] += each
                minute += period
            }
            return row
        }
        let swing = 0.6 * random.unit()
        let isBursty = random.chance(1, in: 3)
        let size = isBursty ? 2 + random.exponential(8) : 1
        for minute in row.indices {
            let mean = perDay / 1440 * dayShape(Double(minute) * 60, swing: swing)
            row[minute] = Int((Double(poisson(mean / size, &random)) * size).rounded())
        }
        return row
    }

    private func poisson(_ mean: Double, _ random: inout SeededRandom) -> Int {
        if mean > 50 {
            return max(0, Int((mean + mean.squareRoot() * random.normal()).rounded()))
        }
        let limit = exp(-mean)
        var count = 0
        var product = random.unit()
        while product > limit {
            count += 1
            product *= random.unit()
        }
        return count
    }

    private func writeDurations(
        _ writer: inout TraceWriter, _ name: [UInt8], _ count: Int, _ random: inout SeededRandom
    ) throws(TraceError) {
        // Milliseconds; averages above ten minutes do not occur, for calls are cut there.
        // Busy functions are short ones: on average at most two calls of a function run at a time.
        let drawn = exp(-0.38 + 2.36 * random.normal()) * 1000
        let average = max(1, min(drawn, 600_000, 2 * 86_400_000 / Double(max(1, count))))
        let spread = 0.1 + 0.6 * random.unit()
        writer.append(name)
        writer.append(",\(Int(average.rounded())),\(count)")
        let scores = [-3.1, 3.1, -3.1, -2.33, -0.674, 0, 0.674, 2.33, 3.1]
        for score in scores {
            writer.comma()
            writer.append(average * exp(spread * score), decimals: 2)
        }
        try writer.endLine()
    }

    private func writeMemory(
        _ writer: inout TraceWriter, _ application: [UInt8], _ random: inout SeededRandom
    ) throws(TraceError) {
        let burr = 107.083 * pow(pow(1 - random.unit(), -1 / 0.221) - 1, 1 / 11.652)
        let average = min(max(burr, 20), 3000)
        let spread = 0.02 + 0.25 * random.unit() * random.unit()
        writer.append(application)
        writer.append(",\(100 + random.below(50_000)),\(Int(average.rounded()))")
        for score in [-2.33, -1.645, -0.674, 0, 0.674, 1.645, 2.33, 3.1] {
            writer.append(",\(Int((average * exp(spread * score)).rounded()))")
        }
        try writer.endLine()
    }
}
