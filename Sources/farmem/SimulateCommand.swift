import CommandLineKit
import FarMemory
import JSONText
import LinuxSystem
import OffloadPolicy
import WorkloadSimulation
import WorkloadTrace

/// `farmem simulate`: the policy over a whole trace, in virtual time.
let simulateCommand = Command(
    name: "simulate", summary: "run the policy over a published trace in virtual time",
    discussion: """
        Runs offloadd's own policy over an Azure Functions trace at full size: the file of 2021, or a day of 2019 (the file of \
        invocations per minute, with durations and memory of the same day beside it). Containers are kept alive and reused as fngateway \
        does; what a container's memory does is a model with figures of --costs.

        --generate writes files of the published formats and sizes, for machines without the data sets.
        """,
    options: [
        .json,
        Option(
            "trace", .string, configurable: false, placeholder: "PATH",
            help: "The trace: a file, or a directory of a 2019 day."),
        Option(
            "policy", .string, default: "none,farmem", placeholder: "LIST",
            help: "Policies, compared with the first: \(simulatedPolicies.joined(separator: ", "))."
        ),
        Option(
            "keep-alive", .duration, default: "10m",
            help: "How long an idle container waits for a request."),
        Option(
            "tick", .duration, default: "1s",
            help: "How often the policy looks at idle containers, where that changes anything."),
        Option("far-size", .size, default: "1TiB", help: "Far memory altogether."),
        Option(
            "node-memory", .size, default: "64GiB",
            help: "Local memory that containers are packed into for density."),
        Option(
            "compare", .choice(["oracle"]), configurable: false,
            help:
                "Compare farmem's learned start of semi-warm with the percentile of this very trace; status 1 when it saves less than 90 % of that."
        ),
        Option(
            "sweep", .string, configurable: false, placeholder: "keep-alive=TIME,...",
            help: "Simulate each keep-alive time: cold starts against memory."),
        Option(
            "costs", .string, placeholder: "FILE",
            help: "What memory movements and functions cost; the built-in model otherwise."),
        Option(
            "calibrate", .string, repeatable: true, configurable: false, placeholder: "FILE",
            help:
                "Write a cost file to --output from reports of fngateway describe --json, farmem bench swap --json and farmem bench wake-up --json FILE, and do nothing else."
        ),
        Option(
            "profile", .string, placeholder: "NAME",
            help: "Give all functions this one's memory and times, e.g. bert."),
        Option(
            "calls-per-minute-max", .integer(1...1_000_000), default: "4",
            help:
                "Simulate so many calls of a function in a minute one by one, where a trace counts by minute; more run back to back."
        ),
        Option("seed", .integer(0...Int64.max), default: "1", help: "Places within minutes."),
        Option(
            "skip-malformed", .flag,
            help: "Leave malformed lines out, and say how many; otherwise the first is an error."),
    ] + simulatedPolicyOptions + [
        Option(
            "generate", .choice(["azure2021", "azure2019"]), configurable: false,
            help: "Write a trace of this format, from --seed, and do nothing else."),
        Option(
            "output", .string, configurable: false, placeholder: "PATH",
            help: "The file to write with --generate or --calibrate; a directory for azure2019."),
        Option(
            "functions", .integer(1...1_000_000),
            help: "Functions to generate (default 424 and 46000)."),
        Option("days", .integer(1...31), default: "14", help: "Days to generate of azure2021."),
        Option(
            "calls", .integer(1...1_000_000_000), default: "1980000",
            help: "Calls to generate of azure2021, about."),
        Option(
            "dense", .flag, configurable: false, hidden: true,
            help: "For tests: leave no tick out."),
    ],
    examples: [
        (
            "farmem simulate --generate azure2021 --output /tmp/2021.csv",
            "two weeks, two million calls"
        ),
        ("farmem simulate --trace /tmp/2021.csv", "what offloading saves there"),
        (
            "farmem simulate --trace DIR --profile bert --json",
            "a day of 2019 with one application's memory"
        ),
    ],
    run: runSimulate)

