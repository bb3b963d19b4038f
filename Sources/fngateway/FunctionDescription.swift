import CommandLineKit
import Containers
import FarMemory
import Gateway
import HTTPEndpoint
import JSONText
import LinuxSystem

/// What one function's container uses in each of its stages, measured on a container of its own.
struct FunctionDescription {
    var name: String
    var limit: ByteCount
    /// From the start of the container until its agent answers.
    var start = Nanoseconds.zero
    var initialization = Nanoseconds.zero
    /// Of each request: the first, and the others in order.
    var first = Nanoseconds.zero
    var others: [Nanoseconds] = []
    /// Anonymous memory when the runtime is up.
    var runtime = ByteCount.zero
    /// What initialization added to it.
    var initialized = ByteCount.zero
    /// What the first request left.
    var kept = ByteCount.zero
    /// The most that a later request had beside what was there before it.
    var execution = ByteCount.zero
    /// Anonymous memory that the last request used, whoever made it.
    var touched = ByteCount.zero
    /// Mapped files: the interpreter and libraries, in one copy for all containers.
    var files = ByteCount.zero
    /// The control group's most, files and /tmp included; nil where the kernel does not keep it.
    var peak: ByteCount?

    /// Runs the function once through all stages, and `requests` times.
    init(
        _ manifest: FunctionManifest, trial: FunctionTrial, group: MemoryGroup, requests: Int,
        startedAt: Int64
    ) throws {
        name = manifest.name
        limit = manifest.memory
        try trial.waitForRuntime()
        start = Nanoseconds(monotonicNow() - startedAt)
        runtime = try group.use().anonymous
        initialization = try Self.time { try trial.initialize() }
        let ready = try group.use().anonymous
        initialized = Self.difference(ready, runtime)
        first = try request(1, of: trial)
        kept = Self.difference(try group.use().anonymous, ready)
        for number in 2...requests {
            let isLast = number == requests
            // 5 starts the process's highest resident set anew, 1 forgets which pages it used.
            try writeKernelFile("/proc/\(trial.pid)/clear_refs", isLast ? "1" : "5")
            let before = try Self.field("VmRSS", of: trial.pid, in: "status")
            others.append(try request(number, of: trial))
            if isLast {
                touched = try Self.touchedAnonymous(of: trial.pid)
            } else {
                let highest = try Self.field("VmHWM", of: trial.pid, in: "status")
                execution = max(execution, Self.difference(highest, before))
            }
        }
        files = Self.difference(
            try Self.field("Rss", of: trial.pid, in: "smaps_rollup"),
            try Self.field("Anonymous", of: trial.pid, in: "smaps_rollup"))
        let file = group.version == .v1 ? "memory.max_usage_in_bytes" : "memory.peak"
        peak = (try? group.text(file)).flatMap { UInt64($0.prefix { $0.isNumber }) }
            .map { ByteCount($0) }
    }

    /// The median of the requests after the first.
    var median: Nanoseconds { others.sorted()[others.count / 2] }

    private func request(_ seed: Int, of trial: FunctionTrial) throws -> Nanoseconds {
        var response: HTTPResponse?
        let took = try Self.time { response = try trial.run(Array("{\"seed\":\(seed)}".utf8)) }
        guard let response, response.status == 200 else {
            throw CommandFailure(
                .checkFailed, "\(name) answered \(response?.status ?? 0): \(response?.text ?? "")")
        }
        return took
    }

    private static func time(_ body: () throws -> Void) rethrows -> Nanoseconds {
        let start = monotonicNow()
        try body()
        return Nanoseconds(monotonicNow() - start)
    }

    private static func difference(_ a: ByteCount, _ b: ByteCount) -> ByteCount {
        a > b ? a - b : .zero
    }

    private static func field(
        _ name: String, of pid: Int32, in file: String
    ) throws -> ByteCount {
        for line in try readSmallText("/proc/\(pid)/\(file)").split(separator: "\n") {
            if let bytes = kibibytes(line, name) { return bytes }
        }
        throw CommandFailure(.systemError, "/proc/\(pid)/\(file) has no \(name)")
    }

    /// `Referenced:    123 kB`
    private static func kibibytes(_ line: Substring, _ name: String) -> ByteCount? {
        guard line.hasPrefix("\(name):") else { return nil }
        let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
        guard words.count == 3, words[2] == "kB" else { return nil }
        return UInt64(words[1]).map { ByteCount($0 << 10) }
    }

    /// Pages used since `clear_refs`, in mappings that have anonymous pages and no others.
    private static func touchedAnonymous(of pid: Int32) throws -> ByteCount {
        var sum = ByteCount.zero
        var resident = ByteCount.zero
        var referenced = ByteCount.zero
        for line in try readSmallText("/proc/\(pid)/smaps", limit: 16 << 20)
            .split(separator: "\n")
        {
            if let bytes = kibibytes(line, "Rss") { resident = bytes }
            if let bytes = kibibytes(line, "Referenced") { referenced = bytes }
            if let bytes = kibibytes(line, "Anonymous"), bytes == resident { sum += referenced }
        }
        return sum
    }
}

extension FunctionDescription {
    static let columns: [TextTable.Column] = [
        .init("FUNCTION"), .right("RUNTIME"), .right("INIT"), .right("KEPT"), .right("EXECUTION"),
        .right("TOUCHED"), .right("FILES"), .right("PEAK"), .right("LIMIT"), .right("START ms"),
        .right("INIT ms"), .right("FIRST ms"), .right("MEDIAN ms"),
    ]

    var row: [String] {
        [name] + [runtime, initialized, kept, execution, touched, files].map(Self.mebibytes)
            + [peak.map(Self.mebibytes) ?? "-", fixed(Double(limit.bytes) / 1_048_576, 0)]
            + [start, initialization].map { fixed($0.seconds * 1000, 0) }
            + [first, median].map { fixed($0.seconds * 1000, 1) }
    }

    private static func mebibytes(_ size: ByteCount) -> String {
        fixed(Double(size.bytes) / 1_048_576, 1)
    }

    var json: JSONValue {
        [
            "function": JSONValue(name), "limit_bytes": JSONValue(limit.bytes),
            "runtime_bytes": JSONValue(runtime.bytes), "init_bytes": JSONValue(initialized.bytes),
            "kept_bytes": JSONValue(kept.bytes), "execution_bytes": JSONValue(execution.bytes),
            "touched_bytes": JSONValue(touched.bytes), "file_bytes": JSONValue(files.bytes),
            "peak_bytes": peak.map { JSONValue($0.bytes) } ?? .null,
            "start_ms": JSONValue(start.seconds * 1000),
            "init_ms": JSONValue(initialization.seconds * 1000),
            "first_ms": JSONValue(first.seconds * 1000),
            "median_ms": JSONValue(median.seconds * 1000),
            "request_ms": .array(others.map { JSONValue($0.seconds * 1000) }),
        ]
    }
}
