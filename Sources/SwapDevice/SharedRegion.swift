import CSwapShims
import Fabric
package import FarMemory
package import LinuxSystem

/// The memory that a device's keeper and data processes share: what is in flight, where pages are,
/// and the counters. A data process may be killed between any two instructions; its successor finds
/// here all that it needs.
///
/// Layout, in pages: the header; one page of counters per worker; the two location bitmaps; one slot
/// per worker. A slot is a control page, then a page whose end holds a request's headers, then room
/// for the largest payload, so that the payload of a write begins on a page boundary (the fallback
/// file is written with direct I/O straight from there).
@safe package struct SharedRegion: ~Copyable, @unchecked Sendable {
    // SAFETY of @unchecked Sendable: words are accessed atomically, and a slot by its worker only.

    private static let magic: UInt64 = 0x4641_524d_5357_4150
    private static let version: UInt64 = 1
    /// Headers of the largest write: fuse_in_header and fuse_write_in.
    package static let requestHeaderBytes = 80

    /// Words of the header page.
    package enum HeaderWord: Int {
        case magic, version, workers, deviceBytes, hasFallback, dataPid, keeperPid, dataStarts
        case deviceState, startedAt
        // Copied from the fabric now and then.
        case fabricReconnects, fabricRefused, fabricSlabs, fabricPages
        /// The lease's number where the fabric has one and the data process must find the same again; 0 is none.
        case leaseEpoch
        // Copied from the fabric, too.
        case fabricSlabBytes
    }

    /// What `HeaderWord.deviceState` says.
    package enum DeviceState: UInt64, Sendable { case starting, attached, reconnecting, lost }

    private let mapping: MemoryMapping
    package let workers: Int
    package let size: ByteCount
    private let bitmapBytes: Int

    /// How long the region of such a device is.
    package static func length(workers: Int, size: ByteCount) -> Int {
        pageBytes * (1 + workers) + 2 * bitmapBytes(size) + workers * slotBytes
    }

    private static let slotBytes = 2 * pageBytes + SwapLimits.requestBytes

    private static func bitmapBytes(_ size: ByteCount) -> Int {
        let bytes = (Int(size.pages.pages) + 7) / 8
        return (bytes + pageBytes - 1) / pageBytes * pageBytes
    }

    /// Makes a fresh region in a memory file of the right length.
    package init(
        creatingIn fd: borrowing FileDescriptor, workers: Int, size: ByteCount, hasFallback: Bool
    ) throws(SystemError) {
        precondition((1...SwapLimits.workers).contains(workers), "1 to 16 workers")
        mapping = try MemoryMapping(
            sharing: fd.rawValue, count: Self.length(workers: workers, size: size), populate: true)
        self.workers = workers
        self.size = size
        bitmapBytes = Self.bitmapBytes(size)
        self[.version] = Self.version
        self[.workers] = UInt64(workers)
        self[.deviceBytes] = size.bytes
        self[.hasFallback] = hasFallback ? 1 : 0
        self[.startedAt] = UInt64(monotonicNow())
        self[.magic] = Self.magic
    }

    /// Opens the region of a running device. `EINVAL` when it is not one of this version.
    /// `populate` faults all of it in, so that the kernel's copies into a slot can never fail.
    package init(
        openingIn fd: borrowing FileDescriptor, populate: Bool
    ) throws(SystemError) {
        let length = Int(try fd.size())
        let wrong = SystemError(call: "open the swap device's shared region", code: 22)
        guard length >= pageBytes else { throw wrong }
        let mapping = try MemoryMapping(sharing: fd.rawValue, count: length, populate: populate)
        let words = unsafe mapping.base.assumingMemoryBound(to: UInt64.self)
        func word(_ word: HeaderWord) -> UInt64 {
            unsafe fm_load_acquire(words + word.rawValue)
        }
        let workers = Int(truncatingIfNeeded: word(.workers))
        let size = ByteCount(word(.deviceBytes))
        guard word(.magic) == Self.magic, word(.version) == Self.version,
            (1...SwapLimits.workers).contains(workers), size.bytes < 1 << 50,
            length == Self.length(workers: workers, size: size)
        else { throw wrong }
        self.mapping = mapping
        self.workers = workers
        self.size = size
        bitmapBytes = Self.bitmapBytes(size)
    }

    private var words: UnsafeMutablePointer<UInt64> {
        unsafe mapping.base.assumingMemoryBound(to: UInt64.self)
    }

    /// A word of the header, read and written atomically.
    package subscript(word: HeaderWord) -> UInt64 {
        get { unsafe fm_load_acquire(words + word.rawValue) }
        nonmutating set { unsafe fm_store_release(words + word.rawValue, newValue) }
    }

    package var deviceState: DeviceState {
        get { DeviceState(rawValue: self[.deviceState]) ?? .starting }
        nonmutating set { self[.deviceState] = newValue.rawValue }
    }

    /// Copies what the fabric counts to where other processes can read it.
    func publish(_ counters: FabricCounters) {
        self[.fabricReconnects] = counters.reconnects
        self[.fabricRefused] = counters.refusedNoSpace
        self[.fabricSlabs] = counters.slabsGranted
        self[.fabricPages] = counters.pagesStored
        self[.fabricSlabBytes] = counters.slabBytes
    }

    /// A worker's counters.
    package func counters(worker: Int) -> SwapCounters {
        precondition((0..<workers).contains(worker), "no such worker")
        return unsafe SwapCounters(
            words: (mapping.base + pageBytes * (1 + worker)).assumingMemoryBound(to: UInt64.self))
    }

    /// Where each page is, when there is a fallback.
    package var locations: PageLocations {
        let base = unsafe mapping.base + pageBytes * (1 + workers)
        return unsafe PageLocations(
            inFallback: base.assumingMemoryBound(to: UInt64.self),
            farStale: (base + bitmapBytes).assumingMemoryBound(to: UInt64.self))
    }

    /// A worker's slot.
    package func slot(worker: Int) -> RequestSlot {
        precondition((0..<workers).contains(worker), "no such worker")
        let offset = pageBytes * (1 + workers) + 2 * bitmapBytes + worker * Self.slotBytes
        return unsafe RequestSlot(base: mapping.base + offset)
    }
}