private func runSimulate(_ invocation: Invocation) throws -> ExitStatus {
    if let kind = invocation.stringIfSet("generate") {
        return try generate(kind, invocation)
    }
    let reports = invocation.strings("calibrate")
    if !reports.isEmpty { return try calibrate(reports, invocation) }
    guard let path = invocation.stringIfSet("trace") else {
        throw UsageError("give a trace with --trace PATH, or write one with --generate")
    }
    let began = monotonicNow()
    let plan = try SimulationPlan(invocation)
    var limits = WholeTraceLimits()
    limits.skipsMalformed = invocation.flag("skip-malformed")
    let bar = ProgressBar()
    let trace: WholeTrace
    do throws(TraceError) {
        trace = try WholeTrace.load(path, limits: limits) { bytes in
            bar.show("reading: \(bytes >> 20) MiB")
        }
    } catch {
        throw CommandFailure(.usage, error.description)
    }
    let loaded = monotonicNow()
    guard trace.callCount > 0 else {
        throw CommandFailure(.usage, "\(path) has no invocations")
    }
    if let status = try study(trace, plan, invocation, bar) { return status }
    var report = SimulationReport(trace: trace, plan: plan)
    report.loadTime = Nanoseconds(loaded - began)
    for settings in plan.policies {
        let start = monotonicNow()
        var simulator = Simulator(trace, settings)
        let result = simulator.run { bar.show("\(settings.name): \(Int($0 * 100)) %") }
        report.add(result, took: Nanoseconds(monotonicNow() - start))
    }
    bar.clear()
    report.totalTime = Nanoseconds(monotonicNow() - began)
    printOut(invocation.flag("json") ? report.json().rendered() + "\n" : report.text())
    return .done
}

/// A comparison or a sweep in place of the report, if one was asked for.
private func study(
    _ trace: WholeTrace, _ plan: SimulationPlan, _ invocation: Invocation, _ bar: ProgressBar
) throws -> ExitStatus? {
    let json = invocation.flag("json")
    if invocation.stringIfSet("compare") != nil {
        guard let learned = plan.policies.first(where: { $0.policy?.kind == .farmem }) else {
            throw UsageError("--compare oracle needs farmem among --policy")
        }
        let study = OracleStudy(trace, learned) { bar.show($0) }
        bar.clear()
        printOut(json ? study.json().rendered() + "\n" : study.text())
        return study.isWithin ? .done : .checkFailed
    }
    guard let sweep = invocation.stringIfSet("sweep") else { return nil }
    let study = KeepAliveSweep(trace, plan.policies, try KeepAliveSweep.times(sweep)) {
        bar.show($0)
    }
    bar.clear()
    printOut(json ? study.json().rendered() + "\n" : study.text())
    return .done
}

private func calibrate(_ reports: [String], _ invocation: Invocation) throws -> ExitStatus {
    guard let output = invocation.stringIfSet("output") else {
        throw UsageError("--calibrate needs --output FILE")
    }
    let costs = try CostFile.calibrated(from: reports)
    try replaceFile(output, with: CostFile.json(costs).rendered(pretty: true))
    printOut("\(output): \(costs.profiles.count) functions; \(costs.origin)\n")
    return .done
}

private func generate(_ kind: String, _ invocation: Invocation) throws -> ExitStatus {
    guard let output = invocation.stringIfSet("output") else {
        throw UsageError("--generate needs --output PATH")
    }
    let bar = ProgressBar()
    let is2021 = kind == "azure2021"
    let generator = TraceGenerator(
        seed: UInt64(invocation.integer("seed")),
        functions: invocation.integerIfSet("functions") ?? (is2021 ? 424 : 46_000),
        days: invocation.integer("days"), calls: invocation.integer("calls"))
    let written: (calls: Int, bytes: Int)
    do {
        if !is2021 { try makeDirectories(output) }
        let show = { (share: Double) in bar.show("writing: \(Int(share * 100)) %") }
        written =
            is2021
            ? try generator.write2021(to: output, progress: show)
            : try generator.write2019(to: output, progress: show)
    } catch let error as TraceError {
        throw CommandFailure(.systemError, error.description)
    }
    bar.clear()
    printOut(
        "\(output): \(written.calls) calls of \(generator.functions) functions, \(written.bytes >> 20) MiB, seed \(generator.seed)\n"
    )
    return .done
}

/// One line on standard error that is written over, on a terminal only.
struct ProgressBar {
    private let isShown = isOutputTerminal

    func show(_ text: String) {
        if isShown { printProgress("\r\u{1B}[K\(text)") }
    }

    func clear() {
        if isShown { printProgress("\r\u{1B}[K") }
    }
}
