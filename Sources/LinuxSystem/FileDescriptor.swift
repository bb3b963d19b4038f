import CLinuxShims
import Glibc

/// The owner of one descriptor: closed when it goes out of scope, never twice.
package struct FileDescriptor: ~Copyable, Sendable {
    /// The number, for calls that borrow it. It must not outlive the owner.
    package let rawValue: Int32

    /// Takes over an open descriptor.
    package init(owning rawValue: Int32) {
        precondition(rawValue >= 0, "an owner needs an open descriptor")
        self.rawValue = rawValue
    }

    /// Takes over what a call returned, or throws the call's errno.
    package init(_ call: String, _ result: Int32) throws(SystemError) {
        guard result >= 0 else { throw SystemError.last(call) }
        self.rawValue = result
    }

    deinit { Glibc.close(rawValue) }

    /// Gives the descriptor up without closing it.
    package consuming func release() -> Int32 {
        let value = rawValue
        discard self
        return value
    }

    /// A second descriptor for the same open file, close-on-exec.
    package func duplicate() throws(SystemError) -> FileDescriptor {
        try FileDescriptor("fcntl(F_DUPFD_CLOEXEC)", fm_dup_cloexec(rawValue))
    }
}

extension FileDescriptor {
    /// Opens a path; `flags` as open(2), close-on-exec is added.
    package static func open(
        _ path: String, _ flags: Int32, mode: UInt32 = 0o644
    ) throws(SystemError) -> FileDescriptor {
        let fd = try check("open \(path)") { unsafe Glibc.open(path, flags | O_CLOEXEC, mode) }
        return FileDescriptor(owning: fd)
    }

    /// Opens a path below a directory, never following the last link.
    package static func open(
        _ path: String, below directory: borrowing FileDescriptor, _ flags: Int32,
        mode: UInt32 = 0o644
    ) throws(SystemError) -> FileDescriptor {
        let base = directory.rawValue
        let fd = try check("openat \(path)") {
            unsafe Glibc.openat(base, path, flags | O_CLOEXEC | O_NOFOLLOW, mode)
        }
        return FileDescriptor(owning: fd)
    }

    /// Reads at most `buffer.count` bytes; 0 at the end of the file.
    package func read(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        try check("read") { unsafe Glibc.read(rawValue, buffer.baseAddress, buffer.count) }
    }

    /// Writes all of the buffer.
    package func writeAll(_ buffer: UnsafeRawBufferPointer) throws(SystemError) {
        var done = 0
        while done < buffer.count {
            // SAFETY: done < count, so the pointer stays inside the buffer.
            done += try check("write") {
                unsafe Glibc.write(
                    rawValue, buffer.baseAddress.map { unsafe $0 + done }, buffer.count - done)
            }
        }
    }

    /// Writes a text whole.
    package func writeAll(_ text: String) throws(SystemError) {
        var copy = text
        let error: SystemError? = copy.withUTF8 { utf8 in
            do throws(SystemError) {
                try unsafe writeAll(UnsafeRawBufferPointer(utf8))
                return nil
            } catch {
                return error
            }
        }
        if let error { throw error }
    }

    /// The file's length in bytes.
    package func size() throws(SystemError) -> UInt64 {
        var facts = stat()
        try check("fstat") { unsafe fstat(rawValue, &facts) }
        return UInt64(facts.st_size)
    }

    /// Bytes that the file really occupies.
    package func allocatedBytes() throws(SystemError) -> UInt64 {
        var facts = stat()
        try check("fstat") { unsafe fstat(rawValue, &facts) }
        return UInt64(facts.st_blocks) * 512
    }

    package func truncate(to bytes: UInt64) throws(SystemError) {
        try check("ftruncate") { ftruncate(rawValue, off_t(bytes)) }
    }

    /// Reserves the range's blocks without changing the file's length (fallocate KEEP_SIZE).
    package func allocate(offset: UInt64, length: UInt64) throws(SystemError) {
        try check("fallocate") { fm_fallocate(rawValue, offset, length) }
    }

    /// Frees and clears a range (fallocate PUNCH_HOLE).
    package func punchHole(offset: UInt64, length: UInt64) throws(SystemError) {
        try check("fallocate(punch hole)") { fm_punch_hole(rawValue, offset, length) }
    }

    /// Takes an advisory lock on the open file; false when another holds it and `wait` is false.
    package func lock(exclusive: Bool = true, wait: Bool = false) throws(SystemError) -> Bool {
        while true {
            if fm_flock(rawValue, exclusive, wait) == 0 { return true }
            if errno == EWOULDBLOCK { return false }
            if errno != EINTR { throw SystemError.last("flock") }
        }
    }
}
