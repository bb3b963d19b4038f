import CommandLineKit
import FarMemory
import Glibc
import JSONText
import LinuxSystem
import Measurement
import WorkloadTrace

/// The report of `farmem bench functions`.
struct FunctionBenchReport {
    let settings: FunctionBenchSettings
    let work: BenchWork
    let comparison: FunctionComparison

    /// The table, the notes and the verdict.
    func text() -> String {
        var table = TextTable([
            .init("function"), .right("requests"), .right("p50 ms"), .right("with"),
            .right("p95 ms"), .right("with"), .right("idle MiB"), .right("with"),
            .right("far MiB"), .right("saved %"), .right("cold"), .right("with"),
            .right("pages out"), .right("pages in"), .right("refaults"),
        ])
        for row in comparison.rows { table.append(cells(row)) }
        table.append(cells(comparison.all))
        var text = "\n" + table.rendered()
        text +=
            "\nidle MiB: average local memory of one idle container; far MiB: all containers of the function, on average."
        text +=
            "\n\"with\" columns: with offloading. Trace: \(work.source), \(work.traceFunctions) functions, "
        text +=
            "speedup \(settings.speedup), seed \(settings.seed); the first \(settings.warmUp) are warm-up (\(comparison.all.without.warmUpRequests) requests, not measured; cold starts and pages are counted throughout).\n"
        for note in work.notes { text += "Trace: \(note).\n" }
        for failure in failures { text += failure + "\n" }
        return text + "\n" + verdict + "\n"
    }

    private func cells(_ row: ComparisonRow) -> [String] {
        func milliseconds(_ time: Nanoseconds) -> String { fixed(time.seconds * 1000, 1) }
        func mebibytes(_ bytes: Double) -> String { fixed(bytes / 1_048_576, 1) }
        return [
            row.name, "\(row.without.requests)", milliseconds(row.without.p50),
            milliseconds(row.with.p50), milliseconds(row.without.p95),
            milliseconds(row.with.p95), mebibytes(row.memoryWithout.localPerIdleContainer),
            mebibytes(row.memoryWith.localPerIdleContainer), mebibytes(row.memoryWith.far),
            row.idleSaving.map { fixed($0 * 100, 0) } ?? "-", "\(row.without.coldStarts)",
            "\(row.with.coldStarts)", "\(row.memoryWith.pagesOut)", "\(row.memoryWith.pagesIn)",
            "\(row.memoryWith.refaults)",
        ]
    }

    /// What became of requests without a right answer, the first ones.
    private var failures: [String] {
        var lines: [String] = []
        for (request, pair) in zip(work.schedule.requests, comparison.requests) {
            for (phase, result) in [("without", pair.without), ("with", pair.with)] {
                let what: String
                switch result.outcome {
                case .right, .skipped: continue
                case .wrong: what = "wrong response"
                case .failed(let cause): what = "no response: \(cause)"
                }
                let function = work.schedule.functions[request.function]
                lines.append(
                    "\(function), due at \(request.due), \(phase) offloading: \(what)")
            }
        }
        return Array(lines.prefix(10))
    }

    /// One line: what was promised and what came of it.
    var verdict: String {
        let isWell =
            comparison.meetsSaving && comparison.meetsLatency
            && comparison.wrong + comparison.failed == 0
        let saving = comparison.all.idleSaving.map { fixed($0 * 100, 0) } ?? "?"
        let change =
            comparison.all.p95Change.map { ($0 < 0 ? "" : "+") + fixed($0 * 100, 1) } ?? "?"
        let total =
            comparison.all.without.requests + comparison.all.with.requests
            + comparison.all.without.warmUpRequests + comparison.all.with.warmUpRequests
        return
            "\(isWell ? "PASS" : "MISSED"): idle containers hold \(saving) % less local memory (promised: 50), "
            + "p95 \(change) % (at most +10), \(comparison.wrong) wrong and \(comparison.failed) missing "
            + "of \(total) responses"
    }

    func json() -> JSONValue {
        [
            "schema": 1, "benchmark": "functions", "verdict": JSONValue(verdict),
            "seed": JSONValue(settings.seed), "speedup": JSONValue(settings.speedup),
            "duration_ms": JSONValue(settings.duration.milliseconds),
            "warm_up_ms": JSONValue(settings.warmUp.milliseconds),
            "keep_alive_ms": JSONValue(settings.compressed(settings.keepAlive).milliseconds),
            "trace": [
                "source": JSONValue(work.source), "functions": JSONValue(work.traceFunctions),
                "invocations": JSONValue(work.schedule.requests.count),
                "notes": .array(work.notes.map { .string($0) }),
            ],
            "machine": machineFacts(), "functions": .array(comparison.rows.map(\.json)),
            "all": comparison.all.json, "requests": .array(requests),
        ]
    }

    /// Each request twice: what to look at when a percentile moved.
    private var requests: [JSONValue] {
        zip(work.schedule.requests, comparison.requests).map { request, pair in
            [
                "due_ms": JSONValue(request.due.milliseconds),
                "function": JSONValue(work.schedule.functions[request.function]),
                "seed": JSONValue(request.seed), "warm_up": JSONValue(pair.without.isWarmUp),
                "without_us": JSONValue(pair.without.latency.microseconds),
                "without_cold": JSONValue(pair.without.isCold),
                "with_us": JSONValue(pair.with.latency.microseconds),
                "with_cold": JSONValue(pair.with.isCold),
            ]
        }
    }
}
