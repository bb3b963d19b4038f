import CLinuxShims
import Fabric
import FabricNBD
import FarMemory
import Glibc
import LinuxSystem
import MemoryServer
import PoolProtocol
import Telemetry
import TestSupport
import Testing

private func soon(_ seconds: Double = 10) -> Int64 { monotonicNow() + Int64(seconds * 1e9) }

/// An export of 16 MiB on a unix socket, by one of the servers that the fabric must work with.
private final class AnyServer {
    enum Kind: String, CaseIterable, Sendable { case memserver, nbdkit, qemuNBD }

    let uri: NBDURI
    private let scratch: ServedScratch?
    private let process: TestProcess?
    private let directory: TemporaryDirectory

    init(_ kind: Kind) throws {
        directory = try TemporaryDirectory()
        let path = directory.file("n")
        switch kind {
        case .memserver:
            scratch = try ServedScratch()
            process = nil
        case .nbdkit:
            scratch = nil
            process = try TestProcess(
                "/usr/bin/nbdkit", ["-f", "-U", path, "memory", "16M"])
        case .qemuNBD:
            scratch = nil
            let image = directory.file("image")
            let file = try FileDescriptor.open(image, O_RDWR | O_CREAT)
            try file.truncate(to: 16 << 20)
            process = try TestProcess(
                "/usr/bin/qemu-nbd",
                ["-k", path, "-f", "raw", "-t", "-e", "8", "--discard=unmap", "-x", "x", image])
        }
        let socket = scratch?.path ?? path
        uri = NBDURI(endpoint: .unix(path: socket), export: kind == .nbdkit ? "" : "x")
        let deadline = soon()
        while (try? connectUnix(socket)) == nil {
            guard monotonicNow() < deadline else {
                throw SystemError(call: "connect", code: ETIMEDOUT)
            }
            sleepNanoseconds(10_000_000)
        }
    }
}

/// A channel with a page-aligned staging area, as a swap device has it.
@safe private final class Caller {
    let channel: any FabricChannel
    let staging: MemoryMapping
    private let vectors = UnsafeMutablePointer<iovec>.allocate(capacity: 1024)

    init(_ fabric: FabricNBD) throws {
        channel = try fabric.makeChannel()
        staging = try MemoryMapping(anonymous: 1024 * pageBytes, populate: true)
    }

    deinit { unsafe vectors.deallocate() }

    func store(_ first: UInt64, _ bytes: [UInt8], deadline: Int64 = soon()) throws {
        unsafe staging.bytes.copyBytes(from: bytes)
        try store(first, pages: bytes.count / pageBytes, deadline: deadline)
    }

    func store(_ first: UInt64, pages: Int, deadline: Int64) throws(FabricError) {
        unsafe try channel.store(
            PageRange(first: first, count: pages), from: staging.base, deadline: deadline)
    }

    func load(_ first: UInt64, pages: Int, deadline: Int64) throws(FabricError) -> Int {
        unsafe try channel.load(
            PageRange(first: first, count: pages), staging: staging.base, vectors: vectors,
            deadline: deadline)
    }

    func load(_ first: UInt64, _ pages: Int, deadline: Int64 = soon()) throws -> [UInt8] {
        let filled = try load(first, pages: pages, deadline: deadline)
        var bytes: [UInt8] = []
        for index in 0..<filled {
            let vector = unsafe vectors[index]
            unsafe bytes += UnsafeRawBufferPointer(start: vector.iov_base, count: vector.iov_len)
        }
        return bytes
    }
}

@Suite(
    .enabled(
        if: Capability.all([.command("nbdkit"), .command("qemu-nbd")]).isUsable,
        "\(Capability.all([.command("nbdkit"), .command("qemu-nbd")]).reason)"))
