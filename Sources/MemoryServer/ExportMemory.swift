import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol
package import Synchronization

/// The memory behind one export: a mapping, one bit for each page that holds something, and who grants
/// slabs. The pool's leases implement it.
package protocol ExportBacking: AnyObject, Sendable {
    /// The first byte of the address space. It outlives every holder of the backing.
    var base: UnsafeMutableRawPointer { get }
    /// One bit per page, little-endian in 64-bit words; set when the page holds something.
    var pageWords: UnsafeMutablePointer<Atomic<UInt64>> { get }
    /// Length of the address space in bytes: whole pages.
    var sizeBytes: UInt64 { get }
    /// Drawn anew with each lease: another number means that the pages are gone.
    var epoch: UInt64 { get }
    /// The unit of grant in pages: a power of two.
    var slabPages: Int { get }
    /// Whether a slab has memory. Any thread, lock-free.
    func isGranted(slab: Int) -> Bool
    /// Gets memory for a slab; false when the pool or the quota is full. Any thread.
    func grant(slab: Int) -> Bool
    /// Gives a slab back whose page bits are all clear. Nobody stores to it meanwhile.
    func giveBack(slab: Int)
}

/// Loads, stores and discards of the NBD loop on a backing.
///
/// Any number of connections use one `ExportMemory` at once. Stores take the gate shared; giving a slab
/// back takes it alone, so that no store lands in memory that has just left the lease. A page whose bit is
/// clear reads as zeros whatever its memory says, so what a store left there half done is never seen.
@safe package final class ExportMemory: Sendable {
    // SAFETY: base and words belong to `backing`, which this object keeps; every range is checked against
    // the size by the caller (NBDConnection.rangeError) and again by preconditions here.
    nonisolated(unsafe) let base: UnsafeMutableRawPointer
    nonisolated(unsafe) let words: UnsafeMutablePointer<Atomic<UInt64>>
    package let sizeBytes: UInt64
    let epoch: UInt64
    let pageCount: Int
    private let slabShift: Int
    private let backing: any ExportBacking

    /// Stores under way, and a flag of the one who wants to be alone.
    private let gate = Atomic<UInt32>(0)
    private static let alone: UInt32 = 1 << 31
    private let aloneTurn = Mutex(())
    /// First stores to pages: one at a time, so that one store's clearing never meets another's bytes.
    private let firstStore = Mutex(())

    package init(_ backing: any ExportBacking) {
        precondition(backing.slabPages.nonzeroBitCount == 1, "slabs are powers of two")
        precondition(backing.sizeBytes % UInt64(pageBytes) == 0, "exports are whole pages")
        unsafe base = backing.base
        unsafe words = backing.pageWords
        sizeBytes = backing.sizeBytes
        epoch = backing.epoch
        pageCount = Int(backing.sizeBytes / UInt64(pageBytes))
        slabShift = backing.slabPages.trailingZeroBitCount
        self.backing = backing
    }

    // MARK: Page bits

    @inline(__always) func isStored(_ page: Int) -> Bool {
        unsafe words[page >> 6].load(ordering: .acquiring) & (1 << UInt64(page & 63)) != 0
    }

    /// How far pages are alike from `page` on, at most to `end`, and whether they hold something.
    func run(from page: Int, to end: Int) -> (stored: Bool, end: Int) {
        let stored = isStored(page)
        let same: UInt64 = stored ? ~0 : 0
        var next = page + 1
        while next < end {
            let word = unsafe words[next >> 6].load(ordering: .acquiring)
            // Bits that differ from the run, from `next` on.
            let different = (word ^ same) >> UInt64(next & 63)
            let span = min(64 - (next & 63), end - next)
            let alike = min(different.trailingZeroBitCount, span)
            next += alike
            if alike < span { break }
        }
        return (stored, next)
    }

    private func areStored(_ first: Int, _ end: Int) -> Bool {
        let run = run(from: first, to: end)
        return run.stored && run.end == end
    }

    /// Calls `body` with each word of a page range and the mask of its bits.
    @inline(__always)
    private func eachWord(_ first: Int, _ end: Int, _ body: (Int, UInt64) -> Void) {
        var page = first
        while page < end {
            let span = min(64 - (page & 63), end - page)
            let mask: UInt64 =
                span == 64 ? ~0 : ((1 << UInt64(span)) - 1) << UInt64(page & 63)
            body(page >> 6, mask)
            page += span
        }
    }

    private func setStored(_ first: Int, _ end: Int) {
        eachWord(first, end) { unsafe _ = words[$0].bitwiseOr($1, ordering: .releasing) }
    }

    private func clearStored(_ first: Int, _ end: Int) {
        eachWord(first, end) { unsafe _ = words[$0].bitwiseAnd(~$1, ordering: .releasing) }
    }

    // MARK: The gate

    private func enter() {
        while true {
            let before = gate.wrappingAdd(1, ordering: .acquiring).oldValue
            if before & Self.alone == 0 { return }
            gate.wrappingSubtract(1, ordering: .releasing)
            aloneTurn.withLock { _ in }
        }
    }

    private func leave() { gate.wrappingSubtract(1, ordering: .releasing) }

    /// Runs `body` while nobody stores. Stores are short: they never wait for the network.
    private func whileAlone(_ body: () -> Void) {
        aloneTurn.withLock { _ in
            gate.bitwiseOr(Self.alone, ordering: .acquiring)
            while gate.load(ordering: .acquiring) != Self.alone { cpuRelax() }
            body()
            gate.bitwiseAnd(~Self.alone, ordering: .releasing)
        }
    }

    /// Gets memory for the slabs of a page range.
    private func grantSlabs(_ first: Int, _ end: Int) -> Bool {
        for slab in first >> slabShift...(end - 1) >> slabShift
        where !backing.isGranted(slab: slab) && !backing.grant(slab: slab) { return false }
        return true
    }

    // MARK: Stores

    /// Stores bytes. False: no memory, nothing was changed.
    func store(_ bytes: UnsafeRawPointer, offset: UInt64, count: Int) -> Bool {
        precondition(count > 0 && offset + UInt64(count) <= sizeBytes, "a store inside the export")
        let first = Int(offset) / pageBytes
        let end = (Int(offset) + count + pageBytes - 1) / pageBytes
        enter()
        defer { leave() }
        guard grantSlabs(first, end) else { return false }
        if areStored(first, end) {
            unsafe memcpy(base + Int(offset), bytes, count)
            return true
        }
        firstStore.withLock { _ in
            clearEdges(Int(offset), count)
            unsafe memcpy(base + Int(offset), bytes, count)
            setStored(first, end)
        }
        return true
    }

    /// Zeros what a first store leaves untouched of its first and last page.
    private func clearEdges(_ offset: Int, _ count: Int) {
        let head = offset & (pageBytes - 1)
        let tail = (offset + count) & (pageBytes - 1)
        if head != 0, !isStored(offset / pageBytes) {
            unsafe memset(base + (offset - head), 0, head)
        }
        if tail != 0, !isStored((offset + count) / pageBytes) {
            unsafe memset(base + (offset + count), 0, pageBytes - tail)
        }
    }

    /// Makes a range ready to receive bytes straight into its memory: slabs granted, absent pages cleared
    /// and marked. False: no memory.
    func prepare(offset: UInt64, count: Int) -> Bool {
        precondition(count > 0 && offset + UInt64(count) <= sizeBytes, "a store inside the export")
        let first = Int(offset) / pageBytes
        let end = (Int(offset) + count + pageBytes - 1) / pageBytes
        enter()
        defer { leave() }
        guard grantSlabs(first, end) else { return false }
        if !areStored(first, end) {
            firstStore.withLock { _ in
                var page = first
                while page < end {
                    let run = run(from: page, to: end)
                    if !run.stored {
                        unsafe memset(
                            base + page * pageBytes, 0, (run.end - page) * pageBytes)
                    }
                    page = run.end
                }
                setStored(first, end)
            }
        }
        return true
    }

    /// Where to put a part of a prepared range, until `endFill`, before which nothing may block. nil when its
    /// pages have been discarded meanwhile: a discarded slab must not be touched.
    func beginFill(offset: UInt64, count: Int) -> UnsafeMutableRawPointer? {
        precondition(count > 0 && offset + UInt64(count) <= sizeBytes, "a store inside the export")
        let first = Int(offset) / pageBytes
        let end = (Int(offset) + count + pageBytes - 1) / pageBytes
        enter()
        return unsafe areStored(first, end) ? base + Int(offset) : nil
    }

    func endFill() { leave() }

    // MARK: Discards and zeros

    /// Forgets the whole pages of a range; slabs left without a page go back to the pool.
    func discard(offset: UInt64, count: UInt64) {
        precondition(offset + count <= sizeBytes, "a discard inside the export")
        let first = Int((offset + UInt64(pageBytes) - 1) / UInt64(pageBytes))
        let end = Int((offset + count) / UInt64(pageBytes))
        guard first < end else { return }
        clearStored(first, end)
        for slab in first >> slabShift...(end - 1) >> slabShift where backing.isGranted(slab: slab)
        {
            guard isEmpty(slab) else { continue }
            whileAlone {
                if backing.isGranted(slab: slab) && isEmpty(slab) { backing.giveBack(slab: slab) }
            }
        }
    }

    private func isEmpty(_ slab: Int) -> Bool {
        let first = slab << slabShift
        let end = min(pageCount, (slab + 1) << slabShift)
        let run = run(from: first, to: end)
        return !run.stored && run.end == end
    }

    /// Makes a range read as zeros and gives its whole pages back.
    func zero(offset: UInt64, count: UInt64) {
        let page = UInt64(pageBytes)
        let end = offset + count
        let firstWhole = min(end, (offset + page - 1) / page * page)
        let lastWhole = max(firstWhole, end / page * page)
        clearStoredBytes(offset, firstWhole)
        clearStoredBytes(lastWhole, end)
        discard(offset: firstWhole, count: lastWhole - firstWhole)
    }

    /// Zeros bytes inside one page, when it holds something.
    private func clearStoredBytes(_ from: UInt64, _ to: UInt64) {
        guard from < to else { return }
        enter()
        defer { leave() }
        // Under the lock of first stores: a page that appears now appears before or after, not between.
        firstStore.withLock { _ in
            guard isStored(Int(from) / pageBytes) else { return }
            unsafe memset(base + Int(from), 0, Int(to - from))
        }
    }

    /// Makes a range zeros that keep their memory. False: no memory.
    func zeroKeepingMemory(offset: UInt64, count: UInt64) -> Bool {
        var done: UInt64 = 0
        while done < count {
            let piece = Int(min(count - done, 1 << 20))
            guard prepare(offset: offset + done, count: piece) else { return false }
            enter()
            let first = Int(offset + done) / pageBytes
            let end = (Int(offset + done) + piece + pageBytes - 1) / pageBytes
            if areStored(first, end) { unsafe memset(base + Int(offset + done), 0, piece) }
            leave()
            done += UInt64(piece)
        }
        return true
    }
}
