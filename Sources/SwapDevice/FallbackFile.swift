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
        let length = range.count * pageBytes
        var done = 0
        while done < length {
            let got = unsafe pread(
                file.rawValue, bytes + done, length - done,
                off_t(range.first) * off_t(pageBytes) + off_t(done))
            if got <= 0 {
                if got < 0, errno == EINTR { continue }
                return false
            }
            done += got
        }
        return true
    }

    package func store(_ range: PageRange, from bytes: UnsafeRawPointer) -> Bool {
        let length = range.count * pageBytes
        var done = 0
        while done < length {
            let got = unsafe pwrite(
                file.rawValue, bytes + done, length - done,
                off_t(range.first) * off_t(pageBytes) + off_t(done))
            if got <= 0 {
                if got < 0, errno == EINTR { continue }
                return false
            }
            done += got
        }
        return true
    }

    /// The blocks stay reserved; only the bitmap forgets the pages.
    package func discard(_ range: PageRange) {}
}
