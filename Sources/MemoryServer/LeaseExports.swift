package import FarMemory
import LinuxSystem
package import MemoryPool
package import Synchronization

/// A pool lease as the backing of an export.
final class LeaseBacking: ExportBacking {
    let lease: Lease

    init(_ lease: Lease) { self.lease = lease }

    var base: UnsafeMutableRawPointer { unsafe lease.base }
    var pageWords: UnsafeMutablePointer<Atomic<UInt64>> { unsafe lease.pages.rawWords }
    var sizeBytes: UInt64 { lease.size.bytes }
    var epoch: UInt64 { lease.epoch }
    var slabPages: Int { lease.pagesPerSlab }

    func isGranted(slab: Int) -> Bool { lease.isGranted(slab) }

    func grant(slab: Int) -> Bool {
        do throws(PoolError) { return try lease.grant(slab..<slab + 1) == 1 } catch { return false }
    }

    func giveBack(slab: Int) {
        // A slab that got a page meanwhile stays; any other failure leaves it granted, which is safe.
        try? lease.giveBack(slab..<slab + 1)
    }
}

/// The leases of a pool as NBD exports: the lease's name is the export's.
package final class LeaseExports: NBDExports {
    private let pool: MemoryPool
    private let autoLease: ByteCount?
    /// Leases that connections have open: all of one lease share its gate (ExportMemory).
    private let opened = Mutex<[String: Opened]>([:])

    private struct Opened {
        let memory: ExportMemory
        let lease: Lease
        var users: Int
    }

    /// - Parameter autoLease: the size of the lease that is made for an unknown export name; nil: none is.
    package init(_ pool: MemoryPool, autoLease: ByteCount?) {
        self.pool = pool
        self.autoLease = autoLease
    }

    package func names(key: String?) -> [String] {
        pool.leases().map(\.lease).filter { $0.owner == key }.map(\.name)
    }

    package func size(_ name: String, key: String?) -> UInt64? {
        if let lease = pool.leases().map(\.lease).first(where: { $0.name == name }) {
            return lease.owner == key ? lease.size.bytes : nil
        }
        guard let autoLease, isNameOfLease(name) else { return nil }
        let slab = pool.slab.bytes
        return (autoLease.bytes + slab - 1) / slab * slab
    }

    package func open(_ name: String, key: String?) throws(NBDOpenFailure) -> NBDOpenExport {
        let lease: Lease
        do throws(PoolError) {
            lease = try pool.attach(name, .shared, key: key, createSize: autoLease)
        } catch {
            switch error {
            case .leaseBusy: throw .busy
            case .noSpace, .quotaUsedUp, .tooManyLeases: throw .noSpace
            // Whose lease it is, is told to nobody else.
            default: throw .unknown
            }
        }
        let memory = opened.withLock { opened -> ExportMemory in
            if let known = opened[name], known.lease === lease {
                opened[name]?.users += 1
                return known.memory
            }
            let memory = ExportMemory(LeaseBacking(lease))
            opened[name] = Opened(memory: memory, lease: lease, users: 1)
            return memory
        }
        return NBDOpenExport(memory: memory) { self.close(lease) }
    }

    private func close(_ lease: Lease) {
        opened.withLock { opened in
            guard var entry = opened[lease.name], entry.lease === lease else { return }
            entry.users -= 1
            opened[lease.name] = entry.users == 0 ? nil : entry
        }
        pool.detach(lease)
    }
}