struct FabricNBDTests {
    @Test(arguments: AnyServer.Kind.allCases)
    fileprivate func pagesComeBackFromAnyServer(kind: AnyServer.Kind) throws {
        let server = try AnyServer(kind)
        let fabric = try FabricNBD(server.uri, deadline: soon())
        #expect(fabric.size == .mib(16) && fabric.state == .connected)
        let callers = try [Caller(fabric), Caller(fabric)]
        let seed = TestSeed(filter: "FabricNBDTests")
        var random = seed.random
        var model = [UInt8](repeating: 0, count: 16 << 20)
        for step in 0..<300 {
            let caller = callers[step % 2]
            let pages = 1 + random.below(64)
            let first = random.below(4096 - pages)
            let range = first * pageBytes..<(first + pages) * pageBytes
            switch random.below(4) {
            case 0:
                try caller.channel.discard(
                    PageRange(first: UInt64(first), count: pages), deadline: soon())
                model.replaceSubrange(range, with: repeatElement(0, count: range.count))
            case 1:
                let bytes = random.bytes(range.count)
                try caller.store(UInt64(first), bytes)
                model.replaceSubrange(range, with: bytes)
            default:
                #expect(try caller.load(UInt64(first), pages) == Array(model[range]), "\(seed)")
            }
        }
        fabric.close(releaseLease: false)
        #expect(throws: FabricError.unreachable) { try callers[0].load(0, 1) }
    }

    @Test func rangesOutsideAreRefusedHere() throws {
        let server = try AnyServer(.memserver)
        let fabric = try FabricNBD(server.uri, deadline: soon())
        let caller = try Caller(fabric)
        #expect(throws: FabricError.outOfRange) { try caller.load(4096, 1) }
        #expect(throws: FabricError.outOfRange) { try caller.load(4095, 2) }
        #expect(throws: FabricError.outOfRange) { try caller.load(.max, 2) }
    }

