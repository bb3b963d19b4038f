import CommandLineKit
import FarMemory
import Glibc
import JSONText
import LinuxSystem
import Measurement
import Synchronization
import WorkloadTrace

/// The functions of this repository from short to long running: the order in which traces are mapped onto them.
private let knownFunctions = [
    "web", "float", "chameleon", "gzip", "pyaes", "linpack", "image", "json", "matmul", "bert",
    "graph",
]
/// What runs unless --functions says otherwise: five kinds of memory in little time.
private let defaultFunctions = ["web", "float", "image", "json", "graph"]

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
        and with it the keep-alive time and the controller's delays.

        Exit status 1 means a wrong or missing response.
        """,
    options: [
        Option("trace", .string, placeholder: "FILE|DIR", help: "Azure Functions trace to replay."),
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

/// What the command line asks for.
struct FunctionBenchSettings: Sendable {
    var trace: String?
    var speedup: Int
    var seed: UInt64
    var duration: Nanoseconds
    var warmUp: Nanoseconds
    var start: Nanoseconds
    var functions: [String]
    var traceFunctions: Int
    var rateMax: Int
    var keepAlive: Nanoseconds
    var farSize: ByteCount
    var farMemory: String?
    /// More words for `farswap attach`.
    var attachOptions: [String]
    var functionsDirectory: String
    var logLevel: String

    /// Different requests of each function: each is verified against its first answer.
    static let seedsPerFunction = 8

    init(_ invocation: Invocation) throws {
        trace = invocation.stringIfSet("trace")
        speedup = invocation.integer("speedup")
        seed = UInt64(invocation.integer("seed"))
        duration = invocation.duration("duration")
        warmUp = min(invocation.duration("warm-up"), Nanoseconds(duration.nanoseconds / 2))
        start = invocation.duration("start")
        traceFunctions = invocation.integer("trace-functions")
        rateMax = invocation.integer("rate-max")
        keepAlive = invocation.duration("keep-alive")
        farSize = invocation.size("far-size")
        farMemory = invocation.stringIfSet("far-memory")
        attachOptions = ["--frontend", invocation.string("frontend")]
        if let file = invocation.stringIfSet("auth-file") {
            attachOptions += ["--auth-file", file]
        }
        functionsDirectory = invocation.string("functions-dir")
        logLevel = invocation.string("log-level")
        functions = defaultFunctions
        if let list = invocation.stringIfSet("functions") {
            let names = list.split(separator: ",").map(String.init)
            for name in names where !knownFunctions.contains(name) {
                throw UsageError(
                    "--functions: '\(name)' is none of \(knownFunctions.joined(separator: ", "))")
            }
            functions = knownFunctions.filter { names.contains($0) }
        }
        guard !functions.isEmpty, duration >= .seconds(5) else {
            throw UsageError("give at least one function and a duration of 5s or more")
        }
    }

    /// A length of the trace's time in real time.
    func compressed(_ length: Nanoseconds) -> Nanoseconds {
        Nanoseconds(max(1, length.nanoseconds / Int64(speedup)))
    }

    func loadTrace() throws -> WorkloadTrace {
        let length = Nanoseconds(duration.nanoseconds * Int64(speedup))
        guard let trace else {
            return .generated(seed: seed, functions: traceFunctions, length: length)
        }
        let window = TraceWindow(
            start: start, length: length, functionsMax: traceFunctions,
            invocationsMax: max(1, Int(duration.seconds * Double(rateMax))), seed: seed)
        do throws(TraceError) {
            return try WorkloadTrace.load(trace, window: window)
        } catch {
            throw CommandFailure(.usage, error.description)
        }
    }
}

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
    let trace = try settings.loadTrace()
    let schedule = RequestSchedule(
        trace: trace, functions: settings.functions,
        seedsPerFunction: FunctionBenchSettings.seedsPerFunction,
        speedup: Double(settings.speedup), seed: settings.seed)
    guard !schedule.requests.isEmpty else {
        throw CommandFailure(
            .usage,
            "\(trace.source) has no invocation in this part; give another --start or a longer --duration"
        )
    }
    let cancellation = Cancellation()
    let bench = FunctionBench(
        settings: settings, trace: trace, schedule: schedule, cancellation: cancellation)
    let outcome = try runToEnd(bench, cancellation, signals, keepLogs: invocation.flag("keep-logs"))
    let report = FunctionBenchReport(
        settings: settings, trace: trace, schedule: schedule, comparison: outcome)
    printOut(report.text())
    if let file = invocation.stringIfSet("json") {
        try replaceFile(file, with: report.json().rendered(pretty: true))
    }
    return outcome.wrong + outcome.failed == 0 ? .done : .checkFailed
}

/// Runs the benchmark on a thread of its own, so that this one can take signals: then the work is cancelled, cleaned up, and said so.
private func runToEnd(
    _ bench: FunctionBench, _ cancellation: Cancellation, _ signals: borrowing SignalEvents,
    keepLogs: Bool
) throws -> FunctionComparison {
    let done = try EventSignal()
    let result = Mutex<Result<FunctionComparison, any Error>?>(nil)
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
    let result: Mutex<Result<FunctionComparison, any Error>?>
    let done: EventSignal
    init(
        result: consuming sending Mutex<Result<FunctionComparison, any Error>?>,
        done: consuming EventSignal
    ) {
        self.result = result
        self.done = done
    }
}
