import Fabric
import FabricShm
import FarMemory
import Glibc
import LinuxSystem
import MemoryPool
import MemoryServer
import PoolProtocol
import Telemetry
import TestSupport
import Testing

/// A memory server in this process that can go away and come back on the same pool.
final class ShmHost {
    let directory: TemporaryDirectory
    let capacity: ByteCount
    private(set) var pool: MemoryPool?
    private var server: ShmServer?
    private var accepting: WorkerThread?
    var keys: [SharedKey]?

    init(capacity: ByteCount, keys: [SharedKey]? = nil) throws {
        directory = try TemporaryDirectory(inMemory: true)
        self.capacity = capacity
        self.keys = keys
        try start()
    }

    var socket: String { directory.file("s") }

    func start() throws {
        let pool = try MemoryPool(
            PoolOptions(directory: directory.file("pool"), capacity: capacity, slab: .kib(64)))
        let server = try ShmServer(
            path: socket, pool: pool, keys: keys, autoLease: nil, limits: ShmLimits(),
            counters: ShmCounters(MetricRegistry()), log: Logger(level: .error))
        accepting = try WorkerThread("accept") { server.run() }
        self.server = server
        self.pool = pool
    }

    func stop() {
        _ = server?.stop(timeout: 5_000_000_000)
        accepting?.join()
        accepting = nil
        server = nil
        pool = nil
    }

    deinit { stop() }
}

/// A lease's channel with the buffers that a test needs.
@safe final class Client {
    let fabric: FabricShm
    private let channel: any FabricChannel
    private let buffer: MemoryMapping
    private let vectors = UnsafeMutablePointer<iovec>.allocate(capacity: 64)

    init(
        _ host: ShmHost, size: ByteCount, key: SharedKey? = nil, epoch: UInt64? = nil,
        resuming left: Left? = nil
    ) throws {
        if let left {
            fabric = try FabricShm.resume(
                left.value, socket: host.socket, leaseName: "l", size: size, key: key)
        } else {
            fabric = try FabricShm.connect(
                socket: host.socket, leaseName: "l", size: size, key: key, epoch: epoch)
        }
        channel = try fabric.makeChannel()
        buffer = try MemoryMapping(anonymous: 64 * pageBytes)
    }

    /// What a successor gets, as the keeper holds it: with descriptors of its own.
    func leave() throws -> Left { Left(copying: try #require(fabric.handover)) }

    deinit { unsafe vectors.deallocate() }

    private var deadline: Int64 { monotonicNow() + 5_000_000_000 }

    func store(_ first: Int, _ bytes: [UInt8]) throws(FabricError) {
        for (index, byte) in bytes.enumerated() {
            unsafe memset(buffer.base + index * pageBytes, Int32(byte), pageBytes)
        }
        try unsafe channel.store(
            PageRange(first: UInt64(first), count: bytes.count),
            from: UnsafeRawPointer(buffer.base),
            deadline: deadline)
    }

    /// The byte that each page is full of; traps the test when a page is mixed.
    func load(_ first: Int, _ count: Int) throws -> [UInt8] {
        let filled = try unsafe channel.load(
            PageRange(first: UInt64(first), count: count), staging: buffer.base, vectors: vectors,
            deadline: deadline)
        var bytes: [UInt8] = []
        for index in 0..<filled {
            let vector = unsafe vectors[index]
            let base = unsafe try #require(unsafe vector.iov_base)
            for page in unsafe 0..<Int(vector.iov_len) / pageBytes {
                let start = unsafe base + page * pageBytes
                let byte = unsafe start.load(as: UInt8.self)
                #expect(unsafe memcmp(start, start + 1, pageBytes - 1) == 0, "a torn page")
                bytes.append(byte)
            }
        }
        return bytes
    }

    func discard(_ first: Int, _ count: Int) throws(FabricError) {
        try channel.discard(
            PageRange(first: UInt64(first), count: count), deadline: deadline)
    }

    /// One store and one load of a page that is there, for counting allocations.
    func touch(_ page: Int) throws(FabricError) {
        let range = PageRange(first: UInt64(page), count: 1)
        try unsafe channel.store(range, from: UnsafeRawPointer(buffer.base), deadline: .max)
        _ = try unsafe channel.load(
            range, staging: buffer.base, vectors: vectors, deadline: .max)
    }

    func close(release: Bool = false) { fabric.close(releaseLease: release) }
}

/// A copy of a handover that outlives its fabric.
final class Left {
    let value: Handover

    init(copying handover: Handover) {
        value = Handover(
            bytes: handover.bytes,
            descriptors: handover.descriptors.map { fcntl($0, F_DUPFD_CLOEXEC, 3) })
    }

    deinit { for fd in value.descriptors { close(fd) } }
}

/// Waits for something that another thread brings about.
func eventually(_ what: String, _ condition: () -> Bool) throws {
    let deadline = monotonicNow() + 10_000_000_000
    while !condition() {
        try #require(monotonicNow() < deadline, "not within 10 s: \(what)")
        sleepNanoseconds(1_000_000)
    }
}
