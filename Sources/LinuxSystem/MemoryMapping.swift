import CLinuxShims
import Glibc

/// The owner of one mapping, unmapped when it goes out of scope.
@safe package struct MemoryMapping: ~Copyable, @unchecked Sendable {
    // SAFETY of @unchecked Sendable: the owner only says where the memory is; who may touch which
    // part of it is the rule of the module that shares it.

    /// The first byte. It must not be used after the owner is gone.
    package let base: UnsafeMutableRawPointer
    /// Length in bytes.
    package let count: Int

    /// Maps a file shared. `offset` must be a multiple of the page size.
    package init(
        sharing fd: Int32, offset: UInt64 = 0, count: Int, writable: Bool = true,
        populate: Bool = false
    ) throws(SystemError) {
        let protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
        let flags = MAP_SHARED | (populate ? Int32(MAP_POPULATE) : 0)
        unsafe try self.init(
            mapped: mmap(nil, count, protection, flags, fd, off_t(offset)), count: count)
    }

    /// Maps fresh zeroed memory, private, or shared with children.
    package init(anonymous count: Int, shared: Bool = false, populate: Bool = false)
        throws(SystemError)
    {
        let flags =
            (shared ? MAP_SHARED : MAP_PRIVATE) | Int32(MAP_ANONYMOUS)
            | (populate ? Int32(MAP_POPULATE) : 0)
        unsafe try self.init(
            mapped: mmap(nil, count, PROT_READ | PROT_WRITE, flags, -1, 0), count: count)
    }

    private init(mapped: UnsafeMutableRawPointer?, count: Int) throws(SystemError) {
        guard let base = unsafe mapped, unsafe base != MAP_FAILED else {
            throw SystemError.last("mmap \(count) bytes")
        }
        unsafe self.base = base
        self.count = count
    }

    deinit { unsafe munmap(base, count) }

    /// The whole mapping as a buffer.
    package var bytes: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(start: base, count: count)
    }

    /// Locks each page as it is touched: it will never be swapped out.
    package func lockOnFault() throws(SystemError) {
        try check("mlock2") { unsafe fm_mlock_on_fault(base, count) }
    }

    /// Faults pages in for writing, off the hot path. The range must lie inside the mapping.
    package func populate(offset: Int, count length: Int) throws(SystemError) {
        precondition(offset >= 0 && length >= 0 && offset + length <= count, "outside the mapping")
        // SAFETY: the range was just checked against the mapping.
        while unsafe fm_populate_write(base + offset, length) < 0 {
            // The address is ours; EFAULT says that the file behind it has become shorter.
            let code = errno == EFAULT ? EIO : errno
            if code != EINTR { throw SystemError(call: "madvise(POPULATE_WRITE)", code: code) }
        }
    }
}

/// Memory without a name in the file system; `fixedSize` seals its size so that no holder can shrink it.
package func makeMemoryFile(
    _ name: String, size: UInt64, fixedSize: Bool
) throws(SystemError) -> FileDescriptor {
    let fd = unsafe try FileDescriptor("memfd_create", fm_memfd(name, fixedSize))
    try fd.truncate(to: size)
    if fixedSize {
        let raw = fd.rawValue
        try check("fcntl(F_ADD_SEALS)") { fm_seal_size(raw) }
    }
    return fd
}

/// Fills a buffer from the kernel's generator: for keys and challenges.
package func fillRandom(_ buffer: UnsafeMutableRawBufferPointer) throws(SystemError) {
    var done = 0
    while done < buffer.count {
        // SAFETY: done < count, so the pointer stays inside the buffer.
        done += try check("getrandom") {
            guard let base = buffer.baseAddress else { return Int64(0) }
            return unsafe fm_random(base + done, buffer.count - done)
        }.asInt
    }
}

extension Int64 {
    fileprivate var asInt: Int { Int(self) }
}

/// A shared mapping whose file another process cuts short reads as zeros there, instead of ending this
/// process with SIGBUS. Process-wide; call once at start.
package func surviveTruncatedMappings() throws(SystemError) {
    try check("sigaction(SIGBUS)") { fm_survive_truncation() }
}
