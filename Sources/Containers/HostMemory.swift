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
        if let swap = try? swapTotals() {
            host.farTotal = ByteCount(swap.size)
            host.farFree = ByteCount(swap.size) - ByteCount(swap.used)
        }
        return host
    }

    /// Whether more than half of all swap space is in use: the kernel gives a page's slot back when it is read then (`vm_swap_full`
    /// of include/linux/swap.h). Unknown counts as no.
    package static func swapIsMoreThanHalfFull() -> Bool {
        guard let swap = try? swapTotals() else { return false }
        return swap.used * 2 > swap.size
    }

    /// Bytes of all swap areas together.
    private static func swapTotals() throws(SystemError) -> (size: UInt64, used: UInt64) {
        let areas = try swapAreas()
        return (areas.reduce(0) { $0 + $1.size }, areas.reduce(0) { $0 + $1.used })
    }

    /// Pages swapped out and in since boot, for whatever reason; nil when the kernel does not say.
    package static func swapCounts() -> (out: UInt64?, in: UInt64?) {
        parseSwapCounts((try? readSmallText("/proc/vmstat")) ?? "")
    }

    /// The pages written of `swapCounts`.
    package static func swappedOut() -> PageCount? { swapCounts().out.map { PageCount($0) } }
}

/// Pages swapped out and in since boot, as /proc/vmstat counts them.
package func parseSwapCounts(_ text: String) -> (out: UInt64?, in: UInt64?) {
    var out: UInt64?
    var back: UInt64?
    for line in text.split(separator: "\n") {
        if line.hasPrefix("pswpout ") { out = UInt64(line.dropFirst(8)) }
        if line.hasPrefix("pswpin ") { back = UInt64(line.dropFirst(7)) }
    }
    return (out, back)
}
