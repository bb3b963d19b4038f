import FarMemory

/// The memory node: its pages survive a crash, as those of a pool directory on tmpfs do.
@safe final class SimulatedServer {
    let memory: UnsafeMutableRawPointer
    private let pageCount: Int
    private let slabPages: Int
    private var stored: [Bool]
    private var pagesOfSlab: [Int]
    private(set) var slabsGranted = 0
    /// Slabs that it may grant now; others' use of the pool makes it go up and down.
    var capacitySlabs: Int
    var isUp = true
    /// The lease is gone, with all its pages.
    private(set) var hasLostLease = false

    init(options: SimulatorOptions) {
        pageCount = Int(options.size.pages.pages)
        slabPages = Int(options.slab.pages.pages)
        precondition(pageCount > 0 && slabPages > 0, "a lease has pages, and a slab too")
        // SAFETY: owned by this object, freed in deinit; every access is bounded by `contains`.
        unsafe memory = .allocate(byteCount: pageCount * pageBytes, alignment: pageBytes)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: pageCount * pageBytes)
        stored = [Bool](repeating: false, count: pageCount)
        pagesOfSlab = [Int](repeating: 0, count: (pageCount + slabPages - 1) / slabPages)
        capacitySlabs = options.capacitySlabs ?? pagesOfSlab.count
    }

    deinit { unsafe memory.deallocate() }

    var pagesStored: Int { pagesOfSlab.reduce(0, +) }

    func contains(_ first: UInt64, _ count: Int) -> Bool {
        count > 0 && first < UInt64(pageCount) && count <= pageCount - Int(first)
    }

    func page(_ number: UInt64) -> UnsafeMutableRawPointer {
        unsafe memory + Int(number) * pageBytes
    }

    /// Whether a store of this page needs a slab that is not granted yet.
    func needsGrant(_ number: UInt64) -> Bool { pagesOfSlab[Int(number) / slabPages] == 0 }

    /// Copies a page in; false when no slab can be granted.
    func store(_ number: UInt64, from bytes: UnsafeRawPointer) -> Bool {
        if needsGrant(number) {
            guard slabsGranted < capacitySlabs else { return false }
            slabsGranted += 1
        }
        if !stored[Int(number)] {
            stored[Int(number)] = true
            pagesOfSlab[Int(number) / slabPages] += 1
        }
        unsafe page(number).copyMemory(from: bytes, byteCount: pageBytes)
        return true
    }

    /// Copies only the first bytes of a page in: what a crash in the middle leaves.
    func tear(_ number: UInt64, from bytes: UnsafeRawPointer, count: Int) {
        guard stored[Int(number)] else { return }
        unsafe page(number).copyMemory(from: bytes, byteCount: count)
    }

    func discard(_ number: UInt64) {
        guard stored[Int(number)] else { return }
        stored[Int(number)] = false
        unsafe page(number).initializeMemory(as: UInt8.self, repeating: 0, count: pageBytes)
        pagesOfSlab[Int(number) / slabPages] -= 1
        if needsGrant(number) { slabsGranted -= 1 }
    }

    func loseLease() {
        hasLostLease = true
        for number in 0..<UInt64(pageCount) { discard(number) }
    }
}