    @Test func aFullPoolSaysSo() throws {
        let served = try ServedScratch(mebibytes: 16, capacity: 1)
        let fabric = try FabricNBD(
            NBDURI(endpoint: .unix(path: served.path), export: "x"), deadline: soon())
        let caller = try Caller(fabric)
        try caller.store(0, [UInt8](repeating: 1, count: pageBytes))
        #expect(throws: FabricError.noSpace) {
            try caller.store(1024, [UInt8](repeating: 1, count: pageBytes))
        }
        #expect(fabric.counters.refusedNoSpace == 1)
        #expect(try caller.load(0, 1) == [UInt8](repeating: 1, count: pageBytes))
    }

    @Test func aServerThatComesBackIsUsedAgain() throws {
        let exports = try ScratchExports(mebibytes: 16)
        let directory = try TemporaryDirectory()
        let path = directory.file("s")
        let first = try Listening(path, exports)
        let fabric = try FabricNBD(
            NBDURI(endpoint: .unix(path: path), export: "x"), deadline: soon())
        let caller = try Caller(fabric)
        try caller.store(5, [UInt8](repeating: 3, count: pageBytes))
        first.stop()
        #expect(throws: FabricError.unreachable) {
            try caller.load(5, 1, deadline: soon(0.3))
        }
        #expect(fabric.state == .reconnecting)
        let second = try Listening(path, exports)
        #expect(try caller.load(5, 1) == [UInt8](repeating: 3, count: pageBytes))
        #expect(fabric.counters.reconnects == 1 && fabric.state == .connected)
        second.stop()
        // The same name with other pages behind it is not the lease: zeros would be a lie.
        let other = try ScratchExports(mebibytes: 16, epoch: 78)
        let third = try Listening(path, other)
        #expect(throws: FabricError.leaseLost) { try caller.load(5, 1) }
        #expect(fabric.state == .lost)
        third.stop()
    }

    @Test func deadlinesHoldAndTheConnectionIsReplaced() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("n")
        // Every read takes this long.
        let process = try TestProcess(
            "/usr/bin/nbdkit",
            ["-f", "-U", path, "--filter=delay", "memory", "16M", "rdelay=400ms"])
        while (try? connectUnix(path)) == nil { sleepNanoseconds(10_000_000) }
        let fabric = try FabricNBD(
            NBDURI(endpoint: .unix(path: path), export: ""), deadline: soon())
        let caller = try Caller(fabric)
        let start = monotonicNow()
        #expect(throws: FabricError.deadlinePassed) { try caller.load(0, 1, deadline: soon(0.1)) }
        #expect(monotonicNow() - start < 350_000_000)
        #expect(fabric.counters.deadlinesPassed == 1)
        #expect(try caller.load(0, 1) == [UInt8](repeating: 0, count: pageBytes))
        #expect(fabric.counters.reconnects == 1)
        _ = process.pid
    }

    @Test func nothingIsAllocatedPerRequest() throws {
        let server = try AnyServer(.memserver)
        let fabric = try FabricNBD(server.uri, deadline: soon())
        let caller = try Caller(fabric)
        func round() throws(FabricError) {
            let deadline = soon()
            try caller.store(7, pages: 8, deadline: deadline)
            _ = try caller.load(7, pages: 8, deadline: deadline)
            try caller.channel.discard(PageRange(first: 9, count: 2), deadline: deadline)
        }
        for _ in 0..<10 { try round() }
        let count = try allocations { () throws(FabricError) in
            for _ in 0..<100 { try round() }
        }
        #expect(count == 0)
    }

    @Test func errorsOfConnectingAreTold() throws {
        let server = try AnyServer(.memserver)
        var uri = server.uri
        uri.export = "none"
        #expect(throws: NBDConnectError.unknownExport) { try FabricNBD(uri, deadline: soon()) }
        #expect(
            throws: NBDConnectError.system(
                SystemError(call: "connect to unix:/nowhere", code: ENOENT))
        ) {
            try FabricNBD(
                NBDURI(endpoint: .unix(path: "/nowhere"), export: ""), deadline: soon())
        }
        let directory = try TemporaryDirectory()
        let mute = try listenUnix(directory.file("m"))
        #expect(throws: NBDConnectError.interrupted) {
            try FabricNBD(
                NBDURI(endpoint: .unix(path: directory.file("m")), export: ""),
                deadline: soon(0.2))
        }
        _ = mute.rawValue
    }

    @Test func theKernelGetsADescriptorInTransmission() throws {
        let server = try AnyServer(.memserver)
        let connected = try NBDHandshake.connect(server.uri, deadline: soon())
        #expect(connected.facts.size == .mib(16))
        #expect(connected.facts.flags.contains([.canMultiConnect, .sendTrim]))
        let descriptor = connected.takeDescriptor()
        var bytes = [UInt8](repeating: 0, count: NBDWire.requestBytes)
        unsafe bytes.withUnsafeMutableBytes {
            unsafe NBDRequest(command: .flush, cookie: 9).encode(to: $0.baseAddress!)
        }
        unsafe try bytes.withUnsafeBytes { unsafe try descriptor.writeAll($0) }
        var reply = [UInt8](repeating: 0, count: 16)
        let got = unsafe try reply.withUnsafeMutableBytes { unsafe try descriptor.read(into: $0) }
        #expect(got == 16)
        unsafe reply.withUnsafeBytes {
            unsafe #expect(NBDReply(at: $0.baseAddress!) == .simple(cookie: 9, error: .none))
        }
    }

    /// The older connection of a client has ended when the newer one is let in.
    @Test func fencesEndOlderConnections() throws {
        let served = try ServedScratch()
        let older = try BareClient(served.path)
        let name = [UInt8](repeating: 5, count: 16)
        #expect(try older.option(.fence, name).last?.0 == .acknowledge)
        try older.go()
        let stranger = try BareClient(served.path)
        try stranger.go()
        let newer = try BareClient(served.path)
        #expect(try newer.option(.fence, [1]).last?.0 == .invalid)
        #expect(try newer.option(.fence, name).last?.0 == .acknowledge)
        #expect(older.isClosed())
        #expect(try stranger.errorOf(.flush, 0, 0) == .some(.none))
    }

    /// A successor's first request ends every connection that its predecessor may have left a store in.
    @Test func aSuccessorEndsAllConnectionsOfItsPredecessor() throws {
        let served = try ServedScratch()
        let uri = NBDURI(endpoint: .unix(path: served.path), export: "x")
        let identity = NBDContinuity.randomIdentity()
        let older = try FabricNBD(
            uri, continuity: NBDContinuity(identity: identity), deadline: soon())
        let olderCallers = try [Caller(older), Caller(older)]
        for caller in olderCallers { try caller.store(1, [UInt8](repeating: 1, count: pageBytes)) }
        let before = older.counters.reconnects
        let newer = try FabricNBD(
            uri, continuity: NBDContinuity(identity: identity), deadline: soon())
        let newerCallers = try [Caller(newer), Caller(newer)]
        #expect(try newerCallers[0].load(1, 1) == [UInt8](repeating: 1, count: pageBytes))
        // The second channel of the newer one has not been used, and yet the older one's is gone.
        #expect(try olderCallers[1].load(1, 1) == [UInt8](repeating: 1, count: pageBytes))
        #expect(older.counters.reconnects == before + 1)
        newer.close(releaseLease: false)
        older.close(releaseLease: false)
    }

    @Test func aSuccessorOnAnotherLeaseIsLostAtOnce() throws {
        let served = try ServedScratch()
        let uri = NBDURI(endpoint: .unix(path: served.path), export: "x")
        let epoch = try #require(try FabricNBD(uri, deadline: soon()).facts?.epoch)
        let same = try FabricNBD(uri, continuity: NBDContinuity(epoch: epoch), deadline: soon())
        #expect(try Caller(same).load(0, 1) == [UInt8](repeating: 0, count: pageBytes))
        let other = try FabricNBD(
            uri, continuity: NBDContinuity(epoch: epoch + 1), deadline: soon())
        let caller = try Caller(other)
        #expect(other.state == .lost)
        #expect(throws: FabricError.leaseLost) { try caller.load(0, 1) }
        #expect(other.state == .lost)
    }

    /// A store that failed on one channel may still be carried out by the server, until that channel's
    /// connection is known to have ended: no other channel sends before.
    @Test(arguments: [true, false])
    func aFailedStoreHoldsUpTheOtherChannels(isStore: Bool) throws {
        let exports = try ScratchExports(mebibytes: 16)
        let directory = try TemporaryDirectory()
        let path = directory.file("s")
        let first = try Listening(path, exports)
        let fabric = try FabricNBD(
            NBDURI(endpoint: .unix(path: path), export: "x"), deadline: soon())
        let callers = try [Caller(fabric), Caller(fabric)]
        for caller in callers { _ = try caller.load(5, 1) }
        let before = fabric.counters.reconnects
        first.stop()
        #expect(throws: FabricError.unreachable) {
            if isStore {
                try callers[0].store(5, pages: 1, deadline: soon(0.2))
            } else {
                _ = try callers[0].load(5, 1, deadline: soon(0.2))
            }
        }
        let second = try Listening(path, exports)
        _ = try callers[1].load(5, 1)
        #expect(fabric.counters.reconnects - before == (isStore ? 2 : 1))
        fabric.close(releaseLease: false)
        second.stop()
    }

    @Test func noMoreThanTheLimitIsUsed() throws {
        let served = try ServedScratch()
        let uri = NBDURI(endpoint: .unix(path: served.path), export: "x")
        let all = try Caller(FabricNBD(uri, deadline: soon()))
        try all.store(4095, [UInt8](repeating: 9, count: pageBytes))
        let part = try FabricNBD(uri, limit: .mib(8), deadline: soon())
        #expect(part.size == .mib(8))
        part.close(releaseLease: true)
        #expect(try all.load(4095, 1) == [UInt8](repeating: 9, count: pageBytes))
    }
}

/// A server that a test starts and stops on a path.
private final class Listening {
    private let server: NBDServer
    private let thread: WorkerThread

    init(_ path: String, _ exports: ScratchExports) throws {
        let server = try NBDServer(
            .unix(path: path), exports: exports, security: NBDSecurity(), limits: NBDLimits(),
            counters: NBDCounters(MetricRegistry()), log: Logger(level: .error))
        self.server = server
        thread = try WorkerThread("accept") { server.run() }
    }

    func stop() {
        #expect(server.stop(timeout: 5_000_000_000))
        thread.join()
    }
}
