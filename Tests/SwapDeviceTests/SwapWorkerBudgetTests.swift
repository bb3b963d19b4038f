import CSwapShims
import Fabric
import FabricDRAM
import FabricShm
import FarMemory
import Glibc
import LinuxSystem
import MemoryPool
import MemoryServer
import SwapDevice
import Synchronization
import Telemetry
import TestSupport
import Testing

/// Passes everything on and notes, at each call, what its thread has allocated by then: between two calls lies one
/// whole round of the worker's loop.
private final class CountingChannel: FabricChannel {
    private let inner: any FabricChannel
    /// Allocates at every call, to show that it would be seen.
    private let isWasteful: Bool
    private var waste: [UInt8] = []
    let allocated = Atomic<UInt64>(0)

    init(_ inner: any FabricChannel, isWasteful: Bool = false) {
        self.inner = inner
        self.isWasteful = isWasteful
    }

    private func note() {
        if isWasteful { waste = [UInt8](repeating: 1, count: 64) }
        allocated.store(allocationsOfThread(), ordering: .releasing)
    }

    func load(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>, deadline: Int64
    ) throws(FabricError) -> Int {
        note()
        return unsafe try inner.load(
            range, staging: staging, vectors: vectors, deadline: deadline)
    }

    func store(
        _ range: PageRange, from bytes: UnsafeRawPointer, deadline: Int64
    ) throws(FabricError) {
        note()
        unsafe try inner.store(range, from: bytes, deadline: deadline)
    }

    func discard(_ range: PageRange, deadline: Int64) throws(FabricError) {
        note()
        try inner.discard(range, deadline: deadline)
    }
}

/// The kernel's end of /dev/fuse: a socket that keeps messages apart, as the device does.
@safe private final class KernelEnd {
    static let pagesMax = 16
    private static let headerBytes = MemoryLayout<fuse_in_header>.size
    private let socket: FileDescriptor
    /// Where a worker reads.
    let worker: FileDescriptor
    private let request: MemoryMapping
    private let reply: MemoryMapping
    private var unique: UInt64 = 0

    init() throws {
        var ends: [Int32] = [-1, -1]
        let code = unsafe socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends)
        try #require(code == 0)
        socket = FileDescriptor(owning: ends[0])
        worker = FileDescriptor(owning: ends[1])
        request = try MemoryMapping(anonymous: (Self.pagesMax + 1) * pageBytes, populate: true)
        reply = try MemoryMapping(anonymous: (Self.pagesMax + 1) * pageBytes, populate: true)
    }

    /// Sends one request without waiting for an answer; false when nobody is there to take it.
    @discardableResult
    func send<T: BitwiseCopyable>(_ opcode: fuse_opcode, _ body: T, payload: Int = 0) -> Bool {
        unique += 1
        var header = fuse_in_header()
        header.len = UInt32(Self.headerBytes + MemoryLayout<T>.size + payload)
        header.opcode = opcode.rawValue
        header.unique = unique
        header.nodeid = FuseNode.device
        unsafe request.base.storeBytes(of: header, as: fuse_in_header.self)
        unsafe request.base.storeBytes(of: body, toByteOffset: Self.headerBytes, as: T.self)
        let sent = unsafe Glibc.send(
            socket.rawValue, request.base, Int(header.len), Int32(MSG_NOSIGNAL))
        return sent == Int(header.len)
    }

    /// One request and its answer, which must come within 10 s; its bytes are left in `reply`.
    private func call<T: BitwiseCopyable>(
        _ opcode: fuse_opcode, _ body: T, payload: Int = 0
    ) throws -> (error: Int32, bytes: Int) {
        try #require(send(opcode, body, payload: payload))
        try #require(try waitReady(socket.rawValue, .readable, timeout: 10_000_000_000))
        let got = unsafe recv(socket.rawValue, reply.base, (Self.pagesMax + 1) * pageBytes, 0)
        let header = unsafe reply.base.load(as: fuse_out_header.self)
        try #require(got == Int(header.len) && header.unique == unique)
        return (header.error, got - MemoryLayout<fuse_out_header>.size)
    }

    func store(_ page: Int, count: Int, byte: UInt8) throws {
        var body = fuse_write_in()
        body.offset = UInt64(page * pageBytes)
        body.size = UInt32(count * pageBytes)
        let payload = Self.headerBytes + MemoryLayout<fuse_write_in>.size
        unsafe memset(request.base + payload, Int32(byte), count * pageBytes)
        let answer = try call(FUSE_WRITE, body, payload: count * pageBytes)
        try #require(answer == (0, MemoryLayout<fuse_write_out>.size))
    }

    /// Loads pages that must all be full of this byte.
    func load(_ page: Int, count: Int, expecting byte: UInt8) throws {
        var body = fuse_read_in()
        body.offset = UInt64(page * pageBytes)
        body.size = UInt32(count * pageBytes)
        let answer = try call(FUSE_READ, body)
        try #require(answer == (0, count * pageBytes))
        let start = unsafe reply.base + MemoryLayout<fuse_out_header>.size
        try #require(unsafe start.load(as: UInt8.self) == byte)
        try #require(unsafe memcmp(start, start + 1, answer.bytes - 1) == 0)
    }

    func discard(_ page: Int, count: Int) throws {
        var body = fuse_fallocate_in()
        body.offset = UInt64(page * pageBytes)
        body.length = UInt64(count * pageBytes)
        body.mode = 3
        try #require(try call(FUSE_FALLOCATE, body) == (0, 0))
    }
}

