import Containers
package import FarMemory
import LinuxSystem
import OffloadPolicy
import Synchronization

/// Why far memory cannot be emptied now.
package enum MaintenanceError: Error, Equatable, CustomStringConvertible {
    case tooLittleMemory(far: ByteCount, available: ByteCount)
    case unknownMemory
    case busy

    package var description: String {
        switch self {
        case .tooLittleMemory(let far, let available):
            "\(far) are far and only \(available) of local memory are available: end some containers, or add memory"
        case .unknownMemory: "the kernel does not say how much memory is available"
        case .busy: "too many messages wait; try again"
        }
    }
}

extension Controller {
    /// Before maintenance of far memory: nothing leaves any more, and what is far of the containers comes back. `false`: as before.
    /// Any thread.
    package func setMaintenance(_ isOn: Bool) throws(MaintenanceError) {
        if isOn {
            let far = status().containers.reduce(UInt64(0)) { $0 + ($1.measure?.far?.bytes ?? 0) }
            guard let available = try? memoryInformation("MemAvailable"),
                let total = try? memoryInformation("MemTotal")
            else { throw .unknownMemory }
            try Self.requireRoom(
                far: ByteCount(far), available: ByteCount(available), total: ByteCount(total))
        }
        guard inbox.put(.maintenance(isOn)) else { throw .busy }
    }

    /// A twentieth of the memory stays available.
    static func requireRoom(
        far: ByteCount, available: ByteCount, total: ByteCount
    ) throws(MaintenanceError) {
        guard far + ByteCount(total.bytes / 20) <= available else {
            throw .tooLittleMemory(far: far, available: available)
        }
    }
}

/// Reads back what is far, at a bounded rate. Belongs to the mover thread.
final class PageReturner {
    private static let piecePages: UInt64 = 512
    private let reader = PageMapReader()
    private let bytesPerSecond: UInt64

    init(rate: ByteCount) { bytesPerSecond = max(1 << 20, rate.bytes) }

    /// Reads back all swap entries of the container's processes and maps them, for as long as `isOn`. Returns how many pages.
    func pullBack(_ container: EngineContainer, isOn: () -> Bool) -> PageCount {
        let start = monotonicNow()
        var done: UInt64 = 0
        for process in container.processes() {
            guard let census = try? process.census(using: reader) else { continue }
            census.swapped.forEachPiece(pages: Self.piecePages) { piece in
                guard isOn(), (try? process.advise(piece, .willNeed)) != nil else { return false }
                done += process.touch(piece)
                let due =
                    start
                    + Int64(
                        ByteCount(pages: PageCount(done)).bytes * 1_000_000
                            / (bytesPerSecond / 1000 + 1))
                sleepNanoseconds(max(0, due - monotonicNow()))
                return true
            }
            container.update(process) {
                $0.marked = PageRuns()
                $0.recalled = PageRuns()
            }
        }
        return PageCount(done)
    }
}
