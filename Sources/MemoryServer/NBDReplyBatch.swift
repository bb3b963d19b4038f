import CLinuxShims
import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol

/// Zeros for absent pages: one read-only mapping for the process, all of it the kernel's zero page.
enum NBDZeros {
    static let byteCount = 256 << 10
    // SAFETY: mapped once, never unmapped, never written.
    nonisolated(unsafe) static let base: UnsafeMutableRawPointer = {
        let mapped = unsafe mmap(
            nil, byteCount, PROT_READ, MAP_PRIVATE | Int32(MAP_ANONYMOUS), -1, 0)
        guard let base = unsafe mapped, unsafe base != MAP_FAILED else {
            preconditionFailure("256 KiB of zeros could not be mapped: \(errnoText(errno))")
        }
        return unsafe base
    }()
}

/// Replies that wait to leave in one sendmsg: headers in an arena, data where it lies. One thread.
@safe final class NBDReplyBatch {
    private static let arenaBytes = 16 << 10
    private static let vectorsMax = 1000
    /// Enough to amortise the call, little enough that the first reply does not wait long.
    private static let pendingBytesMax = 256 << 10
    private static let headerBytesMax = 64

    private let memory: MemoryMapping
    // SAFETY: both point into `memory`, which lives as long as this object.
    private let arena: UnsafeMutableRawPointer
    private let vectors: UnsafeMutablePointer<iovec>
    private let transport: NBDTransport
    private let zeros: UnsafeMutableRawPointer
    private var arenaUsed = 0
    private var vectorCount = 0
    private(set) var pendingBytes = 0

    init(_ transport: NBDTransport) throws(SystemError) {
        let vectorBytes = unsafe (Self.vectorsMax + 24) * MemoryLayout<iovec>.stride
        memory = try MemoryMapping(anonymous: Self.arenaBytes + vectorBytes, populate: true)
        unsafe arena = memory.base
        unsafe vectors = (memory.base + Self.arenaBytes).assumingMemoryBound(to: iovec.self)
        unsafe zeros = NBDZeros.base
        self.transport = transport
    }

    /// Room for a header of `count` bytes, which becomes part of the batch now.
    @inline(__always)
    func header(_ count: Int) throws(TransportEnd) -> UnsafeMutableRawPointer {
        if arenaUsed + Self.headerBytesMax > Self.arenaBytes || vectorCount >= Self.vectorsMax
            || pendingBytes >= Self.pendingBytesMax
        {
            try flush()
        }
        let place = unsafe arena + arenaUsed
        arenaUsed += count
        unsafe append(place, count)
        return unsafe place
    }

    @inline(__always)
    private func append(_ bytes: UnsafeMutableRawPointer, _ count: Int) {
        pendingBytes += count
        if vectorCount > 0 {
            let last = unsafe vectors[vectorCount - 1]
            if let start = unsafe last.iov_base, unsafe start + last.iov_len == bytes {
                unsafe vectors[vectorCount - 1].iov_len += count
                return
            }
        }
        unsafe vectors[vectorCount] = unsafe iovec(iov_base: bytes, iov_len: count)
        vectorCount += 1
    }

    /// Adds a range of the export: pages that hold something from the mapping, absent ones as zeros.
    func data(_ memory: ExportMemory, offset: Int, count: Int) throws(TransportEnd) {
        var at = offset
        let end = offset + count
        while at < end {
            let run = memory.run(from: at / pageBytes, to: (end + pageBytes - 1) / pageBytes)
            let runEnd = min(end, run.end * pageBytes)
            while at < runEnd {
                if vectorCount >= Self.vectorsMax || pendingBytes >= Self.pendingBytesMax {
                    try flush()
                }
                if run.stored {
                    let piece = min(runEnd - at, Self.pendingBytesMax)
                    unsafe append(memory.base + at, piece)
                    at += piece
                } else {
                    let piece = min(runEnd - at, NBDZeros.byteCount)
                    unsafe append(zeros, piece)
                    at += piece
                }
            }
        }
    }

    /// Adds memory that stays as it is until the next flush.
    func bytes(_ start: UnsafeMutableRawPointer, _ count: Int) { unsafe append(start, count) }

    /// Sends everything.
    func flush() throws(TransportEnd) {
        guard vectorCount > 0 else { return }
        unsafe try transport.send(vectors, vectorCount)
        vectorCount = 0
        arenaUsed = 0
        pendingBytes = 0
    }
}