/// A worker's loop on a thread of its own.
private final class RunningWorker {
    let kernel: KernelEnd
    /// The worker's slot and counters lie in it.
    private let region: SharedRegion
    private let thread: WorkerThread

    // SAFETY of @unchecked Sendable: only the worker's thread uses it after it started.
    private struct Box: @unchecked Sendable { let worker: SwapWorker }

    init(_ channel: any FabricChannel, size: ByteCount, spin: Int64) throws {
        kernel = try KernelEnd()
        try kernel.worker.setNonBlocking(spin > 0)
        let file = try makeMemoryFile(
            "test", size: UInt64(SharedRegion.length(workers: 1, size: size)), fixedSize: true)
        region = try SharedRegion(creatingIn: file, workers: 1, size: size, hasFallback: false)
        let path = unsafe PagePath(
            channel: channel, fallback: nil, locations: region.locations,
            counters: region.counters(worker: 0), clock: SystemClock(), policy: PathPolicy())
        let box = unsafe Box(
            worker: try SwapWorker(
                fuse: kernel.worker.rawValue, slot: region.slot(worker: 0), path: path,
                counters: region.counters(worker: 0), sizeBytes: size.bytes, spin: spin))
        thread = try WorkerThread("worker") { _ = box.worker.run() }
    }

    /// Ends the loop: what it reads from next cannot be read.
    func stop() throws {
        let directory = try FileDescriptor.open("/", O_RDONLY | O_DIRECTORY)
        try #require(dup2(directory.rawValue, kernel.worker.rawValue) >= 0)
        // Wakes it from its read(2), unless it has found out by itself.
        kernel.send(FUSE_FORGET, UInt64(1))
        thread.join()
    }
}

@Suite(.enabled(if: allocationsAreCounted, "needs allocation counts: no sanitizer"))
struct SwapWorkerBudgetTests {
    private let size = ByteCount.mib(4)

    /// Stores, loads and discards, of one page and of several, on a slab that stays granted and on others.
    private func round(_ kernel: KernelEnd, _ byte: UInt8) throws {
        try kernel.store(0, count: 1, byte: byte)
        try kernel.load(0, count: 1, expecting: byte)
        try kernel.store(100, count: KernelEnd.pagesMax, byte: byte)
        try kernel.load(100, count: KernelEnd.pagesMax, expecting: byte)
        try kernel.load(200, count: KernelEnd.pagesMax, expecting: 0)
        try kernel.discard(101, count: 3)
        try kernel.load(101, count: 3, expecting: 0)
        // A slab of its own, which is given back and granted again.
        try kernel.store(512, count: KernelEnd.pagesMax, byte: byte)
        try kernel.discard(512, count: KernelEnd.pagesMax)
    }

    /// What 200 rounds allocate on the worker's thread, after 20 to warm up.
    private func measure(
        _ inner: any FabricChannel, spin: Int64, isWasteful: Bool = false
    ) throws -> UInt64 {
        let channel = CountingChannel(inner, isWasteful: isWasteful)
        let worker = try RunningWorker(channel, size: size, spin: spin)
        for index in 0..<20 { try round(worker.kernel, UInt8(index + 1)) }
        let before = channel.allocated.load(ordering: .acquiring)
        for index in 0..<200 { try round(worker.kernel, UInt8(index % 255 + 1)) }
        let after = channel.allocated.load(ordering: .acquiring)
        try worker.stop()
        return after - before
    }

    @Test(arguments: [0, 50_000] as [Int64])
    func theLoopOverSharedMemoryAllocatesNothing(spin: Int64) throws {
        let directory = try TemporaryDirectory(inMemory: true)
        let pool = try MemoryPool(
            PoolOptions(directory: directory.file("pool"), capacity: size, slab: .kib(64)))
        let server = try ShmServer(
            path: directory.file("s"), pool: pool, keys: nil, autoLease: nil, limits: ShmLimits(),
            counters: ShmCounters(MetricRegistry()), log: Logger(level: .error))
        let accepting = try WorkerThread("accept") { server.run() }
        let fabric = try FabricShm.connect(
            socket: directory.file("s"), leaseName: "l", size: size, key: nil)
        #expect(try measure(fabric.makeChannel(), spin: spin) == 0)
        fabric.close(releaseLease: true)
        #expect(server.stop(timeout: 5_000_000_000))
        accepting.join()
    }

    @Test(arguments: [0, 50_000] as [Int64])
    func theLoopOverMappedMemoryAllocatesNothing(spin: Int64) throws {
        let directory = try TemporaryDirectory(inMemory: true)
        let fabric = try FabricDRAM(path: directory.file("far"), size: size)
        #expect(try measure(fabric.makeChannel(), spin: spin) == 0)
    }

    @Test func whatAChannelAllocatesIsSeen() throws {
        let directory = try TemporaryDirectory(inMemory: true)
        let fabric = try FabricDRAM(path: directory.file("far"), size: size)
        #expect(try measure(fabric.makeChannel(), spin: 0, isWasteful: true) >= 200 * 9)
    }
}
