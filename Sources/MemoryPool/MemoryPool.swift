package import FarMemory
import Glibc
import LinuxSystem
import Synchronization

/// How a pool is made.
package struct PoolOptions: Sendable {
    /// A directory on tmpfs; nil keeps the pages in memory files that end with the process.
    package var directory: String?
    package var capacity: ByteCount
    /// The unit of grant; nil takes what an existing pool has, else 1 MiB.
    package var slab: ByteCount?
    /// How long a lease stays without a client.
    package var grace: Nanoseconds

    package init(
        directory: String? = nil, capacity: ByteCount, slab: ByteCount? = nil,
        grace: Nanoseconds = .seconds(3600)
    ) {
        self.directory = directory
        self.capacity = capacity
        self.slab = slab
        self.grace = grace
    }
}

/// How a lease is attached.
package enum Attachment: Sendable {
    /// A shm client, which touches the memory itself: nobody else beside it.
    case exclusive
    /// One of several connections that this process serves.
    case shared
}

/// What a report says of a lease.
package struct LeaseStatus: Sendable {
    package let lease: Lease
    package let grantedSlabs: Int
    package let storedPages: Int
    /// Clients that have it open.
    package let clients: Int
    package let isExclusive: Bool
    /// Until its grace period ends; nil while it has a client or is pinned.
    package let expiresIn: Nanoseconds?
}

