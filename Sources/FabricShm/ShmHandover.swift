// What a process that uses a lease leaves its successor, so that no page has to wait for the server: on a host
// that swaps to a memserver of its own, whoever starts that server again may wait for a page itself.
//
// The successor maps the same files and serves at once. Its session comes later, and is where the server is
// asked whether this is still the same lease. Two things could go wrong meanwhile. A give-back that the
// predecessor had sent may still lie unread in the server's socket, and would clear what is stored in that slab
// now: such slabs are marked in a file that is left too, and stay closed until there is a session, which the
// server gives when it has read all of the old one's. And the files could be another lease's: their heads say.

import CWireFormat
import Fabric
import FarMemory
import Glibc
import LinuxSystem

/// Which lease it is.
struct ShmLeaseRecord: Equatable {
    var id: UInt64
    var epoch: UInt64
    /// Bytes, whole slabs.
    var size: UInt64
    var slabBytes: Int

    /// "FMEshm", version 1.
    private static let magic: UInt64 = 0x0001_6d68_7345_4d46
    private static let sizeMax: UInt64 = 1 << 50

    init(id: UInt64, epoch: UInt64, size: UInt64, slabBytes: Int) {
        self.id = id
        self.epoch = epoch
        self.size = size
        self.slabBytes = slabBytes
    }

    /// Takes what a predecessor left. `EINVAL` unless it is a lease of this size, and its files are that lease's.
    init(checking left: Handover, size: ByteCount) throws(SystemError) {
        let words = Self.words(left.bytes)
        let wrong = SystemError(call: "take a predecessor's lease over", code: EINVAL)
        guard words.count == 5, words[0] == Self.magic, words[4] < Self.sizeMax,
            left.descriptors.count == ShmLeaseFiles.count
        else { throw wrong }
        self.init(id: words[1], epoch: words[2], size: words[3], slabBytes: Int(words[4]))
        guard isPossible, self.size == size.bytes, try hasFiles(left.descriptors) else {
            throw wrong
        }
    }

    func encoded() -> [UInt8] {
        [Self.magic, id, epoch, size, UInt64(slabBytes)].flatMap { word in
            (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
        }
    }

    private static func words(_ bytes: [UInt8]) -> [UInt64] {
        guard bytes.count % 8 == 0 else { return [] }
        return stride(from: 0, to: bytes.count, by: 8).map { start in
            (0..<8).reduce(0) { $0 | UInt64(bytes[start + $1]) << (8 * UInt64($1)) }
        }
    }

    var slabCount: Int { Int(size) / slabBytes }

    /// Whether such a lease can be.
    var isPossible: Bool {
        slabBytes > 0 && slabBytes % pageBytes == 0 && size > 0 && size < Self.sizeMax
            && size % UInt64(slabBytes) == 0
    }

    /// Whether data, page bits, grants and returning slabs are as long as this lease's, and the bitmaps are its.
    private func hasFiles(_ descriptors: [Int32]) throws(SystemError) -> Bool {
        let lengths = [
            Int(size),
            FabricShm.headerBytes + SharedBitmap.byteCount(Int(size) / pageBytes),
            FabricShm.headerBytes + SharedBitmap.byteCount(slabCount),
            SharedBitmap.byteCount(slabCount),
        ]
        for (fd, length) in zip(descriptors, lengths) {
            var facts = stat()
            try check("fstat") { unsafe fstat(fd, &facts) }
            guard facts.st_size >= length else { return false }
        }
        return [(1, FM_PAGES_MAGIC), (2, FM_GRANTS_MAGIC)].allSatisfy { (index, magic) in
            var head = fm_bitmap_header()
            let length = MemoryLayout<fm_bitmap_header>.size
            let got = unsafe pread(descriptors[index], &head, length, 0)
            return got == length && head.magic == magic && head.epoch == epoch
        }
    }
}

/// The files of a lease, as its client has them.
struct ShmLeaseFiles: ~Copyable, Sendable {
    let data: FileDescriptor
    let pages: FileDescriptor
    let grants: FileDescriptor
    /// The client's own: one bit per slab, set while its give-back is under way.
    let returning: FileDescriptor

    static let count = 4

    /// In the order of `init(copying:)`.
    var numbers: [Int32] {
        [data.rawValue, pages.rawValue, grants.rawValue, returning.rawValue]
    }

    /// Takes an opened lease's descriptors over.
    init(opened lease: OpenedLease) throws(SystemError) {
        let data = FileDescriptor(owning: lease.descriptors[0])
        let pages = FileDescriptor(owning: lease.descriptors[1])
        let grants = FileDescriptor(owning: lease.descriptors[2])
        let returning = try makeMemoryFile(
            "farswap-returning", size: UInt64(SharedBitmap.byteCount(lease.record.slabCount)),
            fixedSize: true)
        self.init(data: data, pages: pages, grants: grants, returning: returning)
    }

    /// Copies borrowed descriptors.
    init(copying numbers: [Int32]) throws(SystemError) {
        let data = try duplicate(numbers[0])
        let pages = try duplicate(numbers[1])
        let grants = try duplicate(numbers[2])
        let returning = try duplicate(numbers[3])
        self.init(data: data, pages: pages, grants: grants, returning: returning)
    }

    private init(
        data: consuming FileDescriptor, pages: consuming FileDescriptor,
        grants: consuming FileDescriptor, returning: consuming FileDescriptor
    ) {
        self.data = data
        self.pages = pages
        self.grants = grants
        self.returning = returning
    }
}

private func duplicate(_ number: Int32) throws(SystemError) -> FileDescriptor {
    try FileDescriptor("fcntl(F_DUPFD_CLOEXEC)", fcntl(number, F_DUPFD_CLOEXEC, 3))
}
