import CommandLineKit
import FarMemory
import Glibc
import JSONText
import LinuxSystem
import Measurement
import Synchronization
import WorkloadTrace

let benchFunctionsCommand = Command(
    name: "functions",
    summary: "replay a trace against real functions without and with offloading",
    discussion: """
        Starts the function gateway, replays a trace against real functions in containers, and measures latency and \
        memory; then the same again with a memory server, far swap and the offload controller. Every response is \
        verified against the first one given without offloading. All that was started is gone afterwards.

        The default trace is generated from --seed. With --trace it is an Azure Functions trace as published: 2019 \
        (a directory, or the file of invocations per minute with the others beside it) or 2021 (one file). \
        Each of its functions is mapped onto one of ours by the rank of its duration. --speedup divides the trace's time, \
        and with it the keep-alive time and the controller's delays. With --schedule the times and functions are exactly those of \
        a file: a heading seconds,function and a line for each request; NAME-WORD is the function NAME once more, with containers of its own, \
        where --functions-dir has it.

        With --policies the same requests are replayed once for each policy, without offloading first, and again for each repetition, every other one backwards. \
        A function that does not answer as it should is left out and reported; a container that dies counts as failed requests.

        Exit status 1 means a wrong or missing response.
        """,
    options: [
        Option("trace", .string, placeholder: "FILE|DIR", help: "Azure Functions trace to replay."),
        Option(
            "schedule", .string, placeholder: "FILE",
            help: "Requests to send, in place of a trace: seconds,function."),
        Option(
            "policies", .string, placeholder: "LIST",
            help:
                "Of \(PolicyVariant.policies.joined(separator: ",")) and the names of --variant (default: none against farmem, as a table)."
        ),
        Option(
            "variant", .string, repeatable: true, placeholder: "'NAME=POLICY WORD=VALUE...'",
            help: "A policy under another name, with settings of offloadd run."),
        Option(
            "offload-option", .string, repeatable: true, placeholder: "[NAME:]WORD=VALUE",
            help: "A setting of offloadd run, of all policies or of one."),
        Option(
            "without-reference", .flag,
            help: "Leave out none, where nothing is to be compared with it."),
        Option(
            "repetitions", .integer(1...100), default: "1",
            help: "Replay all policies so many times."),
        Option(
            "timeline", .duration, default: "1s",
            help: "Interval of the memory timeline in the JSON report."),
        Option(
            "sample-interval", .duration, default: "250ms",
            help: "How often memory is looked at, for averages and for the timeline."),
        Option(
            "memory-limit", .size, placeholder: "SIZE",
            help: "Local memory of all containers together."),
        Option(
            "speedup", .integer(1...10_000), default: "5",
            help: "Compress the trace's time so many times."),
        Option(
            "seed", .integer(0...Int64.max), default: "1",
            help: "Of the generated trace and of all choices."),
        Option(
            "duration", .duration, default: "200s", help: "Real time of each of the two replays."),
        Option(
            "warm-up", .duration, default: "60s",
            help:
                "Part of each replay that is verified but not measured: cold starts, and the controller learning. At most half of it."
        ),
        Option(
            "start", .duration, default: "0s", help: "Where in the trace to begin, in its time."),
        Option(
            "functions", .string, placeholder: "LIST",
            help:
                "Some of \(knownFunctions.joined(separator: ",")) (default \(defaultFunctions.joined(separator: ",")))."
        ),
        Option(
            "trace-functions", .integer(1...512), default: "60",
            help: "Most functions of the trace; of more a seeded sample."),
        Option(
            "rate-max", .integer(1...1000), default: "6",
            help: "Most requests per second of real time on average; busier functions are left out."
        ),
        Option(
            "keep-alive", .duration, default: "10m",
            help: "Of idle containers, in the trace's time."),
        Option(
            "containers-max", .integer(1...256), default: "8",
            help: "Containers of one function at a time; more requests wait."),
        Option("far-size", .size, default: "2GiB", help: "Size of the far memory."),
        Option(
            "far-memory", .string, placeholder: "URL",
            help: "Use this far memory, as for farswap attach, instead of starting a memserver."),
        Option(
            "frontend", .choice(["auto", "fuse", "nbd", "module"]), default: "auto",
            help: "How the kernel reaches --far-memory, as for farswap attach."),
        Option(
            "auth-file", .string, placeholder: "FILE",
            help: "Keys for --far-memory, as for farswap attach."),
        Option(
            "functions-dir", .string, default: "functions", placeholder: "DIR",
            help: "Directory of the functions and their agent."),
        Option(
            "json", .string, placeholder: "FILE", help: "Write the report as JSON to this file."),
        Option("keep-logs", .flag, help: "Leave the programs' logs in the runtime directory."),
        Option.logLevel,
    ],
    run: runBenchFunctions)

