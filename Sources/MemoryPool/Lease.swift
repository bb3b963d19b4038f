import CWireFormat
package import FarMemory
import Glibc
package import LinuxSystem
import Synchronization

/// A named, thin address space: its facts, its files and its mapping. Made by `MemoryPool`; any thread.
///
/// Who serves pages touches `base` where `isGranted`, and keeps `pages` right: set a bit after the bytes are
/// stored, clear it before the slab goes back, and never store into a slab while giving it back.
package final class Lease: Sendable {
    package let id: UInt64
    package let name: String
    /// Whole slabs.
    package let size: ByteCount
    package let quota: ByteCount
    /// Drawn anew with each lease: a client that sees another epoch knows that its pages are gone.
    package let epoch: UInt64
    /// Made by an operator: no grace period ends it.
    package let isPinned: Bool
    /// The name of the key that made it; nil without keys.
    package let owner: String?
    package let slabBytes: Int
    package let slabCount: Int
    package var pageCount: Int { slabCount * pagesPerSlab }
    package var pagesPerSlab: Int { slabBytes / pageBytes }

    /// One bit per page: whether it holds something. Shared with the lease's shm client.
    package let pages: SharedBitmap
    /// One bit per slab: whether its blocks are allocated. Written by this process only.
    private let grants: SharedBitmap
    private let epochMark: SharedWord
    /// Whether the mapping's pages are locked in memory.
    package let isLocked: Bool

    private let ledger: PoolLedger
    private let data: MemoryMapping
    private let pageMap: MemoryMapping
    private let grantMap: MemoryMapping
    private let files: Files
    /// Serialises granting and giving back.
    private let state: Mutex<GrantState>

    private struct GrantState {
        var granted = 0
        /// Released: nothing is granted any more.
        var isGone = false
    }

    private struct Files: ~Copyable, Sendable {
        let data: FileDescriptor
        let pages: FileDescriptor
        let grants: FileDescriptor
        let grantsReadOnly: FileDescriptor
    }

    /// First byte of the mapped data. Only granted slabs may be touched.
    package var base: UnsafeMutableRawPointer { unsafe data.base }
    /// Slabs granted now.
    package var grantedSlabs: Int { state.withLock { $0.granted } }
    /// Whether it was released: nothing is granted any more.
    package var isGone: Bool { state.withLock { $0.isGone } }
    /// Pages that hold something. Reads the whole bitmap: for reports.
    package var storedPages: Int { pages.countSet(0..<pageCount) }
    /// Whether a slab's memory may be touched. Lock-free.
    package func isGranted(_ slab: Int) -> Bool { grants.isSet(slab) }

    /// Borrows what a shm client is handed: data, page bitmap, grants (read-only).
    package func withDescriptors<R, E: Error>(_ body: ([Int32]) throws(E) -> R) throws(E) -> R {
        try body([files.data.rawValue, files.pages.rawValue, files.grantsReadOnly.rawValue])
    }

    static func fileNames(_ id: UInt64) -> (data: String, pages: String, grants: String) {
        ("lease-\(id).data", "lease-\(id).pages", "lease-\(id).grants")
    }

    static func bitmapFileBytes(_ bits: Int) -> Int {
        MemoryLayout<fm_bitmap_header>.size + SharedBitmap.byteCount(bits)
    }

    /// Makes the files of a new lease, or takes over those of one that the manifest knows.
    init(
        _ record: LeaseRecord, slab: ByteCount, ledger: PoolLedger,
        storage: borrowing PoolStorage, create: Bool
    ) throws(PoolError) {
        id = record.id
        name = record.name
        size = record.size
        quota = record.quota
        epoch = record.epoch
        isPinned = record.isPinned
        owner = record.owner
        slabBytes = Int(slab.bytes)
        slabCount = Int(record.size.bytes / slab.bytes)
        self.ledger = ledger
        let names = Self.fileNames(record.id)
        let pageBits = slabCount * (slabBytes / pageBytes)
        let pageFile = try storage.bitmapFile(
            names.pages, magic: FM_PAGES_MAGIC, bits: pageBits, epoch: epoch, create: create)
        let grantFile = try storage.bitmapFile(
            names.grants, magic: FM_GRANTS_MAGIC, bits: slabCount, epoch: epoch, create: create)
        let dataFile = try storage.file(names.data, size: size.bytes, create: create)
        data = try mapWhole(dataFile, Int(size.bytes))
        pageMap = try mapWhole(pageFile, Self.bitmapFileBytes(pageBits))
        grantMap = try mapWhole(grantFile, Self.bitmapFileBytes(slabCount))
        let head = MemoryLayout<fm_bitmap_header>.size
        // SAFETY: the mappings are as long as head and bits, and live as long as this object.
        pages = unsafe SharedBitmap(pageMap.base + head, count: pageBits)
        grants = unsafe SharedBitmap(grantMap.base + head, count: slabCount)
        epochMark = unsafe SharedWord(pageMap.base + Int(FM_BITMAP_EPOCH_OFFSET))
        isLocked = (try? data.lockOnFault()) != nil
        let readOnly = try readOnlyTwin(of: grantFile)
        files = Files(
            data: dataFile, pages: pageFile, grants: grantFile, grantsReadOnly: readOnly)
        state = Mutex(GrantState())
        if !create { try adopt() }
    }

    /// Brings files and grants of an earlier process into agreement: granted slabs get their blocks (the
    /// process may have died between the two), all others are punched, for nobody may find old pages there.
    private func adopt() throws(PoolError) {
        var count = 0
        try eachRun { (run, isGranted) throws(PoolError) in
            if isGranted {
                try allocate(run)
                count += run.count
            } else {
                try punch(run)
                pages.clear(run.lowerBound * pagesPerSlab..<run.upperBound * pagesPerSlab)
            }
        }
        ledger.adopt(count)
        state.withLock { $0.granted = count }
    }

    private func eachRun(
        _ body: (Range<Int>, Bool) throws(PoolError) -> Void
    ) throws(PoolError) {
        var slab = 0
        while slab < slabCount {
            let run = grants.run(slab..<slabCount)
            try body(slab..<slab + run.count, run.isSet)
            slab += run.count
        }
    }

    private func offset(_ slab: Int) -> UInt64 { UInt64(slab) * UInt64(slabBytes) }

    private func allocate(_ slabs: Range<Int>) throws(PoolError) {
        do throws(SystemError) {
            try files.data.allocate(offset: offset(slabs.lowerBound), length: offset(slabs.count))
        } catch {
            if error.code == ENOSPC || error.code == ENOMEM { throw .noSpace }
            throw .system(error)
        }
    }

    private func punch(_ slabs: Range<Int>) throws(PoolError) {
        try wrapping { () throws(SystemError) in
            try files.data.punchHole(
                offset: offset(slabs.lowerBound), length: offset(slabs.count))
        }
    }

    /// Faults a granted slab in: cleared now and not on the data path, and locked in memory.
    private func populate(_ slab: Int) throws(PoolError) {
        do throws(SystemError) {
            try data.populate(offset: Int(offset(slab)), count: slabBytes)
        } catch {
            // A cgroup's limit or a full machine: the slab is not usable.
            throw error.code == ENOMEM || error.code == EAGAIN ? .noSpace : .system(error)
        }
    }

    /// Grants slabs from the first on until one finds no space; those granted before are counted too.
    /// - Returns: how many are granted now, from the first on; fewer than asked for when space ran out.
    /// - Throws: `noSpace` or `quotaUsedUp` when not even the first could be granted.
    package func grant(_ slabs: Range<Int>) throws(PoolError) -> Int {
        guard slabs.lowerBound >= 0, slabs.upperBound <= slabCount, !slabs.isEmpty else {
            throw .outOfRange
        }
        let (done, failure) = state.withLock { state -> (Int, PoolError?) in
            for slab in slabs where !grants.isSet(slab) {
                do throws(PoolError) {
                    try grantOne(slab, &state)
                } catch {
                    return (slab - slabs.lowerBound, error)
                }
            }
            return (slabs.count, nil)
        }
        if failure != nil { ledger.refuse() }
        if done == 0, let failure { throw failure }
        return done
    }

    private func grantOne(_ slab: Int, _ state: inout GrantState) throws(PoolError) {
        guard !state.isGone else { throw .noSuchLease(name) }
        guard UInt64(state.granted + 1) * UInt64(slabBytes) <= quota.bytes else {
            throw .quotaUsedUp
        }
        guard ledger.reserve() else { throw .noSpace }
        do throws(PoolError) {
            try allocate(slab..<slab + 1)
            try populate(slab)
        } catch {
            try? punch(slab..<slab + 1)
            ledger.giveBack(1)
            throw error
        }
        grants.set(slab)
        state.granted += 1
    }

    /// Takes slabs back whose pages are all clear, and scrubs them. Slabs that are not granted are
    /// skipped. `notEmpty` when a slab holds pages: it and those after it stay.
    package func giveBack(_ slabs: Range<Int>) throws(PoolError) {
        guard slabs.lowerBound >= 0, slabs.upperBound <= slabCount else { throw .outOfRange }
        let failure = state.withLock { state -> PoolError? in
            for slab in slabs where grants.isSet(slab) {
                guard pages.isClear(slab * pagesPerSlab..<(slab + 1) * pagesPerSlab) else {
                    return .notEmpty
                }
                do throws(PoolError) { try punch(slab..<slab + 1) } catch { return error }
                grants.clear(slab)
                ledger.giveBack(1)
                state.granted -= 1
            }
            return nil
        }
        if let failure { throw failure }
    }

    /// Faults in what an earlier process granted, so that it is locked in memory again. Slow for large
    /// leases: from a thread of its own. Stops when `isCancelled` says so.
    package func lockGranted(_ isCancelled: () -> Bool) {
        guard isLocked else { return }
        for slab in 0..<slabCount where grants.isSet(slab) {
            if isCancelled() { return }
            state.withLock { _ in
                if grants.isSet(slab) { try? populate(slab) }
            }
        }
    }

    /// Frees what a client allocated outside of its grants (it holds the file), and undoes a change of
    /// the file's length.
    /// - Returns: the bytes freed.
    package func audit() throws(PoolError) -> ByteCount {
        let result: Result<UInt64, PoolError> = state.withLock { state in
            do throws(PoolError) {
                return .success(try auditLocked(granted: state.granted))
            } catch {
                return .failure(error)
            }
        }
        return ByteCount(try result.get())
    }

    private func auditLocked(granted: Int) throws(PoolError) -> UInt64 {
        let (length, used, pagesLength) = try wrapping { () throws(SystemError) in
            (try files.data.size(), try files.data.allocatedBytes(), try files.pages.size())
        }
        if length != size.bytes {
            try wrapping { () throws(SystemError) in try files.data.truncate(to: size.bytes) }
            try eachRun { (run, isGranted) throws(PoolError) in
                if isGranted { try allocate(run) }
            }
        }
        let pagesExpected = UInt64(Self.bitmapFileBytes(pageCount))
        if pagesLength != pagesExpected { try restorePageFile(pagesExpected) }
        let promised = offset(granted)
        guard used > promised else { return 0 }
        try eachRun { (run, isGranted) throws(PoolError) in
            if !isGranted { try punch(run) }
        }
        return used - promised
    }

    /// Makes a page bitmap that its client cut short whole again: a later start must find a pool that it
    /// can serve. What the bits said is lost, and with it the client's pages.
    private func restorePageFile(_ length: UInt64) throws(PoolError) {
        try wrapping { () throws(SystemError) in
            try files.pages.truncate(to: length)
            try files.pages.allocate(offset: 0, length: length)
            let number = files.pages.rawValue
            let mapping = try MemoryMapping(
                sharing: number, count: MemoryLayout<fm_bitmap_header>.size)
            // SAFETY: a page is mapped, and its blocks were allocated just now.
            let header = unsafe mapping.base.assumingMemoryBound(to: fm_bitmap_header.self)
            unsafe header.pointee.magic = FM_PAGES_MAGIC
            unsafe header.pointee.version = UInt64(FM_BITMAP_VERSION)
            unsafe header.pointee.bits = UInt64(pageCount)
            unsafe header.pointee.epoch = epoch
        }
    }

    /// How long readers that found their page before the lease was marked have to finish, nanoseconds.
    private static let readersTime: Int64 = 10_000_000

    /// Frees all memory, whoever still has it mapped, and takes the slabs off the ledger. A client that is cut off may
    /// still read the mapped files: the epoch in the page bits' header is cleared first, so that it finds a lease that is
    /// gone and not pages of zeros.
    func destroy() {
        state.withLock { state in
            state.isGone = true
            epochMark.value = 0
            sleepNanoseconds(Self.readersTime)
            grants.clear(0..<slabCount)
            pages.clear(0..<pageCount)
            try? punch(0..<slabCount)
            ledger.giveBack(state.granted)
            state.granted = 0
        }
    }
}
