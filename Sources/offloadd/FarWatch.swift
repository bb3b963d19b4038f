import FarMemory
import LinuxSystem
import OffloadEngine
import SwapDevice
import Synchronization

/// What farswap's devices say of themselves, for the guards: the worst of them counts. Read once a second by the control thread.
final class FarWatch: Sendable {
    /// Fewer loads since the last look say nothing about latency.
    private static let loadsMin: UInt64 = 16
    private let seen = Mutex<[String: [UInt64]]>([:])

    /// Nil when there is no device of farswap's: other swap devices do not tell.
    func look() -> FarState? {
        let directory = DeviceDirectory()
        var state: FarState?
        for name in directory.names() {
            guard let record = try? directory.load(name),
                let status = try? DeviceStatus(of: record)
            else { continue }
            var now = state ?? FarState(isConnected: true, latency: nil)
            // The module and nbd.ko answer for themselves while they are attached.
            if status.condition != .attached && status.condition != .keeperDown {
                now.isConnected = false
            }
            let counts = status.loads.counts
            let before = seen.withLock { seen in
                defer { seen[name] = counts }
                return seen[name]
            }
            if let latency = Self.latency(counts, since: before) {
                now.latency = max(now.latency ?? .zero, latency)
            }
            state = now
        }
        return state
    }

    /// The 99th percentile of the loads since the last look.
    static func latency(_ counts: [UInt64], since before: [UInt64]?) -> Nanoseconds? {
        guard let before, before.count == counts.count else { return nil }
        let new = LatencyBuckets(counts: zip(counts, before).map { $0 - min($0, $1) })
        guard new.total >= loadsMin else { return nil }
        return Nanoseconds(Int64(clamping: new.percentile(0.99)))
    }
}
