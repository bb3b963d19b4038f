import CSwapShims
import Fabric
import FarMemory
import Glibc
import LinuxSystem
import SwapDevice
import Testing

/// The kernel's end of /dev/fuse: a socket that keeps messages apart, as the device does.
final class KernelEnd {
    typealias Answer = (unique: UInt64, error: Int32, body: [UInt8])

    static let pagesMax = 16
    private let socket: FileDescriptor
    /// Where a worker reads.
    let worker: FileDescriptor
    private var unique: UInt64 = 100

    init() throws {
        var ends: [Int32] = [-1, -1]
        guard unsafe socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) == 0 else {
            throw SystemError.last("socketpair")
        }
        socket = FileDescriptor(owning: ends[0])
        worker = FileDescriptor(owning: ends[1])
    }

    // MARK: Requests

    /// The bytes of a request with a fresh number.
    func request<T: BitwiseCopyable>(
        _ opcode: fuse_opcode, _ arguments: T, payload: [UInt8] = []
    ) -> [UInt8] {
        unique += 2
        var header = fuse_in_header()
        header.len = UInt32(
            MemoryLayout<fuse_in_header>.size + MemoryLayout<T>.size + payload.count)
        header.opcode = opcode.rawValue
        header.unique = unique
        header.nodeid = FuseNode.device
        return bytes(of: header) + bytes(of: arguments) + payload
    }

    func write(page: Int, count: Int = 1, byte: UInt8) -> [UInt8] {
        var arguments = fuse_write_in()
        arguments.offset = UInt64(page * pageBytes)
        arguments.size = UInt32(count * pageBytes)
        return request(
            FUSE_WRITE, arguments, payload: [UInt8](repeating: byte, count: count * pageBytes))
    }

    func read(page: Int, count: Int = 1) -> [UInt8] {
        var arguments = fuse_read_in()
        arguments.offset = UInt64(page * pageBytes)
        arguments.size = UInt32(count * pageBytes)
        return request(FUSE_READ, arguments)
    }

    func punchHole(page: Int, count: Int = 1) -> [UInt8] {
        var arguments = fuse_fallocate_in()
        arguments.offset = UInt64(page * pageBytes)
        arguments.length = UInt64(count * pageBytes)
        arguments.mode = 3
        return request(FUSE_FALLOCATE, arguments)
    }

    private func bytes<T: BitwiseCopyable>(of value: T) -> [UInt8] {
        unsafe withUnsafeBytes(of: value) { unsafe Array($0) }
    }

    // MARK: The connection

    func send(_ request: [UInt8]) throws {
        let sent = unsafe request.withUnsafeBytes {
            unsafe Glibc.send(
                socket.rawValue, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
        guard sent == request.count else { throw SystemError.last("send a request") }
    }

    /// The next answer; nil when there is none now.
    func answer() -> Answer? {
        let headerBytes = MemoryLayout<fuse_out_header>.size
        var buffer = [UInt8](repeating: 0, count: (Self.pagesMax + 1) * pageBytes)
        let got = unsafe buffer.withUnsafeMutableBytes {
            unsafe recv(socket.rawValue, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT))
        }
        guard got >= headerBytes else { return nil }
        let header = unsafe buffer.withUnsafeBytes {
            unsafe $0.loadUnaligned(as: fuse_out_header.self)
        }
        guard Int(header.len) == got else { return nil }
        return (header.unique, -header.error, Array(buffer[headerBytes..<got]))
    }

    /// Sends a request to a running worker; its answer must come within 10 s.
    func call(_ request: [UInt8]) throws -> Answer {
        try send(request)
        try #require(try waitReady(socket.rawValue, .readable, timeout: 10_000_000_000))
        let answer = try #require(self.answer())
        try #require(answer.unique == unique)
        return answer
    }

    /// Nothing more will come: the worker's `run` ends.
    func hangUp() { _ = shutdown(socket.rawValue, Int32(SHUT_WR)) }

    /// The worker's end of the connection fails from now on.
    func breakAnswers() { _ = shutdown(socket.rawValue, Int32(SHUT_RD)) }
}

/// A device with one worker whose kernel is the test.
final class WorkerRig {
    let kernel: KernelEnd
    /// The worker's slot and counters lie in it.
    let region: SharedRegion
    private let channel: any FabricChannel

    init(_ channel: any FabricChannel, size: ByteCount = .mib(4)) throws {
        self.channel = channel
        kernel = try KernelEnd()
        let file = try makeMemoryFile(
            "test", size: UInt64(SharedRegion.length(workers: 1, size: size)), fixedSize: true)
        region = try SharedRegion(creatingIn: file, workers: 1, size: size, hasFallback: false)
    }

    /// A worker as a new process would make it.
    func makeWorker(clock: any PathClock = TestClock(), spin: Int64 = 0) throws -> SwapWorker {
        let path = unsafe PagePath(
            channel: channel, fallback: nil, locations: region.locations,
            counters: region.counters(worker: 0), clock: clock, policy: PathPolicy())
        return unsafe try SwapWorker(
            fuse: kernel.worker.rawValue, slot: region.slot(worker: 0), path: path,
            counters: region.counters(worker: 0), sizeBytes: region.size.bytes, spin: spin)
    }

    /// Leaves a request in the slot, as a process does that was killed while it served it.
    func leaveInSlot(_ request: [UInt8]) {
        let slot = unsafe region.slot(worker: 0)
        unsafe request.withUnsafeBytes {
            guard let base = $0.baseAddress else { return }
            unsafe slot.request.copyMemory(from: base, byteCount: $0.count)
        }
    }
}
