import FarMemory
import Glibc
import HTTPEndpoint
import JSONText
import LinuxSystem
import TestSupport
import Testing

/// What the tests of the offload controller stand on: a swap device of their own on a file on disk, a version 1
/// memory group, and a process in it whose pages they touch and verify.
final class OffloadWorld {
    static let group = "/farmem-test-\(getpid())"
    static let mount = "/sys/fs/cgroup/memory"

    let directory: TemporaryDirectory
    private var swapDevice: String?
    private var processes: [TestProcess] = []

    init() throws {
        directory = try TemporaryDirectory()
        try makeDirectories(Self.mount + Self.group)
        try attachSwap()
    }

    /// A file on disk behind a loop device with direct I/O: asynchronous, as far swap is. Never a file on tmpfs:
    /// its pages could be swapped to itself.
    private func attachSwap() throws {
        let file = directory.file("swap")
        try run("dd", ["if=/dev/zero", "of=\(file)", "bs=1M", "count=256", "status=none"])
        let device = try run(
            "losetup", ["--find", "--show", "--direct-io=on", file]
        ).split(separator: "\n").first
        guard let device else { throw TestFailure("losetup said nothing") }
        swapDevice = String(device)
        try run("mkswap", [String(device)])
        try run("swapon", ["-p", "600", String(device)])
    }

    @discardableResult
    func run(_ name: String, _ arguments: [String]) throws -> String {
        let path = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map { "\($0)/\(name)" }
            .first(where: fileExists)
        guard let path else { throw TestFailure("\(name) is not installed") }
        let process = try TestProcess(path, arguments)
        guard try process.wait(seconds: 60) == .exited(0) else {
            throw TestFailure("\(name): \(process.standardError)")
        }
        return process.standardOutput
    }

    /// Starts a process of `mebibytes` in the group; with `forks`, a child shares all of its pages.
    func startWorker(_ name: String, mebibytes: Int, forks: Bool = false) throws -> Worker {
        let worker = try Worker(
            socket: directory.file("\(name).sock"), mebibytes: mebibytes, forks: forks)
        processes.append(worker.process)
        return worker
    }

    /// Starts offloadd with delays that suit a test.
    func startController(
        _ more: [String] = [], drainPercent: Int = 100, environment: [String: String] = [:]
    ) throws -> TestProcess {
        let process = try TestProcess(
            "offloadd",
            [
                "run", "--listen", "unix:\(directory.file("offloadd.sock"))", "--state-dir",
                directory.file("state"), "--semi-warm-prior", "1s", "--semi-warm-min", "1s",
                "--floor", "4MiB", "--recycle-guard", "0s",
                "--pressure-max", "1", "--far-reserve", "1MiB", "--log-level", "debug",
                "--drain-percent", "\(drainPercent)",
            ] + more, environment: environment, ready: true)
        processes.append(process)
        try process.waitReady()
        return process
    }

    func client() -> HTTPClient {
        HTTPClient(target: .unix(path: directory.file("offloadd.sock")))
    }

    func send(_ event: String, _ extra: String = "") throws {
        let body =
            #"{"event":"\#(event)","container":"w","function":"f","cgroup":"\#(Self.group)"\#(extra)}"#
        let response = try client().request(
            "POST", "/v1/events", body: Array(body.utf8), timeout: .seconds(5))
        guard response.status == 204 else { throw TestFailure("\(event): \(response.text)") }
    }

    /// A request that touches so many pages of the worker, from the first on, and finds what they held.
    func request(_ worker: Worker, touching pages: Int) throws {
        try send("request_start")
        #expect(try worker.touch(first: 0, count: pages) == 0)
        try send("request_end")
    }

    func get(_ path: String) throws -> JSONValue {
        try JSONValue.parse(try client().request("GET", path, timeout: .seconds(5)).body)
    }

    /// The container as the controller reports it.
    func container() throws -> JSONValue? { try get("/v1/containers")["containers"]?[0] }

    /// How many examinations of at least so many bytes have been reported.
    func examinations(of bytes: Int) throws -> Int {
        try get("/v1/events")["events"]?.array?.count {
            $0["action"]?.string?.hasPrefix("examine") == true
                && ($0["written_bytes"]?.integer ?? 0) >= bytes
        } ?? 0
    }

    /// Requests to read from the swap device so far, and pages that they read.
    func swapReads() throws -> (requests: Int, pages: Int) {
        let name = swapDevice?.split(separator: "/").last ?? ""
        // Documentation/block/stat.rst: reads completed, merged, sectors.
        let fields = try readSmallText("/sys/block/\(name)/stat").split(separator: " ")
            .compactMap { Int($0) }
        guard fields.count > 2 else { throw TestFailure("no statistics of \(name)") }
        return (fields[0], fields[2] / 8)
    }