private func runBenchFunctions(_ invocation: Invocation) throws -> ExitStatus {
    ignoreBrokenPipes()
    let signals = try SignalEvents([SIGINT, SIGTERM, SIGHUP])
    let settings = try FunctionBenchSettings(invocation)
    guard runsAsRoot() else {
        throw CommandFailure(.permission, "containers and swap need root; run with sudo")
    }
    guard fileExists("\(settings.functionsDirectory)/agent/agent.py") else {
        throw UsageError(
            "\(settings.functionsDirectory)/agent/agent.py does not exist; run in the source directory or give --functions-dir"
        )
    }
    let work = try settings.loadWork()
    guard !work.schedule.requests.isEmpty else {
        throw CommandFailure(
            .usage,
            "\(work.source) has no invocation in this part; give another --start or a longer --duration"
        )
    }
    let cancellation = Cancellation()
    let bench = FunctionBench(
        settings: settings, schedule: work.schedule, cancellation: cancellation)
    let outcome = try runToEnd(bench, cancellation, signals, keepLogs: invocation.flag("keep-logs"))
    let json = invocation.stringIfSet("json")
    guard settings.comparesPolicies else {
        let comparison = try outcome.comparison()
        let report = FunctionBenchReport(
            settings: settings, work: work, comparison: comparison)
        printOut(report.text())
        if let json { try replaceFile(json, with: report.json().rendered(pretty: true)) }
        return comparison.wrong + comparison.failed == 0 ? .done : .checkFailed
    }
    let report = PolicyBenchReport(settings: settings, work: work, outcome: outcome)
    printOut(report.text())
    if let json { try replaceFile(json, with: report.json().rendered(pretty: false)) }
    return report.isWell ? .done : .checkFailed
}

/// Runs the benchmark on a thread of its own, so that this one can take signals: then the work is cancelled, cleaned up, and said so.
private func runToEnd(
    _ bench: FunctionBench, _ cancellation: Cancellation, _ signals: borrowing SignalEvents,
    keepLogs: Bool
) throws -> BenchOutcome {
    let done = try EventSignal()
    let result = Mutex<Result<BenchOutcome, any Error>?>(nil)
    let box = ResultBox(result: result, done: done)
    let thread = try WorkerThread("bench") {
        let outcome = Result { try bench.run(keepLogs: keepLogs) }
        box.result.withLock { $0 = outcome }
        box.done.signal()
    }
    let poller = try Poller()
    try poller.add(box.done.descriptor.rawValue, .readable, token: 0)
    try poller.add(signals.descriptor.rawValue, .readable, token: 1)
    var isInterrupted = false
    while box.result.withLock({ $0 == nil }) {
        try poller.wait(timeoutMilliseconds: 1000) { _, _ in }
        if signals.next() != nil, !isInterrupted {
            isInterrupted = true
            printError("farmem: interrupted; cleaning up")
            cancellation.cancel()
        }
    }
    thread.join()
    if isInterrupted { throw CommandFailure(.tryAgain, "interrupted; everything was cleaned up") }
    guard let outcome = box.result.withLock({ $0 }) else {
        throw CommandFailure(.bug, "the benchmark ended without a result")
    }
    return try outcome.get()
}

/// What the two threads share.
private final class ResultBox: Sendable {
    let result: Mutex<Result<BenchOutcome, any Error>?>
    let done: EventSignal
    init(
        result: consuming sending Mutex<Result<BenchOutcome, any Error>?>,
        done: consuming EventSignal
    ) {
        self.result = result
        self.done = done
    }
}
