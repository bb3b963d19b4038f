package import FarMemory
import Glibc

extension WorkloadTrace {
    /// Generates a trace from a seed: the default workload.
    ///
    /// Its functions come in the three kinds that the published traces are made of (Shahrad et al., Serverless in the Wild, USENIX
    /// ATC 2020: about half of the applications are called by timers or rarely, few make up most of the calls):
    ///
    /// - timers: a fixed period between one and ten minutes, with a tenth of jitter;
    /// - bursts: exponential pauses of five minutes on average, each followed by 2 to 8 calls a few seconds apart;
    /// - rare: exponential intervals of a quarter of an hour on average.
    ///
    /// Function i is of kind i modulo 3. Durations are log-uniform between 10 ms and 2 s.
    package static func generated(
        seed: UInt64, functions count: Int, length: Nanoseconds
    ) -> WorkloadTrace {
        var random = SeededRandom(seed: seed)
        var functions: [TraceFunction] = []
        for index in 0..<count {
            var own = random.split()
            let arrivals: [Nanoseconds]
            switch index % 3 {
            case 0: arrivals = timer(&own, length)
            case 1: arrivals = bursts(&own, length)
            default: arrivals = rare(&own, length)
            }
            let milliseconds = 10 * pow(200, own.unit())
            functions.append(
                TraceFunction(
                    name: "generated-\(index)", arrivals: arrivals,
                    duration: .microseconds(Int64(milliseconds * 1000))))
        }
        return WorkloadTrace(
            source: "generated, seed \(seed)", functions: functions.filter { !$0.arrivals.isEmpty })
    }

    private static func timer(_ random: inout SeededRandom, _ length: Nanoseconds) -> [Nanoseconds]
    {
        let period = 60 + random.unit() * 540
        var time = random.unit() * period
        return collect(length) {
            defer { time += period * (0.95 + random.unit() * 0.1) }
            return time
        }
    }

    private static func bursts(_ random: inout SeededRandom, _ length: Nanoseconds) -> [Nanoseconds]
    {
        var time = exponential(&random, 300)
        var left = 2 + random.below(7)
        return collect(length) {
            defer {
                left -= 1
                if left > 0 {
                    time += exponential(&random, 3)
                } else {
                    time += exponential(&random, 300)
                    left = 2 + random.below(7)
                }
            }
            return time
        }
    }

    private static func rare(_ random: inout SeededRandom, _ length: Nanoseconds) -> [Nanoseconds] {
        var time = exponential(&random, 900)
        return collect(length) {
            defer { time += exponential(&random, 900) }
            return time
        }
    }

    /// Seconds with the given mean.
    private static func exponential(_ random: inout SeededRandom, _ mean: Double) -> Double {
        -mean * log(1 - random.unit())
    }

    private static func collect(
        _ length: Nanoseconds, _ next: () -> Double
    ) -> [Nanoseconds] {
        var arrivals: [Nanoseconds] = []
        while true {
            let time = Nanoseconds(Int64(next() * 1e9))
            guard time < length else { return arrivals }
            arrivals.append(time)
        }
    }
}
