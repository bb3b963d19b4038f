import FarMemory
import Glibc

// The shape of the 2021 data set: 424 functions, 1.98 million calls in 14 days; 28 functions are called 512 times a day or more,
// 76 between 64 and 511 times, 320 less. Within the busy ones calls fall off by Zipf's law. Of each class a third are timers,
// a third come in bursts, a third at random with a daily swing (the kinds of Shahrad et al., Serverless in the Wild, USENIX ATC 2020).
// Durations are log-normal: a function's median about a second with a wide spread (log deviation 1.9; the excerpt's first 20 minutes have a
// median of 1.4 s and a tenth beyond 190 s), its own calls within a factor of two or so.

/// One function's calls, made as they are needed.
private struct CallSource {
    enum Kind {
        case timer(period: Double)
        case bursts(mean: Double, size: Double)
        case random(mean: Double)
    }

    let name: [UInt8]
    let kind: Kind
    let medianDuration: Double
    let spread: Double
    let swing: Double
    var random: SeededRandom
    var next: Double
    var left = 0

    mutating func advance() {
        switch kind {
        case .timer(let period):
            next += period * (0.98 + 0.04 * random.unit())
        case .bursts(let mean, let size):
            if left > 0 {
                left -= 1
                next += random.exponential(4)
            } else {
                left = Int(random.exponential(size - 1).rounded())
                let pause = max(1, mean * size - 4 * (size - 1))
                next += random.exponential(pause / dayShape(next, swing: swing))
            }
        case .random(let mean):
            next += random.exponential(mean / dayShape(next, swing: swing))
        }
    }

    mutating func duration() -> Double {
        min(medianDuration * exp(spread * random.normal()), 900)
    }
}

extension TraceGenerator {
    /// Writes a file in the format of 2021, in the order of starts like the original; returns calls and bytes.
    package func write2021(
        to path: String, progress: (Double) -> Void = { _ in }
    ) throws(TraceError) -> (calls: Int, bytes: Int) {
        var writer = try TraceWriter(path)
        var sources = makeSources()
        writer.append("app,func,end_timestamp,duration")
        try writer.endLine()
        let length = Double(days) * 86_400
        // A heap of sources by their next call.
        var heap = Array(sources.indices)
        heap.sort { sources[$0].next < sources[$1].next }
        var count = 0
        while let top = heap.first, sources[top].next < length {
            let start = sources[top].next
            let duration = (sources[top].duration() * 1000).rounded() / 1000
            writer.append(sources[top].name)
            writer.comma()
            // The original prints all digits of a double.
            writer.append("\(start + duration)")
            writer.comma()
            writer.append("\(duration)")
            try writer.endLine()
            count += 1
            if count % 100_000 == 0 { progress(start / length) }
            sources[top].advance()
            Self.sink(&heap, sources)
        }
        try writer.flush()
        return (count, writer.bytesWritten)
    }

    private static func sink(_ heap: inout [Int], _ sources: [CallSource]) {
        var place = 0
        while true {
            var least = place
            for child in [2 * place + 1, 2 * place + 2]
            where child < heap.count && sources[heap[child]].next < sources[heap[least]].next {
                least = child
            }
            if least == place { return }
            heap.swapAt(place, least)
            place = least
        }
    }

    private func makeSources() -> [CallSource] {
        var random = SeededRandom(seed: seed)
        let busy = max(1, functions * 28 / 424)
        let middle = functions * 76 / 424
        var rates: [Double] = []
        for index in 0..<functions {
            if index < busy {
                rates.append(1 / Double(index + 1))
            } else if index < busy + middle {
                rates.append(64 * exp(log(8) * random.unit()))
            } else {
                rates.append(exp(log(64) * random.unit()))
            }
        }
        // The busy ones share what is left of the calls, none of them less than 512 a day.
        let others = rates[busy...].reduce(0, +)
        let left = max(512.0 * Double(busy), Double(calls) / Double(days) - others)
        let sum = rates[..<busy].reduce(0, +)
        let spare = left - 512 * Double(busy)
        for index in 0..<busy { rates[index] = 512 + spare * rates[index] / sum }
        var application = random.digest()
        return rates.enumerated().map { index, perDay in
            var own = random.split()
            // 119 applications have the 424 functions.
            if own.chance(119, in: 424) { application = own.digest() }
            let mean = 86_400 / perDay
            let kind: CallSource.Kind =
                switch own.below(3) {
                case 0: .timer(period: mean)
                case 1: .bursts(mean: mean, size: 6)
                default: .random(mean: mean)
                }
            var source = CallSource(
                name: application + [UInt8(ascii: ",")] + own.digest(), kind: kind,
                medianDuration: min(exp(1.9 * own.normal()), 300), spread: 0.2 + 0.5 * own.unit(),
                swing: 0.5 * own.unit(), random: own, next: own.unit() * mean)
            // Functions that would hardly ever end are no functions: at most one and a half at a time, like the original.
            if perDay > 512, source.medianDuration * perDay > 130_000 {
                source = source.withMedian(130_000 / perDay)
            }
            return source
        }
    }
}

extension CallSource {
    fileprivate func withMedian(_ median: Double) -> CallSource {
        CallSource(
            name: name, kind: kind, medianDuration: median, spread: spread, swing: swing,
            random: random, next: next, left: left)
    }
}
