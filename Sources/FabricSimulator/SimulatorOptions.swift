package import FarMemory

/// What the simulated world is like. Times are nanoseconds of virtual time.
package struct SimulatorOptions: Sendable {
    /// How pages are reached.
    package enum Family: Sendable {
        /// As with shared memory: loads and stores touch the memory itself, only grants need the server.
        case oneSided
        /// As with NBD: every request travels.
        case twoSided
    }

    package var seed: UInt64
    package var family = Family.twoSided
    /// Length of the lease.
    package var size = ByteCount.mib(4)
    package var slab = ByteCount.kib(64)
    /// Slabs that the pool can grant; nil: as many as the lease has.
    package var capacitySlabs: Int?
    /// One way through the network.
    package var latency: ClosedRange<Int64> = 5_000...50_000
    /// Of 10,000 messages, how many never arrive.
    package var lossPer10k = 0
    /// Of 10,000 messages, how many take up to `delayMax`.
    package var delayPer10k = 0
    package var delayMax: Int64 = 3_000_000_000
    /// Mean time between faults of each kind; 0: never.
    package var crashInterval: Int64 = 0
    package var cutInterval: Int64 = 0
    package var squeezeInterval: Int64 = 0
    /// How long each fault lasts.
    package var outage: ClosedRange<Int64> = 1_000_000...5_000_000_000
    /// A crash of the server loses the pages (a pool without a directory): the lease is gone for good.
    package var crashLosesPages = false
    /// A store whose connection is gone is not carried out any more. Off: it may be, after later ones. No real fabric
    /// may do that; tests turn it off to prove that they would notice.
    package var fencing = true

    package init(seed: UInt64) { self.seed = seed }
}

/// What happened in a run, so that a test can tell whether it tested anything.
package struct SimulatorEvents: Sendable, Equatable {
    package var crashes = 0
    package var cuts = 0
    package var squeezes = 0
    package var messagesLost = 0
    package var messagesDelayed = 0
    package var storesTorn = 0
    package var storesCarriedOutLate = 0
    package var refusals = 0

    package init() {}
}
