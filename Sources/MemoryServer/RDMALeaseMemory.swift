import FarMemory
import Glibc
import LinuxSystem
import MemoryPool
import PoolProtocol
import Telemetry
import Verbs

/// A lease as one session's data queues see it: a protection domain of its own, one region for each slab that the session has
/// a key of, and the queues. Belongs to the session's thread; ends before the lease is anybody else's.
final class RDMALeaseMemory {
    let lease: Lease
    private let counters: RDMACounters
    private let domain: ProtectionDomain
    /// Data queues post nothing, so nothing ever completes here.
    private let completions: CompletionQueue
    private var regions: [Int: MemoryRegion] = [:]
    private var queues: [UInt16: RDMAConnection] = [:]

    /// Where clients find the lease's first byte. It says nothing of where it lies in this process.
    static let base: UInt64 = 1 << 40
    /// Keys that fit into one answer.
    static let keysMax = 124

    init(
        _ lease: Lease, on connection: RDMAConnection, _ counters: RDMACounters
    ) throws(SystemError) {
        self.lease = lease
        self.counters = counters
        domain = try ProtectionDomain(on: connection)
        completions = try CompletionQueue(on: connection, entries: 1)
    }

    deinit { end() }

    /// Ends the queues and the keys. What clients sent and was not carried out never will be.
    func end() {
        counters.queuesOpen.add(-Int64(queues.count))
        counters.regions.add(-Int64(regions.count))
        for queue in queues.values {
            queue.disconnect()
            queue.end()
        }
        queues = [:]
        // Without queues in their domain the keys are worth nothing: a failure here harms nobody.
        for region in regions.values { try? region.end() }
        regions = [:]
    }

    // MARK: Queues

    /// Accepts a data queue; false when its number is taken or it is on another device.
    func accept(
        _ number: UInt16, _ connection: RDMAConnection, reads: Int, control: RDMAConnection
    ) throws(SystemError) -> Bool {
        guard queues[number] == nil, connection.isOnDevice(of: control) else { return false }
        // Devices want at least one of each.
        try connection.makeQueues(domain, completions, sends: 1, receives: 1)
        var options = RDMAConnectionOptions()
        options.privateData =
            RDMAAccept(version: RDMAServer.version, queue: number, credits: 0).encoded()
        options.readsIn = reads
        try connection.accept(options)
        queues[number] = connection
        counters.queuesOpen.add(1)
        return true
    }

    func closeQueue(_ number: UInt16) {
        guard let queue = queues.removeValue(forKey: number) else { return }
        queue.end()
        counters.queuesOpen.add(-1)
    }

    // MARK: Slabs

    /// Grants slabs from the first on and registers them.
    /// - Returns: the keys of those that are granted now, from the first on.
    func grant(_ slabs: SlabRange) throws(PoolError) -> [UInt32] {
        guard slabs.count <= Self.keysMax, slabs.end <= UInt64(lease.slabCount) else {
            throw .outOfRange
        }
        let range = Int(slabs.first)..<Int(slabs.end)
        let fresh = range.filter { !lease.isGranted($0) }
        let granted = try lease.grant(range)
        let end = range.lowerBound + granted
        var keys: [UInt32] = []
        do throws(PoolError) {
            for slab in range.lowerBound..<end { keys.append(try key(slab)) }
        } catch {
            // What nobody has a key of must not stay granted.
            for slab in fresh where slab >= range.lowerBound + keys.count && slab < end {
                try forget(slab)
            }
            if keys.isEmpty { throw error }
        }
        return keys
    }

    /// The first run of granted slabs in a range, with keys.
    func held(_ slabs: SlabRange) throws(PoolError) -> (first: UInt32, keys: [UInt32]) {
        guard slabs.count <= Self.keysMax, slabs.end <= UInt64(lease.slabCount) else {
            throw .outOfRange
        }
        let range = Int(slabs.first)..<Int(slabs.end)
        guard let first = range.first(where: { lease.isGranted($0) }) else {
            return (slabs.first, [])
        }
        var keys: [UInt32] = []
        for slab in first..<range.upperBound {
            guard lease.isGranted(slab) else { break }
            keys.append(try key(slab))
        }
        return (UInt32(first), keys)
    }

    /// Takes slabs back: their keys end first.
    func giveBack(_ slabs: SlabRange) throws(PoolError) {
        guard Int(slabs.count) <= PoolLimits.slabsPerRequestMax,
            slabs.end <= UInt64(lease.slabCount)
        else { throw .outOfRange }
        for slab in Int(slabs.first)..<Int(slabs.end) where lease.isGranted(slab) {
            try forget(slab)
        }
    }

    private func forget(_ slab: Int) throws(PoolError) {
        if let region = regions[slab] {
            do throws(SystemError) { try region.end() } catch { throw .system(error) }
            regions[slab] = nil
            counters.regions.add(-1)
        }
        lease.pages.clear(pages(slab))
        try lease.giveBack(slab..<slab + 1)
    }

    private func pages(_ slab: Int) -> Range<Int> {
        slab * lease.pagesPerSlab..<(slab + 1) * lease.pagesPerSlab
    }

    /// The key of a granted slab, registering it when it has none yet.
    private func key(_ slab: Int) throws(PoolError) -> UInt32 {
        if let region = regions[slab] { return region.remoteKey }
        claimPages(slab)
        do throws(SystemError) {
            // SAFETY: the slab lies in the lease's mapping, is granted and stays so until the region has ended; the lease
            // outlives this object.
            let region = try unsafe MemoryRegion(
                domain, lease.base + slab * lease.slabBytes, count: lease.slabBytes,
                address: Self.base + UInt64(slab) * UInt64(lease.slabBytes), isRemote: true)
            regions[slab] = region
            counters.regions.add(1)
            return region.remoteKey
        } catch {
            throw error.code == ENOMEM ? .noSpace : .system(error)
        }
    }

    /// Nobody here sees which pages a client writes: all count as held from now on, and those that held nothing read as
    /// zeros, whatever an earlier client left there.
    private func claimPages(_ slab: Int) {
        let range = pages(slab)
        var page = range.lowerBound
        while page < range.upperBound {
            let run = lease.pages.run(page..<range.upperBound)
            if !run.isSet {
                // SAFETY: pages of a granted slab, which no other client has.
                unsafe memset(lease.base + page * pageBytes, 0, run.count * pageBytes)
                lease.pages.set(page..<page + run.count)
            }
            page += run.count
        }
    }
}