/// One request in flight.
///
/// The kernel's copy of a request into the buffer and our knowledge of it cannot be one step. So the
/// request's own `unique` number, zeroed before each read, is the mark that one was received: the kernel
/// writes it with the rest. `executed` holds the unique number of a request whose work is done, well or
/// not; its outcome is written before it.
@unsafe package struct RequestSlot {
    private let base: UnsafeMutableRawPointer

    init(base: UnsafeMutableRawPointer) { unsafe self.base = base }

    /// Where requests are read to; payload of a write begins at `payload`.
    package var request: UnsafeMutableRawPointer {
        unsafe base + 2 * pageBytes - SharedRegion.requestHeaderBytes
    }
    package var payload: UnsafeMutableRawPointer { unsafe base + 2 * pageBytes }
    package var capacity: Int { SharedRegion.requestHeaderBytes + SwapLimits.requestBytes }

    /// The unique number of the request received and not yet forgotten; 0 when there is none.
    package var received: UInt64 { unsafe fm_fuse_unique(request) }

    private var words: UnsafeMutablePointer<UInt64> {
        unsafe base.assumingMemoryBound(to: UInt64.self)
    }

    /// The unique number of the last request whose work was done; 0 before the first.
    package var executed: UInt64 { unsafe fm_load_acquire(words) }

    /// How the last request whose work was done ended: an errno, 0 when well.
    package var outcome: Int32 {
        Int32(truncatingIfNeeded: unsafe fm_load_acquire(words + 1))
    }

    /// The work of a request was done, with this outcome: it is not to be done again. At no instant does the slot deny what it
    /// said before: a successor that records again may be killed in between too.
    package func recordExecuted(_ unique: UInt64, outcome: Int32) {
        unsafe fm_store_release(words + 1, UInt64(UInt32(bitPattern: outcome)))
        unsafe fm_store_release(words, unique)
    }

    /// The request was answered: nothing is in flight here.
    package func forget() { unsafe fm_fuse_clear_unique(request) }
}

/// Which copies of a page are good. Bits are set and cleared atomically, after the bytes are in place.
@unsafe package struct PageLocations {
    private let inFallback: UnsafeMutablePointer<UInt64>
    private let farStale: UnsafeMutablePointer<UInt64>

    package init(
        inFallback: UnsafeMutablePointer<UInt64>, farStale: UnsafeMutablePointer<UInt64>
    ) {
        unsafe self.inFallback = unsafe inFallback
        unsafe self.farStale = unsafe farStale
    }

    /// The fallback holds the page's present bytes.
    package func isInFallback(_ page: UInt64) -> Bool { unsafe fm_bit_test(inFallback, page) }
    /// Far memory does not hold the page's present bytes.
    package func isFarStale(_ page: UInt64) -> Bool { unsafe fm_bit_test(farStale, page) }

    package func setInFallback(_ range: Range<UInt64>, _ on: Bool) {
        unsafe change(inFallback, range, on)
    }
    package func setFarStale(_ range: Range<UInt64>, _ on: Bool) {
        unsafe change(farStale, range, on)
    }

    private func change(_ words: UnsafeMutablePointer<UInt64>, _ range: Range<UInt64>, _ on: Bool) {
        if on {
            unsafe fm_bits_set(words, range.lowerBound, UInt64(range.count))
        } else {
            unsafe fm_bits_clear(words, range.lowerBound, UInt64(range.count))
        }
    }
}