    func limit() throws -> String {
        try readSmallText("\(Self.mount)\(Self.group)/memory.limit_in_bytes")
    }

    /// Waits for a condition, at most `seconds`.
    func wait(_ seconds: Double, _ what: String, _ condition: () throws -> Bool) throws {
        let deadline = monotonicNow() + Int64(seconds * 1e9)
        while monotonicNow() < deadline {
            if try condition() { return }
            sleepNanoseconds(20_000_000)
        }
        let state = (try? container()).flatMap { $0?.rendered() } ?? "no container"
        throw TestFailure("not within \(seconds) s: \(what); \(state)")
    }

    /// Ends everything in the order in which it depends on each other.
    func tearDown() {
        for process in processes.reversed() { _ = try? process.kill() }
        for pid in (try? readSmallText("\(Self.mount)\(Self.group)/cgroup.procs"))?
            .split(separator: "\n").compactMap({ Int32($0) }) ?? []
        {
            Glibc.kill(pid, SIGKILL)
        }
        if let swapDevice {
            _ = try? run("swapoff", [swapDevice])
            _ = try? run("losetup", ["--detach", swapDevice])
        }
        for _ in 0..<100 where unsafe rmdir(Self.mount + Self.group) != 0 {
            sleepNanoseconds(20_000_000)
        }
    }
}

struct TestFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// A Python process that holds pages with known content and touches those it is asked to.
final class Worker {
    let process: TestProcess
    private let socket: String

    private static let program = """
        import os, socket, sys
        path, size, forks = sys.argv[1], int(sys.argv[2]) << 20, sys.argv[3] == "1"
        open(sys.argv[4] + "/cgroup.procs", "w").write(str(os.getpid()))
        block = os.urandom(4088)
        data = bytearray(size)
        for page in range(size // 4096):
            data[page * 4096:page * 4096 + 4096] = page.to_bytes(8, "little") + block
        if forks and os.fork() == 0:
            import time
            time.sleep(600)
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen(8)
        while True:
            peer, _ = server.accept()
            first, count, written = map(int, peer.recv(64).split())
            wrong = 0
            # The last byte of every so many pages is what it was: a write, and the first access to those pages.
            for page in range(first, first + count, written) if written else []:
                data[page * 4096 + 4095:page * 4096 + 4096] = block[-1:]
            for page in range(first, first + count):
                if data[page * 4096:page * 4096 + 4096] != page.to_bytes(8, "little") + block:
                    wrong += 1
            peer.sendall(str(wrong).encode())
            peer.close()
        """

    init(socket: String, mebibytes: Int, forks: Bool) throws {
        self.socket = socket
        process = try TestProcess(
            "/usr/bin/python3",
            [
                "-c", Self.program, socket, "\(mebibytes)", forks ? "1" : "0",
                OffloadWorld.mount + OffloadWorld.group,
            ])
        let deadline = monotonicNow() + 20_000_000_000
        while !fileExists(socket) {
            guard monotonicNow() < deadline else {
                throw TestFailure("the worker did not start: \(process.standardError)")
            }
            sleepNanoseconds(10_000_000)
        }
    }

    /// Reads and verifies pages; the number of wrong ones. With `writingEach`, the first access to one in so many is a write.
    func touch(first: Int, count: Int, writingEach step: Int = 0) throws -> Int {
        let connection = try connectUnix(socket)
        try connection.setSocketTimeouts(receive: 20_000_000_000, send: 5_000_000_000)
        try connection.writeAll("\(first) \(count) \(step)")
        let answer = try readAll(connection, limit: 64, named: "worker")
        guard let wrong = Int(String(decoding: answer, as: UTF8.self)) else {
            throw TestFailure("the worker did not answer")
        }
        return wrong
    }

    /// Faults of the process that had to read a page back.
    func majorFaults() throws -> Int {
        let stat = try readSmallText("/proc/\(process.pid)/stat")
        // proc(5): the 12th field; the third follows the name.
        guard let close = stat.lastIndex(of: ")"),
            let faults = Int(stat[stat.index(after: close)...].split(separator: " ")[9])
        else { throw TestFailure("no major faults in \(stat)") }
        return faults
    }

    /// Memory of the process that is in swap, in KiB.
    func swapped() throws -> Int {
        for line in try readSmallText("/proc/\(process.pid)/status").split(separator: "\n")
        where line.hasPrefix("VmSwap:") {
            return Int(line.split(separator: " ", omittingEmptySubsequences: true)[1]) ?? 0
        }
        return 0
    }
}
