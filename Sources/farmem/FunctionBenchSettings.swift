import CommandLineKit
import FarMemory
import LinuxSystem
import Measurement
import WorkloadTrace

/// The functions of this repository from short to long running: the order in which traces are mapped onto them.
let knownFunctions = [
    "web", "float", "chameleon", "gzip", "pyaes", "linpack", "image", "json", "matmul", "bert",
    "graph",
]
/// What runs unless --functions says otherwise: five kinds of memory in little time.
let defaultFunctions = ["web", "float", "image", "json", "graph"]

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
    var schedule: String?
    /// The reference first.
    var variants: [PolicyVariant]
    /// Asked for by --policies: each policy's figures, not the two-sided table.
    var comparesPolicies: Bool
    var repetitions: Int
    var timeline: Nanoseconds
    var sampleInterval: Nanoseconds
    var memoryLimit: ByteCount?
    var containersMax: Int

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
        schedule = invocation.stringIfSet("schedule")
        comparesPolicies = invocation.isGiven("policies")
        variants = try PolicyVariant.parse(
            policies: invocation.stringIfSet("policies") ?? "none,farmem",
            variants: invocation.strings("variant"),
            options: invocation.strings("offload-option"),
            withReference: !invocation.flag("without-reference"))
        repetitions = invocation.integer("repetitions")
        timeline = invocation.duration("timeline")
        sampleInterval = invocation.duration("sample-interval")
        memoryLimit = invocation.sizeIfSet("memory-limit")
        containersMax = invocation.integer("containers-max")
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
        guard comparesPolicies || (repetitions == 1 && !invocation.flag("without-reference"))
        else {
            throw UsageError("--repetitions and --without-reference need --policies")
        }
        guard timeline >= .milliseconds(50), sampleInterval >= .milliseconds(50) else {
            throw UsageError("--timeline and --sample-interval must be at least 50ms")
        }
        guard schedule == nil || (trace == nil && !invocation.isGiven("functions")) else {
            throw UsageError(
                "--schedule names its functions itself: leave out --trace and --functions")
        }
    }

    /// A length of the trace's time in real time.
    func compressed(_ length: Nanoseconds) -> Nanoseconds {
        Nanoseconds(max(1, length.nanoseconds / Int64(speedup)))
    }

    /// The requests, from the schedule's file or a trace.
    func loadWork() throws -> BenchWork {
        guard let schedule else {
            let trace = try loadTrace()
            return BenchWork(
                source: trace.source, traceFunctions: trace.functions.count, notes: trace.notes,
                schedule: RequestSchedule(
                    trace: trace, functions: functions,
                    seedsPerFunction: Self.seedsPerFunction, speedup: Double(speedup), seed: seed))
        }
        let length = Nanoseconds(duration.nanoseconds * Int64(speedup))
        let requests: RequestSchedule
        do throws(TraceError) {
            requests = try .load(
                schedule, seedsPerFunction: Self.seedsPerFunction, speedup: Double(speedup),
                length: length, seed: seed)
        } catch {
            throw CommandFailure(.usage, error.description)
        }
        for name in requests.functions
        where !fileExists("\(functionsDirectory)/\(name)/manifest.json") {
            throw CommandFailure(
                .usage, "\(schedule): there is no function '\(name)' in \(functionsDirectory)")
        }
        return BenchWork(
            source: schedule, traceFunctions: requests.functions.count, notes: [],
            schedule: requests)
    }

    private func loadTrace() throws -> WorkloadTrace {
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

/// What is replayed, and where it is from.
struct BenchWork: Sendable {
    var source: String
    /// How many functions of the trace were mapped onto ours.
    var traceFunctions: Int
    var notes: [String]
    var schedule: RequestSchedule
}
