import Synchronization

/// One gate per slab, so that a slab's memory is never given back under somebody who stores into it.
///
/// An open gate lets any number of threads in; closing succeeds only when nobody is inside. The owner of
/// the gates opens and closes under a lock of its own; `enter` and `leave` are lock-free. Private to one
/// process: its own threads use it, other processes have their own.
@safe package final class SlabGates: @unchecked Sendable {
    // SAFETY of @unchecked Sendable: the words are atomics; the memory lives as long as this object.
    private let words: UnsafeMutablePointer<Atomic<UInt32>>
    package let count: Int
    private static let closed: UInt32 = 0x8000_0000

    /// All gates are closed.
    package init(count: Int) {
        self.count = count
        unsafe words = .allocate(capacity: count)
        for index in 0..<count {
            unsafe (words + index).initialize(to: Atomic(Self.closed))
        }
    }

    deinit {
        unsafe words.deinitialize(count: count)
        unsafe words.deallocate()
    }

    /// Goes in; false when the gate is closed. Every true needs one `leave`.
    @inline(__always) package func enter(_ slab: Int) -> Bool {
        assert(slab >= 0 && slab < count)
        let old = unsafe words[slab].wrappingAdd(1, ordering: .acquiring).oldValue
        if old & Self.closed == 0 { return true }
        leave(slab)
        return false
    }

    @inline(__always) package func leave(_ slab: Int) {
        unsafe words[slab].wrappingSubtract(1, ordering: .releasing)
    }

    package func isOpen(_ slab: Int) -> Bool {
        unsafe words[slab].load(ordering: .acquiring) & Self.closed == 0
    }

    package func open(_ slab: Int) {
        _ = unsafe words[slab].bitwiseAnd(~Self.closed, ordering: .acquiringAndReleasing)
    }

    /// Closes an open gate that nobody is inside of; false when somebody is, or when it is closed.
    package func close(_ slab: Int) -> Bool {
        unsafe words[slab].compareExchange(
            expected: 0, desired: Self.closed, ordering: .acquiringAndReleasing
        ).exchanged
    }
}
