import CommandLineKit
import Glibc
import JSONText
import LinuxSystem
import OffloadPolicy

let replayCommand = Command(
    name: "replay", summary: "ask the policy again what a record of offloadd says, and compare",
    discussion: """
        Reads what `offloadd run --record FILE` wrote, asks the same policy with the same settings at the same moments, and compares \
        each decision: live and simulated must be the same. Exit status 1 names the first line that differs.
        """,
    options: [.json], positionals: [Positional("file", help: "The record.")],
    examples: [("farmem replay /tmp/policy.record", "Compare a run with itself.")],
    configurable: false
) { invocation in
    let path = invocation.positional("file")
    var replay = PolicyReplay()
    try readLines(path) { replay.take($0) }
    _ = replay.end()
    if invocation.flag("json") {
        let result: JSONValue = [
            "schema": 1, "file": JSONValue(path), "same": JSONValue(replay.fault == nil),
            "events": JSONValue(UInt64(replay.events)), "ticks": JSONValue(UInt64(replay.ticks)),
            "decisions": JSONValue(UInt64(replay.decisions)),
            "line": replay.fault.map { JSONValue(UInt64($0.line)) } ?? .null,
            "fault": JSONValue(replay.fault?.text),
        ]
        printOut(result.rendered() + "\n")
        return replay.fault == nil ? .done : .checkFailed
    }
    if let fault = replay.fault {
        throw CommandFailure(.checkFailed, "\(path):\(fault.line): \(fault.text)")
    }
    printOut(
        "\(path): \(replay.events) events, \(replay.ticks) ticks, \(replay.decisions) decisions: the same\n"
    )
    return .done
}

/// Gives each line of a file to `take`, until that returns false, in memory that does not depend on the file's length. What is behind the
/// last line's end is none: the daemon was writing it.
private func readLines(_ path: String, _ take: (String) -> Bool) throws {
    let file = try FileDescriptor.open(path, O_RDONLY)
    var chunk = [UInt8](repeating: 0, count: 256 << 10)
    var rest: [UInt8] = []
    while true {
        let count = try unsafe chunk.withUnsafeMutableBytes {
            try unsafe file.read(into: $0)
        }
        guard count > 0 else { return }
        rest += chunk[..<count]
        var start = 0
        while let end = rest[start...].firstIndex(of: 0x0A) {
            guard take(String(decoding: rest[start..<end], as: UTF8.self)) else { return }
            start = end + 1
        }
        rest.removeFirst(start)
        guard rest.count < 1 << 20 else {
            throw CommandFailure(.checkFailed, "\(path): a line is longer than 1 MiB")
        }
    }
}
