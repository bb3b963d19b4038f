// Fabric: the seam between what uses far memory and what carries it.
//
// Two families implement it. One-sided fabrics (shared memory, later RDMA) touch the memory
// themselves; two-sided ones (NBD) ask a server. Callers see pages, deadlines and typed errors.
//
// Thread model: a `Fabric` may be asked from any thread. A `FabricChannel` belongs to one thread; a
// fabric that needs to do things in the background (reconnect, get slabs ahead of need) has a thread
// of its own. Nothing here allocates after a channel is made.

package import FarMemory
package import Glibc

/// Why far memory did not do what was asked. What to do about it is the caller's business: a failed
/// store is harmless to a swap device, a failed load is not (docs/failure-model.md).
package enum FabricError: Error, Equatable, Sendable {
    /// The pool or the quota is full: nothing was stored.
    case noSpace
    /// There is no connection now; the fabric goes on trying to get one.
    case unreachable
    /// The deadline passed with the request unanswered. Whether it was carried out is unknown, but it
    /// will not be carried out after a later request for the same pages was answered: a fabric that
    /// cannot call a request back closes its connection and does not send to the lease again before the
    /// server has dropped that connection's requests. Without this, a late store would overwrite a
    /// newer page (FabricSimulator's `fencing` shows how that looks). The same holds for `unreachable`.
    case deadlinePassed
    /// The peer answered with an error (an NBD error, an errno).
    case peerError(Int32)
    /// The peer broke the protocol; the connection was closed.
    case protocolViolation
    /// The range does not lie in the lease: a bug, or a lease that shrank.
    case outOfRange
    /// The lease is gone or belongs to another: what was stored is lost. Retrying does not help.
    case leaseLost
}

/// Whether a fabric can serve now.
package enum FabricState: UInt8, Sendable {
    case connected, reconnecting, lost, closed
}

/// A run of pages in the lease's address space.
package struct PageRange: Equatable, Sendable {
    package var first: UInt64
    package var count: Int

    @inlinable package init(first: UInt64, count: Int) {
        self.first = first
        self.count = count
    }

    /// One past the last page.
    @inlinable package var end: UInt64 { first + UInt64(count) }
}

/// One way into a fabric for one thread.
package protocol FabricChannel: AnyObject {
    /// Loads pages. The bytes are described by vectors, in order and covering the range exactly: into
    /// the fabric's own mapping where it is one-sided (valid until the same pages are next stored or
    /// discarded), into `staging` where it is not. Pages that were never stored read as zeros.
    /// - Parameters:
    ///   - staging: at least `range.count` pages, page-aligned, the caller's.
    ///   - vectors: room for at least `range.count` vectors.
    ///   - deadline: on the monotonic clock.
    /// - Returns: how many vectors were filled.
    func load(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>, deadline: Int64
    ) throws(FabricError) -> Int

    /// Stores pages from `bytes`. All of them are stored when it returns; on an error some may be.
    func store(
        _ range: PageRange, from bytes: UnsafeRawPointer, deadline: Int64
    ) throws(FabricError)

    /// Forgets pages: they read as zeros afterwards and their memory goes back as soon as it can.
    func discard(_ range: PageRange, deadline: Int64) throws(FabricError)
}

/// Counters of a fabric, for status and metrics. A snapshot: each is exact, together they may be
/// a moment apart.
package struct FabricCounters: Equatable, Sendable {
    package var reconnects: UInt64 = 0
    package var refusedNoSpace: UInt64 = 0
    package var deadlinesPassed: UInt64 = 0
    package var peerErrors: UInt64 = 0
    package var protocolViolations: UInt64 = 0
    /// Slabs granted to this lease now; 0 where the fabric does not know.
    package var slabsGranted: UInt64 = 0
    /// How large they are; 0 where the fabric does not know.
    package var slabBytes: UInt64 = 0
    /// Pages that hold something now; 0 where the fabric does not know.
    package var pagesStored: UInt64 = 0

    package init() {}
}

/// What lets another process of the same client go on with a fabric, whoever passes it on: bytes that only
/// that fabric understands, and descriptors. They are borrowed: from the fabric, as long as it lives, or from
/// whoever received them.
package struct Handover: Equatable, Sendable {
    package var bytes: [UInt8]
    package var descriptors: [Int32]

    package init(bytes: [UInt8], descriptors: [Int32]) {
        self.bytes = bytes
        self.descriptors = descriptors
    }
}

/// A lease on far memory.
package protocol Fabric: AnyObject, Sendable {
    /// The length of the address space.
    var size: ByteCount { get }
    var state: FabricState { get }
    var counters: FabricCounters { get }
    /// How many channels it can serve at once; more than this must not be made.
    var maximumChannels: Int { get }
    /// Makes a channel for one thread. Allocates; before the data path starts.
    func makeChannel() throws(FabricError) -> any FabricChannel
    /// What a successor of this process can go on with; nil when it can only connect anew.
    var handover: Handover? { get }
    /// Ends it. The lease is kept for its grace period, or given back with all that it holds.
    /// No channel may be used afterwards.
    func close(releaseLease: Bool)
}

extension Fabric {
    package var handover: Handover? { nil }
}
