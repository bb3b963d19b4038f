import CSwapShims
import FarMemory

/// What the kernel asks of the file system that is one file (linux/fuse.h). Decoding is pure, so that
/// it can be fuzzed; nothing of a request is trusted beyond its own length.
package enum FuseRequest: Equatable, Sendable {
    case initialize(major: UInt32, minor: UInt32, flags: UInt32, maxReadahead: UInt32)
    case lookup(isDevice: Bool)
    case attributes(node: UInt64)
    case open
    case openDirectory
    case readDirectory
    case read(offset: UInt64, count: Int)
    /// The payload follows the headers.
    case write(offset: UInt64, count: Int)
    case punchHole(offset: UInt64, count: UInt64)
    case flush
    case statistics
    /// Forget, interrupt: the kernel wants no answer.
    case silent
    case release
    case destroy
    /// A request that this file does not have.
    case unsupported
    /// One that makes no sense: answered with EINVAL when it has a number at all.
    case malformed
}

/// The one file's names and numbers.
package enum FuseNode {
    package static let root: UInt64 = 1
    package static let device: UInt64 = 2
    package static let deviceName = "swap"
}

/// A request's number and meaning. `bytes` is what read(2) returned.
package func decodeFuseRequest(
    _ bytes: UnsafeRawBufferPointer
) -> (unique: UInt64, request: FuseRequest) {
    let headerBytes = MemoryLayout<fuse_in_header>.size
    guard bytes.count >= headerBytes else { return (0, .malformed) }
    let header = unsafe bytes.loadUnaligned(as: fuse_in_header.self)
    guard Int(header.len) == bytes.count else { return (header.unique, .malformed) }
    let body = unsafe UnsafeRawBufferPointer(rebasing: bytes[headerBytes...])
    return (header.unique, unsafe decodeBody(header, body))
}

private func decodeBody(
    _ header: fuse_in_header, _ body: UnsafeRawBufferPointer
) -> FuseRequest {
    switch fuse_opcode(rawValue: header.opcode) {
    case FUSE_INIT:
        // Kernels before 7.36 send the short form: only its common beginning is read.
        guard body.count >= 16 else { return .malformed }
        return unsafe .initialize(
            major: body.loadUnaligned(as: UInt32.self),
            minor: body.loadUnaligned(fromByteOffset: 4, as: UInt32.self),
            flags: body.loadUnaligned(fromByteOffset: 12, as: UInt32.self),
            maxReadahead: body.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
    case FUSE_LOOKUP:
        return unsafe .lookup(
            isDevice: header.nodeid == FuseNode.root && isDeviceName(body))
    case FUSE_GETATTR, FUSE_SETATTR: return .attributes(node: header.nodeid)
    case FUSE_OPEN: return header.nodeid == FuseNode.device ? .open : .unsupported
    case FUSE_OPENDIR: return .openDirectory
    case FUSE_READDIR: return .readDirectory
    case FUSE_READ:
        guard let read = unsafe load(body, as: fuse_read_in.self) else { return .malformed }
        guard Int(read.size) <= SwapLimits.requestBytes else { return .malformed }
        return .read(offset: read.offset, count: Int(read.size))
    case FUSE_WRITE:
        guard let write = unsafe load(body, as: fuse_write_in.self),
            body.count == MemoryLayout<fuse_write_in>.size + Int(write.size),
            Int(write.size) <= SwapLimits.requestBytes
        else { return .malformed }
        return .write(offset: write.offset, count: Int(write.size))
    case FUSE_FALLOCATE:
        guard let range = unsafe load(body, as: fuse_fallocate_in.self) else { return .malformed }
        // FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE: what a loop device's discard becomes.
        guard range.mode == 3 else { return .unsupported }
        return .punchHole(offset: range.offset, count: range.length)
    case FUSE_FLUSH, FUSE_FSYNC: return .flush
    case FUSE_STATFS: return .statistics
    case FUSE_FORGET, FUSE_BATCH_FORGET, FUSE_INTERRUPT: return .silent
    case FUSE_RELEASE, FUSE_RELEASEDIR: return .release
    case FUSE_DESTROY: return .destroy
    default: return .unsupported
    }
}

private func load<T: BitwiseCopyable>(_ bytes: UnsafeRawBufferPointer, as type: T.Type) -> T? {
    bytes.count >= MemoryLayout<T>.size ? unsafe bytes.loadUnaligned(as: type) : nil
}

/// Whether a lookup's terminated name is the device's. Compares bytes: no string is made.
private func isDeviceName(_ bytes: UnsafeRawBufferPointer) -> Bool {
    let name = FuseNode.deviceName.utf8
    guard bytes.count == name.count + 1, unsafe bytes[name.count] == 0 else { return false }
    var index = 0
    for byte in name {
        guard unsafe bytes[index] == byte else { return false }
        index += 1
    }
    return true
}

/// The answers' bodies.
enum FuseReply {
    /// What the handshake settles: large requests, direct I/O in parallel.
    static func initialize(minor: UInt32, flags: UInt32, maxReadahead: UInt32) -> fuse_init_out {
        var out = fuse_init_out()
        out.major = UInt32(FUSE_KERNEL_VERSION)
        out.minor = min(minor, UInt32(FUSE_KERNEL_MINOR_VERSION))
        out.max_readahead = maxReadahead
        out.flags =
            flags
            & UInt32(FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_ASYNC_DIO)
        out.max_background = SwapLimits.background
        out.congestion_threshold = SwapLimits.background / 4 * 3
        out.max_write = UInt32(SwapLimits.requestBytes)
        out.max_pages = UInt16(SwapLimits.requestPages)
        out.time_gran = 1
        return out
    }

    static func attributes(node: UInt64, size: UInt64) -> fuse_attr {
        var attr = fuse_attr()
        attr.ino = node
        attr.nlink = 1
        attr.blksize = UInt32(pageBytes)
        if node == FuseNode.root {
            attr.mode = 0o040_500
            attr.nlink = 2
        } else {
            attr.mode = 0o100_600
            attr.size = size
            attr.blocks = size / 512
        }
        return attr
    }

    static func entry(size: UInt64) -> fuse_entry_out {
        var out = fuse_entry_out()
        out.nodeid = FuseNode.device
        out.generation = 1
        out.entry_valid = 3600
        out.attr_valid = 3600
        out.attr = attributes(node: FuseNode.device, size: size)
        return out
    }

    static func attributesOut(node: UInt64, size: UInt64) -> fuse_attr_out {
        var out = fuse_attr_out()
        out.attr_valid = 3600
        out.attr = attributes(node: node, size: size)
        return out
    }

    static func open(direct: Bool) -> fuse_open_out {
        var out = fuse_open_out()
        out.fh = 1
        out.open_flags = direct ? UInt32(FOPEN_DIRECT_IO) : 0
        return out
    }

    static func statistics(size: UInt64) -> fuse_statfs_out {
        var out = fuse_statfs_out()
        out.st.blocks = size / UInt64(pageBytes)
        out.st.bsize = UInt32(pageBytes)
        out.st.frsize = UInt32(pageBytes)
        out.st.namelen = 255
        return out
    }
}
