package import FarMemory
import LinuxSystem

/// What the guards need to know of the host. Nil is unknown, and never read as zero.
package struct HostMemory: Equatable, Sendable {
    /// Total time that some task waited for memory since boot (/proc/pressure/memory).
    package var pressureTotal: Nanoseconds?
    /// The kernel's own average of the last 10 s, in thousandths: what there is before two totals are known.
    package var pressureRecent: UInt64?
    /// Swap space that is not in use; zero when no swap is on.
    package var farFree: ByteCount?
    package var farTotal: ByteCount?

    package init() {}

    /// Reads the host's figures now.
    package static func read() -> HostMemory {
        var host = HostMemory()
        if let text = try? readSmallText("/proc/pressure/memory") {
            host.pressureTotal = parsePressureTotal(text)
            host.pressureRecent = parsePressureAverage(text)
        }
        if let areas = try? swapAreas() {
            let total = areas.reduce(UInt64(0)) { $0 + $1.size }
            host.farTotal = ByteCount(total)
            host.farFree = ByteCount(total) - ByteCount(areas.reduce(UInt64(0)) { $0 + $1.used })
        }
        return host
    }
}
