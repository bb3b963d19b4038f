// FabricDRAM: memory of this host behind the same seam, in a file on tmpfs. No server, no quota: it
// shows what the swap path itself costs, apart from any pool (Fastswap's DRAM backend has the same
// purpose). Pages live as long as the file.

package import Fabric
package import FarMemory
import Glibc
package import LinuxSystem

/// `dram:PATH`
@safe package final class FabricDRAM: Fabric, @unchecked Sendable {
    // SAFETY of @unchecked Sendable: the mapping is only read and written page-wise by channels; the
    // kernel never has two requests for one page in flight.
    package let size: ByteCount
    fileprivate let file: FileDescriptor
    fileprivate let map: MemoryMapping
    private let path: String

    /// Makes or opens the file.
    package init(path: String, size: ByteCount) throws(SystemError) {
        file = try FileDescriptor.open(path, O_RDWR | O_CREAT, mode: 0o600)
        try file.truncate(to: size.bytes)
        map = try MemoryMapping(sharing: file.rawValue, count: Int(size.bytes))
        self.size = size
        self.path = path
    }

    package var state: FabricState { .connected }
    package var counters: FabricCounters { FabricCounters() }
    package var maximumChannels: Int { 64 }
    package func makeChannel() throws(FabricError) -> any FabricChannel { Channel(self) }
    package func close(releaseLease: Bool) { if releaseLease { unsafe unlink(path) } }

    private final class Channel: FabricChannel {
        private let fabric: FabricDRAM

        init(_ fabric: FabricDRAM) { self.fabric = fabric }

        private func offset(_ range: PageRange) throws(FabricError) -> Int {
            guard range.end <= fabric.size.pages.pages else { throw .outOfRange }
            return Int(range.first) * pageBytes
        }

        func load(
            _ range: PageRange, staging: UnsafeMutableRawPointer,
            vectors: UnsafeMutablePointer<iovec>, deadline: Int64
        ) throws(FabricError) -> Int {
            let offset = try offset(range)
            unsafe vectors[0] = iovec(
                iov_base: fabric.map.base + offset, iov_len: range.count * pageBytes)
            return 1
        }

        func store(
            _ range: PageRange, from bytes: UnsafeRawPointer, deadline: Int64
        ) throws(FabricError) {
            let offset = try offset(range)
            unsafe (fabric.map.base + offset).copyMemory(
                from: bytes, byteCount: range.count * pageBytes)
        }

        func discard(_ range: PageRange, deadline: Int64) throws(FabricError) {
            let offset = try offset(range)
            do throws(SystemError) {
                try fabric.file.punchHole(
                    offset: UInt64(offset), length: UInt64(range.count * pageBytes))
            } catch {
                throw .peerError(error.code)
            }
        }
    }
}
