import Fabric
import FabricShm
import FarMemory
import Glibc
import HTTPEndpoint
import JSONText
import LinuxSystem
import PoolProtocol
import TestSupport
import Testing

/// Bytes sent to the control socket as they are.
private final class RawControl {
    private let socket: FileDescriptor

    init(_ server: Memserver) throws { socket = try connectUnix(server.socket) }

    func send(_ bytes: [UInt8]) throws {
        try unsafe bytes.withUnsafeBytes { try unsafe socket.send($0, descriptors: []) }
    }

    /// Sends a request and gives back the answer, with the descriptors that came along.
    func ask(_ message: ControlMessage) throws -> (ControlMessage, [Int32]) {
        try send(message.encoded(cookie: 1))
        var head = [UInt8](repeating: 0, count: FrameHeader.byteCount)
        var descriptors: [Int32] = []
        try receive(&head, &descriptors)
        let header = try FrameHeader.decode(head)
        var payload = [UInt8](repeating: 0, count: header.payloadLength)
        var more: [Int32] = []
        if !payload.isEmpty { try receive(&payload, &more) }
        return (try ControlMessage.decode(type: header.type, payload: payload), descriptors + more)
    }

    private func receive(_ bytes: inout [UInt8], _ descriptors: inout [Int32]) throws {
        try #require(try waitReady(socket.rawValue, .readable, timeout: 5_000_000_000))
        let count = bytes.count
        let got = try unsafe bytes.withUnsafeMutableBytes {
            try unsafe socket.receive(into: $0, descriptors: &descriptors, maximum: 3)
        }
        try #require(got == count)
    }

    /// Whether the server hangs up within the time.
    func isClosed(within seconds: Double) throws -> Bool {
        let deadline = monotonicNow() + Int64(seconds * 1e9)
        var byte: UInt8 = 0
        while monotonicNow() < deadline {
            guard try waitReady(socket.rawValue, .readable, timeout: deadline - monotonicNow())
            else { return false }
            if unsafe recv(socket.rawValue, &byte, 1, 0) <= 0 { return true }
        }
        return false
    }
}

private enum PoolTestProblem: Error { case unexpected(String) }

