import Fabric
import FabricShm
import FarMemory
import Glibc
import HTTPEndpoint
import JSONText
import LinuxSystem
import TestSupport

/// A memserver process on a pool of its own.
final class Memserver {
    let directory: TemporaryDirectory
    private(set) var process: TestProcess
    private let arguments: [String]

    var socket: String { directory.file("s") }
    var admin: Endpoint { .unix(path: directory.file("a")) }
    var pool: String { directory.file("pool") }
    /// Where NBD is served, with `NBDListeners.unix`.
    var nbdSocket: String { directory.file("n") }

    enum NBDListeners { case none, unix, unixAndTCP }

    init(
        _ more: [String] = [], capacity: String = "16MiB", slab: String = "64KiB",
        nbd: NBDListeners = .none
    ) throws {
        directory = try TemporaryDirectory(inMemory: true)
        var arguments = [
            "serve", "--capacity", capacity, "--slab", slab, "--pool",
            directory.file("pool"), "--shm", directory.file("s"), "--admin",
            "unix:\(directory.file("a"))",
        ]
        if nbd != .none { arguments += ["--nbd", "unix:\(directory.file("n"))"] }
        if nbd == .unixAndTCP { arguments += ["--nbd", "tcp://127.0.0.1:0"] }
        self.arguments = arguments + more
        process = try TestProcess("memserver", self.arguments, ready: true)
        try process.waitReady()
    }

    func restartAfterKill() throws {
        try process.kill()
        process = try TestProcess("memserver", arguments, ready: true)
        try process.waitReady()
    }

    func run(_ words: [String]) throws -> (end: ChildEnd, output: String, error: String) {
        try TestProcess.run("memserver", words + ["--admin", "\(admin)"])
    }

    func status() throws -> JSONValue {
        let response = try HTTPClient(target: admin).request(
            "GET", "/v1/status", timeout: .seconds(5))
        return try JSONValue.parse(response.body)
    }

    /// The port that the kernel chose for the listener on 127.0.0.1.
    func nbdPort() throws -> String {
        let prefix = "nbd:tcp://127.0.0.1:"
        for listener in try status()["listeners"]?.array ?? [] {
            if let text = listener.string, text.hasPrefix(prefix) {
                return String(text.dropFirst(prefix.count))
            }
        }
        throw MemserverProblem(description: "it does not listen on TCP")
    }

    /// Anonymous memory and file pages of the process; pages of the pool are neither, they are shared memory.
    func privateBytes() throws -> Int { try processMemory(process.pid, ["RssAnon:", "RssFile:"]) }

    /// A line of its log that has all these words; waits for it, for it may come after the client's end.
    func hasLogged(_ words: String..., within seconds: Double = 5) -> Bool {
        let deadline = monotonicNow() + Int64(seconds * 1e9)
        while true {
            for line in process.standardError.split(separator: "\n")
            where words.allSatisfy({ line.contains($0) }) { return true }
            if monotonicNow() > deadline { return false }
            sleepNanoseconds(10_000_000)
        }
    }
}

struct MemserverProblem: Error { let description: String }

/// The sum of lines of /proc/PID/status, in bytes.
func processMemory(_ pid: Int32, _ names: [String]) throws -> Int {
    let text = try readSmallText("/proc/\(pid)/status")
    return text.split(separator: "\n").reduce(0) { sum, line in
        let words = line.split(whereSeparator: { $0 == "\t" || $0 == " " })
        guard words.count > 1, names.contains(String(words[0])) else { return sum }
        return sum + (Int(words[1]) ?? 0) << 10
    }
}

/// One page stored or loaded through a fabric.
@safe struct PageUser {
    let fabric: FabricShm
    let channel: any FabricChannel
    private let buffer: UnsafeMutableRawPointer

    init(_ server: Memserver, lease: String = "l", size: ByteCount = .mib(8)) throws {
        fabric = try FabricShm.connect(
            socket: server.socket, leaseName: lease, size: size, key: nil)
        channel = try fabric.makeChannel()
        unsafe buffer = .allocate(byteCount: pageBytes, alignment: pageBytes)
    }

    func store(_ page: Int, _ byte: UInt8) throws(FabricError) {
        unsafe memset(buffer, Int32(byte), pageBytes)
        try unsafe channel.store(
            PageRange(first: UInt64(page), count: 1), from: UnsafeRawPointer(buffer),
            deadline: monotonicNow() + 5_000_000_000)
    }

    func load(_ page: Int) throws(FabricError) -> [UInt8] {
        var vector = unsafe iovec()
        _ = try unsafe channel.load(
            PageRange(first: UInt64(page), count: 1), staging: buffer, vectors: &vector,
            deadline: monotonicNow() + 5_000_000_000)
        return unsafe Array(UnsafeRawBufferPointer(start: vector.iov_base, count: pageBytes))
    }
}
