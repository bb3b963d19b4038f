import Synchronization

/// What is promised of the pool's capacity, in slabs. Promised before it is allocated, so the sum of
/// what is allocated can never exceed the capacity. Any thread.
package final class PoolLedger: Sendable {
    package let capacitySlabs: Int
    private let granted: Atomic<Int>
    private let refusals = Atomic<UInt64>(0)
    private let grants = Atomic<UInt64>(0)
    private let returns = Atomic<UInt64>(0)

    init(capacitySlabs: Int) {
        self.capacitySlabs = capacitySlabs
        granted = Atomic(0)
    }

    package var grantedSlabs: Int { granted.load(ordering: .relaxed) }
    /// Requests that found no space, since the start.
    package var refusedTotal: UInt64 { refusals.load(ordering: .relaxed) }
    package var grantedTotal: UInt64 { grants.load(ordering: .relaxed) }
    package var returnedTotal: UInt64 { returns.load(ordering: .relaxed) }

    /// Takes one slab of the capacity; false when it is used up.
    func reserve() -> Bool {
        var current = granted.load(ordering: .relaxed)
        while current < capacitySlabs {
            let (done, seen) = granted.compareExchange(
                expected: current, desired: current + 1, ordering: .relaxed)
            if done {
                grants.wrappingAdd(1, ordering: .relaxed)
                return true
            }
            current = seen
        }
        return false
    }

    func refuse() { refusals.wrappingAdd(1, ordering: .relaxed) }

    /// Takes what a reopened lease already holds, over the capacity if need be: the caller checks.
    func adopt(_ slabs: Int) { granted.wrappingAdd(slabs, ordering: .relaxed) }

    func giveBack(_ slabs: Int) {
        granted.wrappingSubtract(slabs, ordering: .relaxed)
        returns.wrappingAdd(UInt64(slabs), ordering: .relaxed)
    }
}