@Suite("memserver's pool, as a process", .serialized)
struct MemserverPoolTests {
    private static func word(_ page: Int, _ round: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: page &* 31 &+ round &* 7 | 1)
    }

    @Test("kill -9 under load and a restart lose no page")
    func killAndRestart() throws {
        let server = try Memserver()
        let user = try PageUser(server)
        var random = SeededRandom(seed: 4)
        var model: [Int: UInt8] = [:]
        for round in 0..<5 {
            for _ in 0..<400 {
                let page = random.below(1500)
                try user.store(page, Self.word(page, round))
                model[page] = Self.word(page, round)
            }
            try server.restartAfterKill()
            let start = monotonicNow()
            while user.fabric.state != .connected, monotonicNow() - start < 5_000_000_000 {
                sleepNanoseconds(1_000_000)
            }
            #expect(user.fabric.state == .connected)
            for (page, byte) in model {
                try #require(
                    user.load(page) == Array(repeating: byte, count: pageBytes), "page \(page)")
            }
        }
        user.fabric.close(releaseLease: false)
        let again = try PageUser(server)
        for (page, byte) in model {
            try #require(again.load(page) == Array(repeating: byte, count: pageBytes))
        }
        again.fabric.close(releaseLease: true)
        #expect(try server.status()["granted_bytes"]?.integer == 0)
    }

    @Test("Releasing a lease gives its memory back to the machine")
    func releaseFreesMemory() throws {
        let server = try Memserver()
        let user = try PageUser(server)
        for page in 0..<1024 { try user.store(page, 1) }
        let data = try FileDescriptor.open("\(server.pool)/lease-1.data", O_RDONLY)
        #expect(try data.allocatedBytes() == 4 << 20)
        #expect(try server.run(["lease", "release", "l"]).end == .exited(75), "it is in use")
        user.fabric.close(releaseLease: false)
        #expect(try !holders(of: "\(server.pool)/lease-", by: server.process.pid).isEmpty)
        let run = try server.run(["lease", "release", "l"])
        #expect(run.end == .exited(0), "\(run.error)")
        // The tmpfs has other users, so its free space tells nothing. The file has no block left, though it is
        // open here, and the server does not hold it.
        #expect(try data.allocatedBytes() == 0)
        #expect(try directoryEntries(server.pool).allSatisfy { !$0.hasPrefix("lease-") })
        #expect(try holders(of: "\(server.pool)/lease-", by: server.process.pid) == [])
        #expect(try server.run(["lease", "release", "l"]).end == .exited(64))
    }

    /// Mappings and descriptors of a process whose file's path begins like this.
    private func holders(of path: String, by pid: Int32) throws -> [String] {
        let maps = try readSmallText("/proc/\(pid)/maps", limit: 16 << 20).split(separator: "\n")
        let files = try directoryEntries("/proc/\(pid)/fd").compactMap {
            try? readLink("/proc/\(pid)/fd/\($0)")
        }
        return (maps.map(String.init) + files).filter { $0.contains(path) }
    }

    @Test("The grace period ends a lease without a client")
    func grace() throws {
        let server = try Memserver(["--grace", "400ms"])
        let user = try PageUser(server)
        try user.store(0, 1)
        sleepNanoseconds(800_000_000)
        #expect(try server.status()["leases"]?.array?.count == 1)
        user.fabric.close(releaseLease: false)
        let deadline = monotonicNow() + 5_000_000_000
        while try server.status()["leases"]?.array?.count != 0, monotonicNow() < deadline {
            sleepNanoseconds(20_000_000)
        }
        #expect(try server.status()["leases"]?.array?.count == 0)
        #expect(try server.status()["granted_bytes"]?.integer == 0)
    }

    @Test func leaseCommands() throws {
        let server = try Memserver()
        #expect(try server.run(["lease", "create", "web", "--size", "1MiB"]).end == .exited(0))
        #expect(try server.run(["lease", "create", "web", "--size", "1MiB"]).end == .exited(75))
        #expect(try server.run(["lease", "create", "a/b", "--size", "1MiB"]).end == .exited(64))
        let list = try server.run(["lease", "list", "--json"])
        let leases = try JSONValue.parse(Array(list.output.utf8))["leases"]?.array
        #expect(leases?.first?["name"]?.string == "web")
        #expect(try server.run(["status"]).output.contains("web"))
        let metrics = try HTTPClient(target: server.admin).request(
            "GET", "/metrics", timeout: .seconds(5))
        #expect(metrics.text.contains("farmem_pool_capacity_bytes 16777216"))
        #expect(try server.process.terminate() == .exited(0))
        #expect(try server.run(["status"]).end == .exited(69))
    }

    @Test("Wrong starts: one line, an exit status, nothing changed")
    func wrongStarts() throws {
        let server = try Memserver()
        let other = try TemporaryDirectory(inMemory: true)
        let disk = try TemporaryDirectory()
        let base = [
            "serve", "--shm", other.file("s"), "--admin", "unix:\(other.file("a"))", "--capacity",
        ]
        let onTmpfs = fileSystemIsTmpfs(disk.path)
        try replaceFile(disk.file("keys"), with: "alice\n")
        let cases: [([String], Int32)] = [
            (["16"], 64), (["16mb"], 64), (["0B"], 64), (["1MiB", "--slab", "3KiB"], 64),
            (["1MiB", "--rdma", "10.0.0.1:50000"], 64),
            (["1MiB", "--nbd", "tcp://0.0.0.0:10809"], 64),
            (["1MiB", "--pool", server.pool], 75),
            (["1MiB", "--pool", "/proc/farmem"], 64),
            (["9999GiB", "--pool", other.file("p")], 64),
            (["1MiB", "--auth-file", disk.file("keys")], 78),
            (["1MiB", "--auth-file", disk.file("none")], 78),
        ]
        for (arguments, status) in cases {
            let run = try TestProcess.run("memserver", base + arguments)
            #expect(run.end == .exited(status), "\(arguments): \(run.error)")
            #expect(run.error.hasPrefix("memserver: "), "\(run.error)")
            #expect(run.error.filter { $0 == "\n" }.count == 1, "\(run.error)")
        }
        if !onTmpfs {
            let run = try TestProcess.run(
                "memserver", base + ["1MiB", "--pool", disk.file("pool")])
            #expect(run.end == .exited(64) && run.error.contains("not on tmpfs"))
            #expect(!fileExists(disk.file("pool")))
        }
        #expect(try directoryEntries(other.path) == [])
    }

    private func fileSystemIsTmpfs(_ path: String) -> Bool {
        (try? fileSystemFacts(path))?.kind == .tmpfs
    }

    @Test func corruptManifest() throws {
        let server = try Memserver()
        _ = try server.run(["lease", "create", "web", "--size", "1MiB"])
        try server.process.kill()
        let text = try readSmallText("\(server.pool)/manifest")
        try replaceFile("\(server.pool)/manifest", with: text.replacing("web", with: "wob"))
        let run = try TestProcess.run(
            "memserver",
            [
                "serve", "--capacity", "16MiB", "--pool", server.pool, "--shm", server.socket,
                "--admin", "\(server.admin)",
            ])
        #expect(run.end == .exited(78))
        #expect(run.error.contains("checksum") && run.error.filter { $0 == "\n" }.count == 1)
        #expect(fileExists("\(server.pool)/lease-1.data"))
    }

    @Test("Malformed and slow control traffic harms nobody and grows nothing")
    func hostileTraffic() throws {
        let server = try Memserver()
        let user = try PageUser(server)
        try user.store(0, 9)
        let hello = ControlMessage.hello(versions: 1...1, features: 0, clientName: "x")
        var random = SeededRandom(seed: 8)
        func attack(_ count: Int) throws {
            for _ in 0..<count {
                let raw = try RawControl(server)
                var bytes = hello.encoded(cookie: 1)
                if random.chance(1, in: 2) {
                    bytes += ControlMessage.grant(SlabRange(first: 0, count: 4)).encoded(cookie: 2)
                }
                for _ in 0...random.below(4) {
                    bytes[random.below(bytes.count)] = UInt8(truncatingIfNeeded: random.next())
                }
                if random.chance(1, in: 4) { bytes.removeLast(random.below(bytes.count)) }
                do { try raw.send(bytes) } catch let error as SystemError {
                    // Turned away before it was heard: there is a limit to sessions.
                    try #require(error.code == EPIPE || error.code == ECONNRESET)
                }
            }
        }
        try attack(200)
        let before = try processMemory(server.process.pid, ["RssAnon:"])
        try attack(2000)
        let page = random.below(1000)
        try user.store(page, 3)
        #expect(try user.load(page) == Array(repeating: 3, count: pageBytes))
        #expect(try processMemory(server.process.pid, ["RssAnon:"]) < before + (2 << 20))
        let huge = try RawControl(server)
        try huge.send([0x46, 0x4D, 0x45, 0x4D, 1, 0, 1, 0, 0xFF, 0xFF, 0xFF, 0x7F, 0, 0, 0, 0])
        #expect(try huge.isClosed(within: 2))
        let slow = try RawControl(server)
        try slow.send(Array(hello.encoded(cookie: 1).prefix(7)))
        #expect(try slow.isClosed(within: 8))
        #expect(try server.process.wait(seconds: 0) == .running)
        user.fabric.close(releaseLease: true)
    }

    @Test("A client that cuts its own files short harms nobody else, not even after a restart")
    func truncatedFiles() throws {
        let server = try Memserver()
        let user = try PageUser(server, lease: "good")
        try user.store(0, 9)
        let raw = try RawControl(server)
        _ = try raw.ask(.hello(versions: 1...1, features: 0, clientName: "bad"))
        let (opened, descriptors) = try raw.ask(
            .open(leaseName: "bad", size: 64 << 20, flags: [.create]))
        guard case .opened = opened else { throw PoolTestProblem.unexpected("\(opened)") }
        let files = descriptors.map { Int32($0) }
        let slabs = SlabRange(first: 0, count: 8)
        #expect(try raw.ask(.grant(slabs)).0 == .granted(slabs))
        #expect(ftruncate(files[0], 0) == 0 && ftruncate(files[1], 0) == 0)
        #expect(ftruncate(files[2], 0) != 0, "grants can only be read")
        #expect(try raw.ask(.grant(SlabRange(first: 8, count: 8))).0 != .pong)
        #expect(try raw.ask(.returnSlabs(slabs)).0 == .ok)
        #expect(try raw.ask(.close).0 == .ok)
        for file in files { close(file) }
        #expect(try raw.isClosed(within: 5))
        try user.store(1, 8)
        try server.restartAfterKill()
        let deadline = monotonicNow() + 5_000_000_000
        while user.fabric.state != .connected, monotonicNow() < deadline {
            sleepNanoseconds(1_000_000)
        }
        #expect(try user.load(0) == Array(repeating: 9, count: pageBytes))
        try user.store(2000, 7)
        #expect(try server.run(["lease", "release", "bad"]).end == .exited(0))
        user.fabric.close(releaseLease: true)
    }

    @Test("Over TCP the admin API tells and changes nothing")
    func adminOverTCP() throws {
        let directory = try TemporaryDirectory(inMemory: true)
        // A port that was free a moment ago.
        let port = UInt16(try listenTCP("127.0.0.1", "0").localPort())
        let process = try TestProcess(
            "memserver",
            [
                "serve", "--capacity", "1MiB", "--shm", directory.file("s"), "--admin",
                "tcp://127.0.0.1:\(port)",
            ], ready: true)
        try process.waitReady()
        let client = HTTPClient(target: .tcp(host: "127.0.0.1", port: port))
        #expect(try client.request("GET", "/healthz", timeout: .seconds(5)).status == 200)
        let change = try client.request(
            "POST", "/v1/leases?name=a&size=1MiB", timeout: .seconds(5))
        #expect(change.status == 403)
        #expect(
            try client.request("DELETE", "/v1/leases/a", timeout: .seconds(5)).status == 403)
        #expect(process.standardError.contains("pool_ends_with_process"))
        #expect(try process.terminate() == .exited(0))
    }
}
