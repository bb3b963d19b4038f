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

/// A worker's loop on a thread of its own.
private final class RunningWorker {
    private let rig: WorkerRig
    private let thread: WorkerThread
    private var kernel: KernelEnd { rig.kernel }

    // SAFETY of @unchecked Sendable: only the worker's thread uses it after it started.
    private struct Box: @unchecked Sendable { let worker: SwapWorker }

    init(_ channel: any FabricChannel, size: ByteCount, spin: Int64) throws {
        rig = try WorkerRig(channel, size: size)
        try rig.kernel.worker.setNonBlocking(spin > 0)
        let box = Box(worker: try rig.makeWorker(clock: SystemClock(), spin: spin))
        thread = try WorkerThread("worker") { _ = box.worker.run() }
    }

    func store(_ page: Int, count: Int, byte: UInt8) throws {
        let answer = try kernel.call(kernel.write(page: page, count: count, byte: byte))
        try #require(answer.error == 0 && answer.body.count == MemoryLayout<fuse_write_out>.size)
    }

    /// Loads pages that must all be full of this byte.
    func load(_ page: Int, count: Int, expecting byte: UInt8) throws {
        let answer = try kernel.call(kernel.read(page: page, count: count))
        try #require(answer.error == 0)
        try #require(answer.body == [UInt8](repeating: byte, count: count * pageBytes))
    }

    func discard(_ page: Int, count: Int) throws {
        let answer = try kernel.call(kernel.punchHole(page: page, count: count))
        try #require(answer.error == 0 && answer.body.isEmpty)
    }

    /// Ends the loop: what it reads from next cannot be read.
    func stop() throws {
        let directory = try FileDescriptor.open("/", O_RDONLY | O_DIRECTORY)
        try #require(dup2(directory.rawValue, kernel.worker.rawValue) >= 0)
        // Wakes it from its read(2), unless it has found out by itself and nobody is there to take it.
        try? kernel.send(kernel.request(FUSE_FORGET, UInt64(1)))
        thread.join()
    }
}

@Suite(.enabled(if: allocationsAreCounted, "needs allocation counts: no sanitizer"))
struct SwapWorkerBudgetTests {
    private let size = ByteCount.mib(4)

    /// Stores, loads and discards, of one page and of several, on a slab that stays granted and on others.
    private func round(_ worker: RunningWorker, _ byte: UInt8) throws {
        try worker.store(0, count: 1, byte: byte)
        try worker.load(0, count: 1, expecting: byte)
        try worker.store(100, count: KernelEnd.pagesMax, byte: byte)
        try worker.load(100, count: KernelEnd.pagesMax, expecting: byte)
        try worker.load(200, count: KernelEnd.pagesMax, expecting: 0)
        try worker.discard(101, count: 3)
        try worker.load(101, count: 3, expecting: 0)
        // A slab of its own, which is given back and granted again.
        try worker.store(512, count: KernelEnd.pagesMax, byte: byte)
        try worker.discard(512, count: KernelEnd.pagesMax)
    }

    /// What 200 rounds allocate on the worker's thread, after 20 to warm up.
    private func measure(
        _ inner: any FabricChannel, spin: Int64, isWasteful: Bool = false
    ) throws -> UInt64 {
        let channel = CountingChannel(inner, isWasteful: isWasteful)
        let worker = try RunningWorker(channel, size: size, spin: spin)
        for index in 0..<20 { try round(worker, UInt8(index + 1)) }
        let before = channel.allocated.load(ordering: .acquiring)
        for index in 0..<200 { try round(worker, UInt8(index % 255 + 1)) }
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
