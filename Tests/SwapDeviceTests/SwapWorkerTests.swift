import CSwapShims
import Fabric
import FarMemory
import Glibc
import LinuxSystem
import SwapDevice
import Testing

/// A worker whose kernel is this test: requests and answers are messages of a socket pair.
@safe private final class WorkerRig {
    let channel = FaultyChannel()
    let region: SharedRegion
    private let kernel: FileDescriptor
    private let fuse: FileDescriptor
    private var nextUnique: UInt64 = 100

    init() throws {
        let size = ByteCount.mib(4)
        let file = try makeMemoryFile(
            "test", size: UInt64(SharedRegion.length(workers: 1, size: size)), fixedSize: true)
        region = try SharedRegion(creatingIn: file, workers: 1, size: size, hasFallback: false)
        var ends: [Int32] = [0, 0]
        guard unsafe socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) == 0 else {
            throw SystemError.last("socketpair")
        }
        kernel = FileDescriptor(owning: ends[0])
        fuse = FileDescriptor(owning: ends[1])
    }

    /// A worker as a new process would make it.
    func makeWorker() throws -> SwapWorker {
        let path = unsafe PagePath(
            channel: channel, fallback: nil, locations: region.locations,
            counters: region.counters(worker: 0), clock: TestClock(), policy: PathPolicy())
        return unsafe try SwapWorker(
            fuse: fuse.rawValue, slot: region.slot(worker: 0), path: path,
            counters: region.counters(worker: 0), sizeBytes: region.size.bytes, spin: 0)
    }

    /// The bytes of a request; the number is fresh unless given.
    func request(
        _ opcode: fuse_opcode, _ arguments: [UInt8], payload: [UInt8] = [], unique: UInt64? = nil
    ) -> [UInt8] {
        nextUnique += 2
        var header = fuse_in_header()
        header.len = UInt32(MemoryLayout<fuse_in_header>.size + arguments.count + payload.count)
        header.opcode = opcode.rawValue
        header.unique = unique ?? nextUnique
        header.nodeid = FuseNode.device
        return bytes(of: header) + arguments + payload
    }

    func write(page: UInt64, byte: UInt8) -> [UInt8] {
        var arguments = fuse_write_in()
        arguments.offset = page * UInt64(pageBytes)
        arguments.size = UInt32(pageBytes)
        return request(
            FUSE_WRITE, bytes(of: arguments), payload: [UInt8](repeating: byte, count: pageBytes))
    }

    func read(page: UInt64) -> [UInt8] {
        var arguments = fuse_read_in()
        arguments.offset = page * UInt64(pageBytes)
        arguments.size = UInt32(pageBytes)
        return request(FUSE_READ, bytes(of: arguments))
    }

    func punchHole(page: UInt64) -> [UInt8] {
        var arguments = fuse_fallocate_in()
        arguments.offset = page * UInt64(pageBytes)
        arguments.length = UInt64(pageBytes)
        arguments.mode = 3
        return request(FUSE_FALLOCATE, bytes(of: arguments))
    }

    func send(_ request: [UInt8]) throws {
        let sent = unsafe request.withUnsafeBytes {
            unsafe Glibc.send(kernel.rawValue, $0.baseAddress, $0.count, 0)
        }
        guard sent == request.count else { throw SystemError.last("send a request") }
    }

    /// Leaves a request in the slot, as a process does that was killed while it served it.
    func leaveInSlot(_ request: [UInt8]) {
        let slot = unsafe region.slot(worker: 0)
        unsafe request.withUnsafeBytes {
            unsafe slot.request.copyMemory(from: $0.baseAddress!, byteCount: $0.count)
        }
    }

    /// The next answer: request number, errno, body; nil when there is none.
    func answer() -> (unique: UInt64, error: Int32, body: [UInt8])? {
        var buffer = [UInt8](repeating: 0, count: 8192)
        let got = unsafe buffer.withUnsafeMutableBytes {
            unsafe recv(kernel.rawValue, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT))
        }
        guard got >= MemoryLayout<fuse_out_header>.size else { return nil }
        let header = unsafe buffer.withUnsafeBytes {
            unsafe $0.loadUnaligned(as: fuse_out_header.self)
        }
        guard Int(header.len) == got else { return nil }
        return (
            header.unique, -header.error, Array(buffer[MemoryLayout<fuse_out_header>.size..<got])
        )
    }

    /// Nothing more will come: the worker's `run` ends.
    func hangUp() { _ = shutdown(kernel.rawValue, Int32(SHUT_WR)) }

    /// The worker's end of the connection fails from now on.
    func breakAnswers() { _ = shutdown(kernel.rawValue, Int32(SHUT_RD)) }

    private func bytes<T: BitwiseCopyable>(of value: T) -> [UInt8] {
        unsafe withUnsafeBytes(of: value) { unsafe Array($0) }
    }
}

