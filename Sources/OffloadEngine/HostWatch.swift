import Containers
package import FarMemory
import OffloadPolicy

/// What far memory says of itself.
package struct FarState: Equatable, Sendable {
    /// Every device is served.
    package var isConnected: Bool
    /// What the slowest hundredth of the last second's loads took at least; nil when there were few.
    package var latency: Nanoseconds?

    package init(isConnected: Bool, latency: Nanoseconds?) {
        self.isConnected = isConnected
        self.latency = latency
    }
}

/// Turns the host's cumulative pressure into a share of the time, over stretches of a second.
struct HostWatch {
    private static let stretch: Int64 = 1_000_000_000

    private(set) var measure = HostMeasure(pressurePermille: nil, farFree: nil)
    private(set) var farTotal: ByteCount?
    private var last: (at: Int64, total: Nanoseconds)?
    private var lookedAt = Int64.min

    /// The figures as of `now` (monotonic nanoseconds); read anew once a second.
    mutating func look(at now: Int64, far: () -> FarState?) -> HostMeasure {
        guard lookedAt == .min || now - lookedAt >= Self.stretch else { return measure }
        lookedAt = now
        take(HostMemory.read(), at: now)
        let state = far()
        measure.farIsConnected = state?.isConnected
        measure.farLatency = state?.latency
        return measure
    }

    /// Takes in figures; before a second total, the kernel's average stands in.
    mutating func take(_ host: HostMemory, at now: Int64) {
        measure.farFree = host.farFree
        farTotal = host.farTotal
        guard let total = host.pressureTotal else {
            measure.pressurePermille = nil
            measure.pressureMillionths = nil
            last = nil
            return
        }
        if let last, now > last.at {
            let waited = max(0, (total - last.total).nanoseconds)
            measure.pressurePermille = UInt64(waited * 1000 / (now - last.at))
            measure.pressureMillionths = UInt64(waited * 1_000_000 / (now - last.at))
        } else {
            measure.pressurePermille = host.pressureRecent
            measure.pressureMillionths = host.pressureRecent.map { $0 * 1000 }
        }
        last = (now, total)
    }
}