/// The memory that a server lends. Any thread; control calls take its lock.
package final class MemoryPool: Sendable {
    package let options: PoolOptions
    package let slab: ByteCount
    package let ledger: PoolLedger
    private let state: Mutex<State>
    private let storage: PoolStorage

    private struct Entry {
        let lease: Lease
        var clients = 0
        var isExclusive = false
        /// Monotonic; meaningful while `clients` is 0.
        var leftAt: Int64
    }

    private struct State {
        var entries: [String: Entry] = [:]
        var nextID: UInt64 = 1
    }

    /// Opens a pool, with all leases that an earlier process left in its directory.
    package init(_ options: PoolOptions) throws(PoolError) {
        self.options = options
        storage = try PoolStorage(directory: options.directory, capacity: options.capacity)
        let manifest = try storage.readManifest()
        slab = options.slab ?? manifest?.slab ?? ByteCount(UInt64(defaultSlabBytes))
        if let manifest, manifest.slab != slab { throw .otherSlabSize(manifest.slab) }
        ledger = PoolLedger(capacitySlabs: Int(options.capacity.bytes / slab.bytes))
        var state = State()
        state.nextID = manifest?.nextID ?? 1
        for record in manifest?.leases ?? [] {
            guard record.size.bytes > 0, record.size.bytes % slab.bytes == 0 else {
                throw .corrupt(
                    file: storage.path("manifest"),
                    reason: "lease \(record.name) is not made of whole slabs")
            }
            let lease = try Lease(
                record, slab: slab, ledger: ledger, storage: storage, create: false)
            state.entries[record.name] = Entry(lease: lease, leftAt: monotonicNow())
        }
        if ledger.grantedSlabs > ledger.capacitySlabs {
            throw .capacityBelowGranted(ByteCount(UInt64(ledger.grantedSlabs) * slab.bytes))
        }
        try storage.removeStrangers(knowing: state.entries.values.map(\.lease.id))
        self.state = Mutex(state)
        try save(state)
    }

    /// Bytes granted now.
    package var grantedBytes: ByteCount { ByteCount(UInt64(ledger.grantedSlabs) * slab.bytes) }

    /// All leases, by name.
    package func leases() -> [LeaseStatus] {
        let now = monotonicNow()
        let entries = state.withLock { Array($0.entries.values) }
        return entries.map { entry in
            let left = entry.leftAt + options.grace.nanoseconds - now
            let expires = entry.clients == 0 && !entry.lease.isPinned
            return LeaseStatus(
                lease: entry.lease, grantedSlabs: entry.lease.grantedSlabs,
                storedPages: entry.lease.storedPages, clients: entry.clients,
                isExclusive: entry.isExclusive,
                expiresIn: expires ? Nanoseconds(max(0, left)) : nil)
        }.sorted { $0.lease.name < $1.lease.name }
    }

    /// Makes a lease; nothing of it is granted yet. `size` is rounded up to whole slabs.
    @discardableResult
    package func create(
        _ name: String, size: ByteCount, quota: ByteCount? = nil, owner: String? = nil,
        pinned: Bool
    ) throws(PoolError) -> Lease {
        try withState { (state: inout State) throws(PoolError) in
            try create(name, size, quota, owner, pinned, &state)
        }
    }

    private func withState<R>(
        _ body: (inout State) throws(PoolError) -> R
    ) throws(PoolError) -> R {
        let result: Result<R, PoolError> = state.withLock { state in
            do throws(PoolError) { return .success(try body(&state)) } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func create(
        _ name: String, _ size: ByteCount, _ quota: ByteCount?, _ owner: String?, _ pinned: Bool,
        _ state: inout State
    ) throws(PoolError) -> Lease {
        guard isNameOfLease(name) else { throw .invalidName(name) }
        guard state.entries[name] == nil else { throw .leaseExists(name) }
        guard size.bytes > 0, size <= PoolLimits.leaseBytesMax else { throw .invalidSize(size) }
        guard state.entries.count < PoolLimits.leasesMax else { throw .tooManyLeases }
        let whole = wholeSlabs(size)
        var random = SystemRandomNumberGenerator()
        let record = LeaseRecord(
            id: state.nextID, name: name, size: whole, quota: quota ?? whole,
            epoch: random.next(), isPinned: pinned, owner: owner)
        state.nextID += 1
        do throws(PoolError) {
            let lease = try Lease(
                record, slab: slab, ledger: ledger, storage: storage, create: true)
            state.entries[name] = Entry(lease: lease, leftAt: monotonicNow())
            try save(state)
            return lease
        } catch {
            state.entries[name] = nil
            try? storage.removeLease(record.id)
            throw error
        }
    }

    /// The size that a lease gets that is made with this one.
    package func wholeSlabs(_ size: ByteCount) -> ByteCount {
        ByteCount((size.bytes + slab.bytes - 1) / slab.bytes * slab.bytes)
    }

    /// Attaches a client to a lease; each needs one `detach`.
    /// - Parameters:
    ///   - key: the client's key; a lease of another key is refused.
    ///   - createSize: makes the lease with this size when there is none.
    ///   - expectedSize: refused when the lease has another (rounded to slabs).
    package func attach(
        _ name: String, _ attachment: Attachment, key: String?, createSize: ByteCount? = nil,
        expectedSize: ByteCount? = nil
    ) throws(PoolError) -> Lease {
        try withState { (state: inout State) throws(PoolError) in
            if state.entries[name] == nil, let createSize {
                _ = try create(name, createSize, nil, key, false, &state)
            }
            guard var entry = state.entries[name] else { throw .noSuchLease(name) }
            guard entry.lease.owner == key else { throw .notOwner(name) }
            if let expectedSize, wholeSlabs(expectedSize) != entry.lease.size {
                throw .otherSize(entry.lease.size)
            }
            let isFree = entry.clients == 0 || (attachment == .shared && !entry.isExclusive)
            guard isFree else { throw .leaseBusy(name) }
            entry.clients += 1
            entry.isExclusive = attachment == .exclusive
            state.entries[name] = entry
            return entry.lease
        }
    }

    /// Ends one attachment; with the last one the grace period starts.
    package func detach(_ lease: Lease) {
        state.withLock { state in
            guard var entry = state.entries[lease.name], entry.lease === lease else { return }
            precondition(entry.clients > 0, "detached more often than attached")
            entry.clients -= 1
            if entry.clients == 0 {
                entry.isExclusive = false
                entry.leftAt = monotonicNow()
            }
            state.entries[lease.name] = entry
        }
    }

    /// Ends a lease that nobody has open, and frees all its memory.
    package func release(_ name: String) throws(PoolError) {
        try withState { (state: inout State) throws(PoolError) in
            guard let entry = state.entries[name] else { throw .noSuchLease(name) }
            guard entry.clients == 0 else { throw .leaseBusy(name) }
            try remove(entry, &state)
        }
    }

    /// Ends a lease by the one client that has it open, in place of `detach`.
    package func release(attached lease: Lease) throws(PoolError) {
        try withState { (state: inout State) throws(PoolError) in
            guard let entry = state.entries[lease.name], entry.lease === lease else {
                throw .noSuchLease(lease.name)
            }
            guard entry.clients == 1 else { throw .leaseBusy(lease.name) }
            try remove(entry, &state)
        }
    }

    private func remove(_ entry: Entry, _ state: inout State) throws(PoolError) {
        state.entries[entry.lease.name] = nil
        do throws(PoolError) {
            // The manifest first: after a crash here the files are strangers, and removed.
            try save(state)
        } catch {
            state.entries[entry.lease.name] = entry
            throw error
        }
        entry.lease.destroy()
        try storage.removeLease(entry.lease.id)
    }

    /// Ends leases whose grace period is over at `now` (monotonic nanoseconds).
    /// - Returns: their names.
    package func expire(now: Int64) throws(PoolError) -> [String] {
        try withState { (state: inout State) throws(PoolError) in
            let over = state.entries.values.filter {
                $0.clients == 0 && !$0.lease.isPinned
                    && $0.leftAt + options.grace.nanoseconds <= now
            }
            for entry in over { try remove(entry, &state) }
            return over.map(\.lease.name).sorted()
        }
    }

    private func save(_ state: State) throws(PoolError) {
        let records = state.entries.values.map(\.lease).sorted { $0.id < $1.id }.map {
            LeaseRecord(
                id: $0.id, name: $0.name, size: $0.size, quota: $0.quota, epoch: $0.epoch,
                isPinned: $0.isPinned, owner: $0.owner)
        }
        try storage.writeManifest(
            PoolManifest(slab: slab, nextID: state.nextID, leases: records))
    }
}

/// 1 to 64 of `[A-Za-z0-9._-]`, not starting with a dot: a word in the manifest, never a path.
private func isNameOfLease(_ name: String) -> Bool {
    let bytes = name.utf8
    guard (1...64).contains(bytes.count), bytes.first != UInt8(ascii: ".") else { return false }
    return bytes.allSatisfy {
        switch $0 {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
        default: false
        }
    }
}

extension MemoryPool {
    /// Whether this process may lock pages in memory: it tries with one.
    package static func canLock() -> Bool {
        do throws(SystemError) {
            try MemoryMapping(anonymous: pageBytes).lockOnFault()
            return true
        } catch {
            return false
        }
    }
}
