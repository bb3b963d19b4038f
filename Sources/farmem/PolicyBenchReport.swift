import CommandLineKit
import FarMemory
import JSONText
import Measurement
import WorkloadTrace

/// The report of `farmem bench functions --policies`.
struct PolicyBenchReport {
    let settings: FunctionBenchSettings
    let work: BenchWork
    let outcome: BenchOutcome
    private let comparison: PolicyComparison

    init(settings: FunctionBenchSettings, work: BenchWork, outcome: BenchOutcome) {
        self.settings = settings
        self.work = work
        self.outcome = outcome
        comparison = PolicyComparison(
            functions: outcome.schedule.functions,
            replays: outcome.phases.compactMap { phase in
                phase.result.map {
                    PolicyReplay(
                        policy: phase.variant.name, repetition: phase.repetition, result: $0)
                }
            }, seed: settings.seed)
    }

    /// Every response of every policy was right, and every policy ran.
    var isWell: Bool {
        outcome.failedFunctions.isEmpty
            && outcome.phases.allSatisfy { phase in
                guard let result = phase.result else { return false }
                return result.results.allSatisfy { $0.outcome == .right }
            }
    }

    func text() -> String {
        var table = TextTable([
            .init("function"), .init("policy"), .right("requests"), .right("failed"),
            .right("p50 ms"), .right("p95 ms"), .right("p95 %"), .right("local MiB"),
            .right("far MiB"), .right("saved %"), .right("cold"), .right("major faults"),
        ])
        for figure in comparison.figures { table.append(cells(figure)) }
        var text = "\n" + table.rendered()
        text +=
            "\nlocal MiB, far MiB: all containers of a function, on average over time; saved, p95 %: against none. \(work.source), "
        text +=
            "speedup \(settings.speedup), seed \(settings.seed); the first \(settings.warmUp) of \(settings.duration) are not measured.\n"
        for (name, reason) in outcome.failedFunctions.sorted(by: { $0.key < $1.key }) {
            text += "LEFT OUT \(name): \(reason)\n"
        }
        for phase in outcome.phases {
            if let problem = phase.problem { text += "NOT RUN \(phase.variant.name): \(problem)\n" }
        }
        return text
    }

    private func cells(_ figure: PolicyFigures) -> [String] {
        func milliseconds(_ time: Nanoseconds) -> String { fixed(time.seconds * 1000, 1) }
        func percent(_ value: BootstrapMean?) -> String {
            guard let value else { return "-" }
            let mean = fixed(value.mean * 100, 1)
            guard settings.repetitions > 1 else { return mean }
            return "\(mean) (\(fixed(value.low * 100, 1))..\(fixed(value.high * 100, 1)))"
        }
        func mebibytes(_ value: BootstrapMean?) -> String {
            value.map { fixed($0.mean / 1_048_576, 1) } ?? "-"
        }
        let requests = figure.requests
        return [
            figure.function, figure.policy, "\(requests.requests)",
            "\(requests.failed + requests.wrong)", milliseconds(requests.p50),
            milliseconds(requests.p95), percent(figure.p95Change), mebibytes(figure.local),
            mebibytes(figure.far), percent(figure.saved), "\(requests.coldStarts)",
            figure.majorFaults.map { "\($0)" } ?? "-",
        ]
    }

    func json() -> JSONValue {
        [
            "schema": 2, "benchmark": "functions", "is_well": JSONValue(isWell),
            "seed": JSONValue(settings.seed), "speedup": JSONValue(settings.speedup),
            "duration_ms": JSONValue(settings.duration.milliseconds),
            "warm_up_ms": JSONValue(settings.warmUp.milliseconds),
            "keep_alive_ms": JSONValue(settings.compressed(settings.keepAlive).milliseconds),
            "repetitions": JSONValue(settings.repetitions),
            "memory_limit_bytes": settings.memoryLimit.map { JSONValue($0.bytes) } ?? .null,
            "trace": [
                "source": JSONValue(work.source), "functions": JSONValue(work.traceFunctions),
                "invocations": JSONValue(work.schedule.requests.count),
                "notes": .array(work.notes.map { .string($0) }),
            ],
            "machine": machineFacts(),
            "functions": .array(outcome.schedule.functions.map { .string($0) }),
            "failed_functions": .object(
                outcome.failedFunctions.sorted { $0.key < $1.key }.map {
                    .init($0.key, .string($0.value))
                }),
            "figures": .array(comparison.figures.map(\.json)),
            "phases": .array(outcome.phases.map(phaseJSON)),
        ]
    }

    private func phaseJSON(_ phase: BenchPhase) -> JSONValue {
        let variant = phase.variant
        var members: [JSONValue.Member] = [
            .init("policy", JSONValue(variant.name)), .init("is", JSONValue(variant.policy)),
            .init("options", .array(variant.options.map { .string($0) })),
            .init("repetition", JSONValue(phase.repetition)),
            .init("problem", JSONValue(phase.problem)),
        ]
        if let result = phase.result {
            let names = outcome.schedule.functions
            members += [
                .init("samples_missed", JSONValue(result.samplesMissed)),
                .init(
                    "memory",
                    .object(names.map { .init($0, (result.memory[$0] ?? MemoryFigures()).json) })),
                .init("timeline", result.timeline.json(functions: names)),
                .init("requests", .array(requests(result))),
                .init("decisions", .array(result.decisions)),
            ]
        }
        return .object(members)
    }

    private func requests(_ result: PhaseResult) -> [JSONValue] {
        zip(outcome.schedule.requests, result.results).map { request, answer in
            var reason: String?
            var word: String
            switch answer.outcome {
            case .right: word = "right"
            case .skipped: word = "skipped"
            case .wrong(let why):
                word = "wrong"
                reason = why
            case .failed(let why):
                word = "failed"
                reason = why
            }
            var members: [JSONValue.Member] = [
                .init("function", JSONValue(outcome.schedule.functions[request.function])),
                .init("due_ms", JSONValue(request.due.milliseconds)),
                .init("latency_us", JSONValue(answer.latency.microseconds)),
                .init("cold", JSONValue(answer.isCold)),
                .init("warm_up", JSONValue(answer.isWarmUp)),
                .init("outcome", JSONValue(word)),
                .init("major_faults", answer.majorFaults.map { JSONValue($0) } ?? .null),
            ]
            if let reason { members.append(.init("reason", JSONValue(reason))) }
            return .object(members)
        }
    }
}
