import FarMemory
import LinuxSystem
import Telemetry
import TestSupport
import Testing

@Suite struct CounterTests {
    @Test func threadsLoseNoCounts() throws {
        let counter = Counter()
        let sharded = ShardedCounter()
        let gauge = Gauge()
        let histogram = Histogram()
        let threads = try (0..<4).map { number in
            try WorkerThread("count") {
                for i in 0..<20_000 {
                    counter.add()
                    if i % 2 == 0 { sharded.add(2) } else { sharded.add(2, shard: number) }
                    gauge.add(i % 2 == 0 ? 3 : -1)
                    histogram.record(UInt64(i))
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(counter.value == 80_000)
        #expect(sharded.value == 160_000)
        #expect(gauge.value == 80_000)
        #expect(histogram.snapshot().count == 80_000)
        #expect(histogram.snapshot().sum == 4 * 19_999 * 10_000)
        #expect(histogram.snapshot().largest == 19_999)
    }

    @Test func recordingAllocatesNothing() {
        let counter = Counter()
        let sharded = ShardedCounter()
        let histogram = Histogram()
        histogram.record(1)
        sharded.add()
        let count = allocations {
            for i in 0..<1000 {
                counter.add()
                sharded.add()
                histogram.record(UInt64(i) << 20)
            }
        }
        #expect(count == 0)
    }
}

@Suite struct HistogramTests {
    @Test func percentilesAreWithinABucket() {
        let seed = TestSeed(filter: "HistogramTests")
        var random = seed.random
        for _ in 0..<20 {
            let histogram = Histogram()
            let shift = UInt64(random.below(50))
            var values = (0..<1000).map { _ in random.next() >> (shift + UInt64(random.below(10))) }
            for value in values { histogram.record(value) }
            values.sort()
            let snapshot = histogram.snapshot()
            for ratio in [0.0, 0.01, 0.5, 0.9, 0.99, 1.0] {
                let exact = Double(values[max(0, Int((ratio * 1000).rounded(.up)) - 1)])
                let got = Double(snapshot.percentile(ratio))
                #expect(abs(got - exact) <= exact * 0.0626 + 0.5, "\(ratio): \(seed)")
            }
            #expect(snapshot.percentile(1) <= snapshot.largest)
        }
    }

    @Test func extremesAndEmptiness() {
        let histogram = Histogram()
        #expect(histogram.snapshot().percentile(0.5) == 0)
        #expect(histogram.snapshot().mean == 0)
        histogram.record(0)
        histogram.record(.max)
        histogram.record(Nanoseconds(-5))
        #expect(histogram.snapshot().count == 3)
        #expect(histogram.snapshot().percentile(0.5) == 0)
        #expect(histogram.snapshot().largest == .max)
    }

    @Test func differencesAndSums() {
        let histogram = Histogram()
        for _ in 0..<10 { histogram.record(100) }
        let early = histogram.snapshot()
        for _ in 0..<5 { histogram.record(10_000) }
        let difference = histogram.snapshot().since(early)
        #expect(difference.count == 5)
        #expect(difference.sum == 50_000)
        #expect(early.merged(with: difference).count == 15)
        #expect(HistogramSnapshot().merged(with: early) == early)
    }
}

@Suite struct MetricRegistryTests {
    @Test func textFormat() {
        let registry = MetricRegistry()
        let reads = registry.counter(
            "farmem_x_requests_total", help: "Requests\nserved.", labels: ["op": "read"])
        let writes = registry.shardedCounter(
            "farmem_x_requests_total", help: "", labels: ["op": "a\"b\\c\nd"])
        let used = registry.gauge("farmem_x_used_bytes", help: "Used.")
        registry.collectGauge("farmem_x_local_bytes", help: "By container.") {
            [.init(["container": "web"], 1.5), .init(["container": "db"], .infinity)]
        }
        reads.add(3)
        writes.add()
        used.set(-7)
        #expect(
            registry.render() == """
                # HELP farmem_x_requests_total Requests\\nserved.
                # TYPE farmem_x_requests_total counter
                farmem_x_requests_total{op="read"} 3
                farmem_x_requests_total{op="a\\"b\\\\c\\nd"} 1
                # HELP farmem_x_used_bytes Used.
                # TYPE farmem_x_used_bytes gauge
                farmem_x_used_bytes -7
                # HELP farmem_x_local_bytes By container.
                # TYPE farmem_x_local_bytes gauge
                farmem_x_local_bytes{container="web"} 1.5
                farmem_x_local_bytes{container="db"} +Inf

                """)
    }

    @Test func histogramsAreCumulativeAndInSeconds() {
        let registry = MetricRegistry()
        let latency = registry.latencies(
            "farmem_x_latency_seconds", help: "Time.", labels: ["op": "read"])
        latency.record(.microseconds(3))
        latency.record(.milliseconds(2))
        latency.record(.seconds(200))
        let lines = registry.render().split(separator: "\n").map(String.init)
        #expect(lines.contains(#"farmem_x_latency_seconds_bucket{op="read",le="1.024e-06"} 0"#))
        #expect(lines.contains(#"farmem_x_latency_seconds_bucket{op="read",le="4.096e-06"} 1"#))
        #expect(lines.contains(#"farmem_x_latency_seconds_bucket{op="read",le="+Inf"} 3"#))
        #expect(lines.contains(#"farmem_x_latency_seconds_count{op="read"} 3"#))
        let counts = lines.filter { $0.contains("_bucket") }.compactMap {
            UInt64($0.split(separator: " ").last ?? "")
        }
        #expect(counts == counts.sorted())
        #expect(
            lines.contains { $0.hasPrefix(#"farmem_x_latency_seconds_sum{op="read"} 200.002"#) })
    }

    @Test func mistakesTrap() async {
        await #expect(processExitsWith: .failure) {
            _ = MetricRegistry().counter("farmem_x_requests", help: "no _total")
        }
        await #expect(processExitsWith: .failure) {
            let registry = MetricRegistry()
            _ = registry.gauge("farmem_x", help: "")
            _ = registry.gauge("farmem_x", help: "twice")
        }
        await #expect(processExitsWith: .failure) {
            _ = MetricRegistry().gauge("farmem-x", help: "")
        }
    }
}
