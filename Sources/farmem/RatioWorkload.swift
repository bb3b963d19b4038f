import CommandLineKit
import FarMemory
import Glibc
import LinuxSystem

/// A program for `farmem bench ratio`, and how its result is judged.
struct RatioWorkload: Sendable {
    enum Result: Sendable {
        /// `SECONDS WRONG DIGEST`: nothing wrong, and the digest of the first run.
        case checksItself
        /// What the first run printed.
        case same
        case any
    }

    var name: String
    var command: [String]
    var result: Result

    /// Those of the directory workloads, in the order of the table of Fastswap's.
    static let names = ["sort", "kmeans", "linpack", "stream", "map", "pagerank", "inference"]
    private static let numeric: Set<String> = ["linpack", "inference"]
    private static let buildTimeout: Int64 = 60_000_000_000

    /// The named workloads, ready to run; what has to be compiled goes to `directory`.
    static func build(
        _ names: [String], size: ByteCount, source: String, directory: String
    ) throws -> [RatioWorkload] {
        let mebibytes = Int(size.bytes >> 20)
        guard mebibytes >= 4 else { throw UsageError("--size: give at least 4MiB") }
        for file in ["workload.c", "numeric.py"] where !fileExists("\(source)/\(file)") {
            throw UsageError(
                "\(source)/\(file) does not exist; run in the source directory or give --workloads-dir"
            )
        }
        let program = "\(directory)/workload"
        if !names.allSatisfy(numeric.contains) {
            try compile("\(source)/workload.c", to: program)
        }
        return names.map { name in
            let words =
                numeric.contains(name)
                ? ["/usr/bin/python3", "-B", "\(source)/numeric.py"] : [program]
            return RatioWorkload(
                name: name, command: words + [name, "\(mebibytes)"], result: .checksItself)
        }
    }

    private static func compile(_ source: String, to program: String) throws {
        let child = try ChildProcess(
            "/bin/sh", ["sh", "-c", "exec cc -O2 -static -o \"$0\" \"$1\"", program, source],
            descriptors: [(2, 1), (2, 2)], newSession: true, diesWithParent: true)
        var end = try child.wait(timeout: buildTimeout)
        if end == .running {
            try child.signal(SIGKILL)
            end = try child.wait(timeout: 5_000_000_000)
        }
        guard end == .exited(0) else {
            throw CommandFailure(.systemError, "cc did not compile \(source); run tools/setup")
        }
    }

    /// Why a result is not right; nil when it is.
    func fault(of output: [UInt8], reference: [UInt8]) -> String? {
        switch result {
        case .any: return nil
        case .same: return output == reference ? nil : "another output"
        case .checksItself:
            guard let words = Self.words(output), let first = Self.words(reference) else {
                return "no result"
            }
            if words[1] != "0" { return "\(words[1]) wrong" }
            return words[2] == first[2] ? nil : "another result"
        }
    }

    private static func words(_ output: [UInt8]) -> [Substring]? {
        let words = String(decoding: output, as: UTF8.self)
            .split(whereSeparator: { $0 == " " || $0 == "\n" })
        return words.count == 3 ? words : nil
    }

    /// The seconds of the work alone, where the program says them.
    func work(of output: [UInt8]) -> Double? {
        result == .checksItself ? Self.words(output).flatMap { Double($0[0]) } : nil
    }
}
