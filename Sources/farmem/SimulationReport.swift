import CommandLineKit
import FarMemory
import JSONText
import LinuxSystem
import Measurement
import WorkloadSimulation
import WorkloadTrace

/// The report of `farmem simulate`.
struct SimulationReport {
    let trace: WholeTrace
    let plan: SimulationPlan
    var loadTime = Nanoseconds.zero
    var totalTime = Nanoseconds.zero
    private(set) var results: [SimulationResult] = []
    private(set) var times: [Nanoseconds] = []

    init(trace: WholeTrace, plan: SimulationPlan) {
        self.trace = trace
        self.plan = plan
    }

    mutating func add(_ result: SimulationResult, took: Nanoseconds) {
        results.append(result)
        times.append(took)
    }

    private static let pageMiB = Double(pageBytes) / 1_048_576

    // MARK: Text

    func text() -> String {
        var text =
            "\(trace.source): \(trace.callCount) calls of \(trace.functions.count) functions in \(fixed(trace.length.seconds / 3600, 1)) h"
        if trace.skipped > 0, let first = trace.firstSkipped {
            text += "; \(trace.skipped) malformed lines left out, the first: \(first)"
        }
        text += "\n\n" + memoryTable() + "\n" + requestTable()
        text +=
            "\nDensity: the formula is FaaSMem's, quota / (quota - used x saved), over each profile's mean container; "
        text += "packed is how many containers fit into \(plan.nodeMemory) in 99 of 100 seconds.\n"
        for note in trace.notes { text += "Trace: \(note).\n" }
        if let settings = plan.policies.first {
            text += "Costs: \(settings.costs.origin).\n"
        }
        text += "Time: read \(fixed(loadTime.seconds, 2)) s (\(trace.bytesRead >> 20) MiB)"
        for (result, time) in zip(results, times) {
            text += ", \(result.name) \(fixed(time.seconds, 2)) s"
        }
        return text + ", altogether \(fixed(totalTime.seconds, 2)) s on one core.\n"
    }

    private func memoryTable() -> String {
        var table = TextTable([
            .init("policy"), .right("local GiB"), .right("p99"), .right("saved %"),
            .right("far GiB p99"), .right("peak"), .right("out MiB/s p99"), .right("peak"),
            .right("in MiB/s p99"), .right("peak"), .right("packed"), .right("density"),
            .right("formula"),
        ])
        for result in results {
            let local = result.local.summary(unit: Self.pageMiB / 1024)
            let far = result.far.summary(unit: Self.pageMiB / 1024)
            let out = result.out.summary(unit: Self.pageMiB)
            let back = result.back.summary(unit: Self.pageMiB)
            let packed = result.packed(into: plan.nodeMemory)
            let reference = results[0].packed(into: plan.nodeMemory)
            table.append([
                result.name, fixed(local.mean, 2), fixed(local.p99, 2),
                fixed(result.saved(against: results[0]) * 100, 1), fixed(far.p99, 2),
                fixed(far.peak, 2), fixed(out.p99, 1), fixed(out.peak, 1), fixed(back.p99, 1),
                fixed(back.peak, 1), fixed(packed, 0),
                reference > 0 ? fixed(packed / reference, 2) : "-",
                fixed(formulaDensity(result), 2),
            ])
        }
        return table.rendered()
    }

    private func requestTable() -> String {
        var table = TextTable([
            .init("policy"), .right("requests"), .right("cold"), .right("cold %"),
            .right("to semi-warm"), .right("%"), .right("p95 ms"), .right("p99 ms"),
            .right("added p99 ms"), .right("pages out"), .right("prefetched"), .right("faulted"),
            .right("ticks"),
        ])
        func milliseconds(_ time: Nanoseconds?) -> String {
            time.map { fixed($0.seconds * 1000, 1) } ?? "-"
        }
        for result in results {
            let requests = Double(max(1, result.requests))
            table.append([
                result.name, "\(result.requests)", "\(result.coldStarts)",
                fixed(Double(result.coldStarts) / requests * 100, 2), "\(result.semiWarmRequests)",
                fixed(Double(result.semiWarmRequests) / requests * 100, 2),
                milliseconds(result.latency.quantile(0.95)),
                milliseconds(result.latency.quantile(0.99)),
                milliseconds(result.added.quantile(0.99)), "\(result.pagesOut)",
                "\(result.pagesPrefetched)", "\(result.pagesFaulted)", "\(result.ticks)",
            ])
        }
        return table.rendered()
    }

