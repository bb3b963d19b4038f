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

    /// Pages written to swap since boot, for whatever reason (`pswpout` of /proc/vmstat); nil when the kernel does not say.
    package static func swappedOut() -> PageCount? {
        guard let text = try? readSmallText("/proc/vmstat"),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("pswpout ") })
        else { return nil }
        return UInt64(line.dropFirst("pswpout ".count)).map { PageCount($0) }
    }
}
