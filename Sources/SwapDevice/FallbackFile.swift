import CLinuxShims
package import Fabric
package import FarMemory
import Glibc
package import LinuxSystem

/// A file on a local disk, as large as the device and allocated at once, so that a store never finds
/// the disk full. Direct I/O: it must not need page cache to free memory.
package final class FallbackFile: FallbackStore {
    private let file: FileDescriptor

    /// Opens or makes the file. Its old bytes mean nothing: where pages are is in the shared region.
    package init(path: String, size: ByteCount) throws(SystemError) {
        do {
            let made = try FileDescriptor.open(path, O_RDWR | O_CREAT, mode: 0o600)
            try made.truncate(to: size.bytes)
            try made.allocate(offset: 0, length: size.bytes)
        }
        file = try FileDescriptor("open \(path) with O_DIRECT", unsafe fm_open_direct(path, true))
    }

    package func load(_ range: PageRange, into bytes: UnsafeMutableRawPointer) -> Bool {
        transfer(range) { done, length, offset in
            unsafe pread(file.rawValue, bytes + done, length, offset)
        }
    }

    package func store(_ range: PageRange, from bytes: UnsafeRawPointer) -> Bool {
        transfer(range) { done, length, offset in
            unsafe pwrite(file.rawValue, bytes + done, length, offset)
        }
    }

    /// Repeats a system call until it moved all of a range; false when it failed.
    private func transfer(
        _ range: PageRange, _ move: (_ done: Int, _ length: Int, _ offset: off_t) -> Int
    ) -> Bool {
        let length = range.count * pageBytes
        let start = off_t(range.first) * off_t(pageBytes)
        var done = 0
        while done < length {
            let moved = move(done, length - done, start + off_t(done))
            if moved < 0 && errno == EINTR { continue }
            guard moved > 0 else { return false }
            done += moved
        }
        return true
    }

    /// The blocks stay reserved; only the bitmap forgets the pages.
    package func discard(_ range: PageRange) {}
}
