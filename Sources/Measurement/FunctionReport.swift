package import FarMemory
package import JSONText

/// What one phase of the benchmark measured.
package struct PhaseResult: Sendable {
    package var results: [RequestResult]
    package var memory: [String: MemoryFigures]
    package var samplesMissed: Int
    package var timeline: MemoryTimeline
    package var decisions: [JSONValue]

    package init(results: [RequestResult], sampled: MemorySampler.Findings) {
        self.results = results
        memory = sampled.figures
        samplesMissed = sampled.missed
        timeline = sampled.timeline
        decisions = sampled.decisions
    }
}

/// Latencies and outcomes of a set of requests. Percentiles are exact: nearest rank of all answers, failed ones included.
package struct RequestFigures: Equatable, Sendable {
    /// Measured ones: without the warm-up.
    package var requests = 0
    package var warmUpRequests = 0
    /// Of all, the warm-up included, as are failed ones and cold starts.
    package var wrong = 0
    package var failed = 0
    package var coldStarts = 0
    package var p50 = Nanoseconds.zero
    package var p95 = Nanoseconds.zero
    package var p99 = Nanoseconds.zero

    package init(_ results: [RequestResult]) {
        var latencies: [Nanoseconds] = []
        for result in results {
            switch result.outcome {
            case .skipped: continue
            case .wrong: wrong += 1
            case .failed: failed += 1
            case .right: break
            }
            if result.isCold { coldStarts += 1 }
            if result.isWarmUp {
                warmUpRequests += 1
                continue
            }
            requests += 1
            latencies.append(result.latency)
        }
        latencies.sort()
        func percentile(_ percent: Int) -> Nanoseconds {
            guard !latencies.isEmpty else { return .zero }
            let rank = (latencies.count * percent + 99) / 100
            return latencies[max(0, rank - 1)]
        }
        p50 = percentile(50)
        p95 = percentile(95)
        p99 = percentile(99)
    }

    package var json: JSONValue {
        [
            "requests": JSONValue(requests), "warm_up_requests": JSONValue(warmUpRequests),
            "wrong": JSONValue(wrong), "failed": JSONValue(failed),
            "cold_starts": JSONValue(coldStarts), "p50_us": JSONValue(p50.microseconds),
            "p95_us": JSONValue(p95.microseconds), "p99_us": JSONValue(p99.microseconds),
        ]
    }
}

extension MemoryFigures {
    package var json: JSONValue {
        [
            "samples": JSONValue(samples), "containers_mean": JSONValue(containers),
            "idle_containers_mean": JSONValue(idleContainers), "local_bytes_mean": JSONValue(local),
            "idle_local_bytes_mean": JSONValue(idleLocal),
            "local_bytes_per_idle_container": JSONValue(localPerIdleContainer),
            "far_bytes_mean": JSONValue(far), "pages_out": JSONValue(pagesOut),
            "pages_in": JSONValue(pagesIn), "refaults": JSONValue(refaults),
        ]
    }
}

/// One line of the comparison: a function, or all.
package struct ComparisonRow: Sendable {
    package var name: String
    package var without: RequestFigures
    package var with: RequestFigures
    package var memoryWithout: MemoryFigures
    package var memoryWith: MemoryFigures

    /// Share of the idle containers' local memory that offloading saved, per idle container.
    package var idleSaving: Double? {
        let before = memoryWithout.localPerIdleContainer
        guard before > 0, memoryWith.localPerIdleContainer > 0 else { return nil }
        return 1 - memoryWith.localPerIdleContainer / before
    }

    /// How much higher the 95th percentile is with offloading: 0.1 is a tenth.
    package var p95Change: Double? {
        guard without.p95 > .zero else { return nil }
        return Double(with.p95.nanoseconds) / Double(without.p95.nanoseconds) - 1
    }

    package var json: JSONValue {
        [
            "function": JSONValue(name),
            "without": without.json, "with": with.json,
            "memory_without": memoryWithout.json, "memory_with": memoryWith.json,
            "idle_saving": idleSaving.map { JSONValue($0) } ?? .null,
            "p95_change": p95Change.map { JSONValue($0) } ?? .null,
        ]
    }
}

/// The comparison of the two phases.
package struct FunctionComparison: Sendable {
    package var rows: [ComparisonRow]
    package var all: ComparisonRow
    /// Each request's result without and with offloading, in the schedule's order.
    package var requests: [(without: RequestResult, with: RequestResult)]

    /// The promise: idle memory at least this much lower, p95 at most this much higher.
    package static let idleSavingMin = 0.5
    package static let p95ChangeMax = 0.1

    package init(functions: [String], without: PhaseResult, with: PhaseResult) {
        rows = functions.enumerated().map { index, name in
            ComparisonRow(
                name: name,
                without: RequestFigures(without.results.filter { $0.function == index }),
                with: RequestFigures(with.results.filter { $0.function == index }),
                memoryWithout: without.memory[name] ?? MemoryFigures(),
                memoryWith: with.memory[name] ?? MemoryFigures())
        }
        all = ComparisonRow(
            name: "all", without: RequestFigures(without.results),
            with: RequestFigures(with.results), memoryWithout: Self.sum(without.memory),
            memoryWith: Self.sum(with.memory))
        requests = Array(zip(without.results, with.results))
    }

    private static func sum(_ figures: [String: MemoryFigures]) -> MemoryFigures {
        var sum = MemoryFigures()
        for figure in figures.values {
            sum.samples = max(sum.samples, figure.samples)
            sum.localSum += figure.localSum
            sum.idleLocalSum += figure.idleLocalSum
            sum.farSum += figure.farSum
            sum.containerSum += figure.containerSum
            sum.idleSum += figure.idleSum
            sum.pagesOut += figure.pagesOut
            sum.pagesIn += figure.pagesIn
            sum.refaults += figure.refaults
        }
        return sum
    }

    package var wrong: Int { all.without.wrong + all.with.wrong }
    package var failed: Int { all.without.failed + all.with.failed }

    package var meetsSaving: Bool { (all.idleSaving ?? -1) >= Self.idleSavingMin }
    package var meetsLatency: Bool { (all.p95Change ?? .infinity) <= Self.p95ChangeMax }
}
