// What a process that uses a lease leaves its successor: which lease it is, which pages hold something (nobody else knows:
// the server sees no WRITE), and the session to be ended before anything else is done, so that no write of the predecessor
// can arrive later. The last two lie in a memory file.

import Fabric
import FarMemory
import Glibc
import LinuxSystem

/// Which lease it is.
struct RDMALeaseRecord: Equatable {
    var id: UInt64
    var epoch: UInt64
    /// Bytes, whole slabs.
    var size: UInt64
    var slabBytes: Int

    /// "FMErdma", version 1.
    private static let magic: UInt64 = 0x0161_6d64_7245_4d46
    private static let sizeMax: UInt64 = 1 << 50

    init(id: UInt64, epoch: UInt64, size: UInt64, slabBytes: Int) {
        self.id = id
        self.epoch = epoch
        self.size = size
        self.slabBytes = slabBytes
    }

    /// Takes what a predecessor left. `EINVAL` unless it is a lease of this size, and the file is that lease's.
    init(checking left: Handover, size: ByteCount) throws(SystemError) {
        let words = Self.words(left.bytes)
        let wrong = SystemError(call: "take a predecessor's lease over", code: EINVAL)
        guard words.count == 5, words[0] == Self.magic, words[4] < Self.sizeMax,
            left.descriptors.count == 1
        else { throw wrong }
        self.init(id: words[1], epoch: words[2], size: words[3], slabBytes: Int(words[4]))
        guard isPossible, self.size == size.bytes else { throw wrong }
        var facts = stat()
        try check("fstat") { unsafe fstat(left.descriptors[0], &facts) }
        guard facts.st_size >= RDMAPageFile.byteCount(pageCount) else { throw wrong }
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
    var pageCount: Int { Int(size) / pageBytes }
    var pagesPerSlab: Int { slabBytes / pageBytes }

    /// Whether such a lease can be.
    var isPossible: Bool {
        slabBytes > 0 && slabBytes % pageBytes == 0 && size > 0 && size < Self.sizeMax
            && size % UInt64(slabBytes) == 0
    }
}

/// The memory file: which pages hold something, and the session.
@safe struct RDMAPageFile: ~Copyable, Sendable {
    let file: FileDescriptor
    private let mapping: MemoryMapping
    let pages: SharedBitmap
    private let session: SharedWord
    private let tokenLow: SharedWord
    private let tokenHigh: SharedWord

    private static let headBytes = 64

    static func byteCount(_ pageCount: Int) -> Int {
        headBytes + SharedBitmap.byteCount(pageCount)
    }

    /// Makes one, with no page and no session.
    init(pageCount: Int) throws(SystemError) {
        let file = try makeMemoryFile(
            "farswap-rdma", size: UInt64(Self.byteCount(pageCount)), fixedSize: true)
        try self.init(owning: file, pageCount: pageCount)
    }

    /// Goes on with a predecessor's, whose descriptor is borrowed.
    init(copying number: Int32, pageCount: Int) throws(SystemError) {
        let file = try FileDescriptor("fcntl(F_DUPFD_CLOEXEC)", fcntl(number, F_DUPFD_CLOEXEC, 3))
        try self.init(owning: file, pageCount: pageCount)
    }

    private init(owning file: consuming FileDescriptor, pageCount: Int) throws(SystemError) {
        mapping = try MemoryMapping(
            sharing: file.rawValue, count: Self.byteCount(pageCount), populate: true)
        // SAFETY: the mapping is as long as head and bits, and lives as long as this value.
        unsafe pages = SharedBitmap(mapping.base + Self.headBytes, count: pageCount)
        unsafe session = SharedWord(mapping.base)
        unsafe tokenLow = SharedWord(mapping.base + 8)
        unsafe tokenHigh = SharedWord(mapping.base + 16)
        self.file = file
    }

    /// The session that used the lease last; number 0 is none. One that was written half names no session of the
    /// server, which then finds the lease busy until it hears that its client is gone.
    var lastSession: (number: UInt64, token: [UInt8]) {
        get {
            let words = [tokenLow.value, tokenHigh.value]
            let token = words.flatMap { word in
                (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
            }
            return (session.value, token)
        }
        nonmutating set {
            precondition(newValue.token.count == 16, "a token is 16 bytes")
            func word(_ start: Int) -> UInt64 {
                (0..<8).reduce(0) { $0 | UInt64(newValue.token[start + $1]) << (8 * UInt64($1)) }
            }
            session.value = 0
            tokenLow.value = word(0)
            tokenHigh.value = word(8)
            session.value = newValue.number
        }
    }
}