    /// FaaSMem's estimate of density, over the profiles by their containers' time: quota / (quota - used x (1 - ours / reference)).
    func formulaDensity(_ result: SimulationResult) -> Double {
        let reference = results[0]
        var sum = 0.0
        var weight = 0.0
        for (index, profile) in (plan.policies.first?.costs.profiles ?? []).enumerated() {
            let time = reference.profileContainerSeconds[index]
            let before = reference.profileLocalByteSeconds[index]
            guard time > 0, before > 0, result.profileContainerSeconds[index] > 0 else { continue }
            let each = before / time
            let now =
                result.profileLocalByteSeconds[index] / result.profileContainerSeconds[index]
            let used = min(each, Double(profile.quota.bytes))
            let quota = max(Double(profile.quota.bytes), each)
            sum += quota / (quota - used * max(0, 1 - now / each)) * time
            weight += time
        }
        return weight > 0 ? sum / weight : 1
    }

    // MARK: JSON

    func json() -> JSONValue {
        [
            "schema": 1, "report": "simulation", "seed": JSONValue(plan.seed),
            "trace": [
                "source": JSONValue(trace.source), "calls": JSONValue(trace.callCount),
                "functions": JSONValue(trace.functions.count),
                "length_s": JSONValue(trace.length.seconds),
                "bytes": JSONValue(trace.bytesRead),
                "malformed_lines_left_out": JSONValue(trace.skipped),
                "first_malformed": JSONValue(trace.firstSkipped?.description),
                "notes": .array(trace.notes.map { .string($0) }),
            ],
            "node_memory_bytes": JSONValue(plan.nodeMemory.bytes),
            "load_s": JSONValue(loadTime.seconds), "total_s": JSONValue(totalTime.seconds),
            "machine": machineFacts(),
            "policies": .array(
                results.indices.map { index in
                    json(results[index], plan.policies[index], times[index])
                }),
        ]
    }

    private func json(
        _ result: SimulationResult, _ settings: SimulationSettings, _ time: Nanoseconds
    ) -> JSONValue {
        func times(_ distribution: TimeDistribution) -> JSONValue {
            func at(_ share: Double) -> JSONValue {
                distribution.quantile(share).map { JSONValue($0.seconds) } ?? .null
            }
            return [
                "count": JSONValue(distribution.total),
                "mean_s": JSONValue(distribution.mean / 1e9),
                "p50_s": at(0.5), "p95_s": at(0.95), "p99_s": at(0.99),
            ]
        }
        func series(_ series: SecondSeries) -> JSONValue {
            let summary = series.summary(unit: Double(pageBytes))
            return [
                "mean": JSONValue(summary.mean), "p50": JSONValue(summary.p50),
                "p99": JSONValue(summary.p99), "peak": JSONValue(summary.peak),
                "peak_at_s": JSONValue(summary.peakSecond),
            ]
        }
        return [
            "policy": JSONValue(result.name), "took_s": JSONValue(time.seconds),
            "keep_alive_ms": JSONValue(settings.keepAlive.milliseconds),
            "tick_ms": JSONValue(settings.tick.milliseconds),
            "costs": JSONValue(settings.costs.origin),
            "profile": JSONValue(settings.profile),
            "requests": JSONValue(result.requests), "cold_starts": JSONValue(result.coldStarts),
            "semi_warm_requests": JSONValue(result.semiWarmRequests),
            "containers_started": JSONValue(result.containersStarted),
            "local_byte_seconds": JSONValue(result.localByteSeconds),
            "far_byte_seconds": JSONValue(result.farByteSeconds),
            "saved_share": JSONValue(result.saved(against: results[0])),
            "local_bytes": series(result.local), "far_bytes": series(result.far),
            "out_bytes_per_second": series(result.out),
            "in_bytes_per_second": series(result.back),
            "latency": times(result.latency), "added": times(result.added),
            "pages_out": JSONValue(result.pagesOut),
            "pages_prefetched": JSONValue(result.pagesPrefetched),
            "pages_faulted": JSONValue(result.pagesFaulted),
            "packed_containers": JSONValue(result.packed(into: plan.nodeMemory)),
            "density_packed": JSONValue(
                result.packed(into: plan.nodeMemory)
                    / max(1e-9, results[0].packed(into: plan.nodeMemory))),
            "density_formula": JSONValue(formulaDensity(result)),
            "decisions": JSONValue(result.decisions), "ticks": JSONValue(result.ticks),
            "classes": .array(
                zip(LoadClass.allCases, result.classes).map { json($0, $1) }),
        ]
    }

    private func json(_ load: LoadClass, _ figures: ClassFigures) -> JSONValue {
        let quantiles = (0...100).map { share -> JSONValue in
            figures.lifetime.quantile(Double(share) / 100).map { JSONValue($0.seconds) } ?? .null
        }
        return [
            "class": JSONValue(load.word), "functions": JSONValue(figures.functions),
            "requests": JSONValue(figures.requests), "cold_starts": JSONValue(figures.coldStarts),
            "containers": JSONValue(figures.containers),
            "local_byte_seconds": JSONValue(figures.localByteSeconds),
            "lifetime_quantiles_s": .array(quantiles),
            "semi_warm_share_cdf": .array(
                figures.semiWarmShare.cumulative.map { JSONValue($0) }),
        ]
    }
}
