package import FarMemory
import LinuxSystem
package import MemoryPool
import PoolProtocol
package import Synchronization

extension Lease: ExportBacking {
    package var pageWords: UnsafeMutablePointer<Atomic<UInt64>> { unsafe pages.rawWords }
    package var sizeBytes: UInt64 { size.bytes }
    package var slabPages: Int { pagesPerSlab }
    package func isGranted(slab: Int) -> Bool { isGranted(slab) }

    package func grant(slab: Int) -> Bool {
        do throws(PoolError) { return try grant(slab..<slab + 1) == 1 } catch { return false }
    }

    package func giveBack(slab: Int) {
        // The caller has seen that it is empty and lets nobody store; a failed punch keeps it granted.
        try? giveBack(slab..<slab + 1)
    }
}

/// The pool's leases as NBD exports. Any thread.
package final class PoolExports: NBDExports {
    private struct Shared {
        let memory: ExportMemory
        var connections: Int
    }

    private let pool: MemoryPool
    private let autoLease: ByteCount?
    /// All connections to a lease go through one `ExportMemory`: its gate is what keeps them apart.
    private let open = Mutex<[UInt64: Shared]>([:])

    /// `autoLease`: unknown exports are made with this size.
    package init(pool: MemoryPool, autoLease: ByteCount?) {
        self.pool = pool
        self.autoLease = autoLease
    }

    package func names(key: String?) -> [String] {
        pool.leases().filter { $0.lease.owner == key }.map(\.lease.name)
    }

    package func size(_ name: String, key: String?) -> UInt64? {
        guard let found = pool.leases().first(where: { $0.lease.name == name })?.lease else {
            return isLeaseName(name) ? autoLease.map { pool.wholeSlabs($0).bytes } : nil
        }
        return found.owner == key ? found.size.bytes : nil
    }

    package func open(_ name: String, key: String?) throws(NBDOpenFailure) -> NBDOpenExport {
        let lease: Lease
        do throws(PoolError) {
            lease = try pool.attach(name, .shared, key: key, createSize: autoLease)
        } catch {
            switch error {
            case .leaseBusy: throw .busy
            case .noSuchLease, .notOwner, .invalidName: throw .unknown
            default: throw .noSpace
            }
        }
        let memory = open.withLock { open in
            let memory = open[lease.id]?.memory ?? ExportMemory(lease)
            open[lease.id] = Shared(
                memory: memory, connections: (open[lease.id]?.connections ?? 0) + 1)
            return memory
        }
        return NBDOpenExport(memory: memory) { self.close(lease) }
    }

    private func close(_ lease: Lease) {
        open.withLock { open in
            guard let shared = open[lease.id] else { return }
            let isLast = shared.connections == 1
            open[lease.id]?.connections -= 1
            if isLast { open[lease.id] = nil }
        }
        pool.detach(lease)
    }
}