@Suite struct SwapWorkerTests {
    @Test func whatIsWrittenIsReadBack() throws {
        let rig = try WorkerRig()
        try rig.send(rig.write(page: 7, byte: 42))
        try rig.send(rig.read(page: 7))
        rig.hangUp()
        #expect(try rig.makeWorker().run() == .unmounted)
        let written = try #require(rig.answer())
        #expect(written.error == 0)
        let read = try #require(rig.answer())
        #expect(read.error == 0)
        #expect(read.body == [UInt8](repeating: 42, count: pageBytes))
        #expect(unsafe rig.region.slot(worker: 0).received == 0)
    }

    /// Killed before the work: the successor does it.
    @Test func aRequestThatWasReceivedOnlyIsCarriedOutByTheSuccessor() throws {
        let rig = try WorkerRig()
        rig.leaveInSlot(rig.write(page: 3, byte: 9))
        #expect(try rig.makeWorker().finishPredecessorsRequest() == nil)
        #expect(rig.answer()?.error == 0)
        #expect(rig.channel.memory[3]?.first == 9)
    }

    /// Killed between the answer and forgetting the request, with a store that had failed: the kernel has written a newer
    /// page there meanwhile, which repeating the old store would overwrite.
    @Test func aStoreThatFailedIsNotRepeatedByTheSuccessor() throws {
        let rig = try WorkerRig()
        let old = rig.write(page: 3, byte: 1)
        rig.channel.failures = [.noSpace]
        try rig.send(old)
        rig.hangUp()
        _ = try rig.makeWorker().run()
        let failed = try #require(rig.answer())
        #expect(failed.error == ENOSPC)

        rig.channel.memory[3] = [UInt8](repeating: 2, count: pageBytes)
        rig.leaveInSlot(old)
        #expect(try rig.makeWorker().finishPredecessorsRequest() == nil)
        #expect(rig.channel.memory[3]?.first == 2)
        let again = try #require(rig.answer())
        #expect(again.unique == failed.unique)
        #expect(again.error == ENOSPC)
    }

    @Test func aDiscardThatWasDoneIsNotRepeatedByTheSuccessor() throws {
        let rig = try WorkerRig()
        let punch = rig.punchHole(page: 5)
        try rig.send(punch)
        rig.hangUp()
        _ = try rig.makeWorker().run()
        #expect(rig.answer()?.error == 0)

        rig.channel.memory[5] = [UInt8](repeating: 6, count: pageBytes)
        rig.leaveInSlot(punch)
        _ = try rig.makeWorker().finishPredecessorsRequest()
        #expect(rig.channel.memory[5]?.first == 6)
    }

    /// An answer that cannot be given must not be forgotten: somebody waits for it.
    @Test func aRequestThatCouldNotBeAnsweredStaysForTheSuccessor() throws {
        let rig = try WorkerRig()
        signal(SIGPIPE, SIG_IGN)
        let request = rig.write(page: 4, byte: 8)
        rig.leaveInSlot(request)
        rig.breakAnswers()
        #expect(try rig.makeWorker().finishPredecessorsRequest() == .failed(EPIPE))
        #expect(unsafe rig.region.slot(worker: 0).received != 0)
        #expect(unsafe rig.region.slot(worker: 0).executed == rig.region.slot(worker: 0).received)
    }
}
