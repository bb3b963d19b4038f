// FabricNBD: far memory over the NBD protocol, to memserver or any other server.
//
// Thread model: a channel belongs to one thread. Where the server promises that several connections see each
// other's writes (CAN_MULTI_CONN) each channel has a connection of its own; elsewhere all share one under a
// lock. Reconnecting is done by the thread that needs the connection, within its deadline: no thread of its own.
// Nothing is allocated per request. Invariant: once a connection has ended with a store unanswered, no channel
// sends anything before the server has ended that connection too (NBDOption.fence), so that an old store cannot
// land on a newer one; a server that does not know fences is believed to have dropped what a closed connection
// carried. The same holds for the connections of a predecessor of the same identity (NBDContinuity).

package import Fabric
package import FarMemory
import Glibc
import LinuxSystem
package import PoolProtocol
import Synchronization
package import TransportSecurity

/// Far memory in an NBD export.
package final class FabricNBD: Fabric {
    private static let channelsMax = 16

    let target: NBDTarget
    let tally = NBDTally()
    package let size: ByteCount
    private let canMultiConnect: Bool
    private let shared: NBDLink
    private let made = Atomic<Int>(0)

    /// Connects to learn the export's size. The connection becomes the first channel's.
    /// - Parameters:
    ///   - security: for `nbds`; nil takes what the URI says (NBDURI.clientCredentials).
    ///   - limit: uses no more of the export than this; nil uses all of it.
    ///   - continuity: what a predecessor left, if there is one.
    ///   - deadline: on the monotonic clock.
    package init(
        _ uri: NBDURI, security: TLSCredentials? = nil, limit: ByteCount? = nil,
        continuity: NBDContinuity = NBDContinuity(), deadline: Int64
    ) throws(NBDConnectError) {
        let own: TLSCredentials?
        do throws(TLSError) {
            if let security { own = security } else { own = try uri.clientCredentials() }
        } catch {
            throw .security(error.description)
        }
        let target = NBDTarget(uri: uri, security: own, identity: continuity.identity)
        self.target = target
        shared = NBDLink(target, tally, number: 0)
        let facts = try shared.connectFirst(epoch: continuity.epoch, deadline: deadline)
        target.add(shared, isConnected: true)
        size = ByteCount(pages: min(facts.size, limit ?? facts.size).pages)
        canMultiConnect = facts.flags.contains(.canMultiConnect)
    }

    package var state: FabricState {
        FabricState(rawValue: tally.state.load(ordering: .acquiring)) ?? .closed
    }
    package var counters: FabricCounters { tally.counters }
    package var maximumChannels: Int { Self.channelsMax }
    /// What the server said at the first connection: whether TRIM frees memory, and more.
    package var facts: NBDExportFacts? { target.facts.withLock { $0 } }

    package func makeChannel() throws(FabricError) -> any FabricChannel {
        let number = made.wrappingAdd(1, ordering: .relaxed).oldValue
        precondition(number < Self.channelsMax, "more channels than maximumChannels")
        let isShared = number == 0 || !canMultiConnect
        guard !isShared else { return NBDChannel(shared, size: size, self) }
        let link = NBDLink(target, tally, number: number)
        target.add(link, isConnected: false)
        return NBDChannel(link, size: size, self)
    }

    /// NBD has no word for giving a lease back: its pages are discarded, the lease's grace ends the rest.
    package func close(releaseLease: Bool) {
        if releaseLease {
            // A large export takes its time; a server that is away is worth a moment, for detach waits.
            let patience: Int64 = state == .connected ? 10_000_000_000 : 2_000_000_000
            let deadline = monotonicNow() + patience
            try? NBDChannel(shared, size: size, self).discard(
                PageRange(first: 0, count: Int(size.pages.pages)), deadline: deadline)
        }
        tally.state.store(FabricState.closed.rawValue, ordering: .releasing)
        target.closeLinks()
    }

    deinit { target.closeLinks() }
}

/// What a fabric must know of the one before it, which may have been killed at any moment.
package struct NBDContinuity: Sendable {
    /// Names this user of the export; the connections of a predecessor of the same name are ended first.
    package let identity: [UInt8]
    /// The lease that the predecessor had: another one under the same name is `leaseLost`.
    package let epoch: UInt64?

    /// - Parameter identity: `NBDWire.fenceBytes` bytes that nobody else has; nil draws them.
    package init(identity: [UInt8]? = nil, epoch: UInt64? = nil) {
        precondition(identity.map { $0.count == NBDWire.fenceBytes } ?? true, "16 bytes")
        self.identity = identity ?? Self.randomIdentity()
        self.epoch = epoch
    }

    /// Draws an identity.
    package static func randomIdentity() -> [UInt8] {
        var random = SystemRandomNumberGenerator()
        return (0..<NBDWire.fenceBytes).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    /// The name of one of its connections, as the server is told it.
    package static func connectionName(_ identity: [UInt8], _ number: Int) -> [UInt8] {
        var name = identity
        name[name.count - 1] ^= UInt8(truncatingIfNeeded: number)
        return name
    }
}

/// What all connections of one fabric have in common.
final class NBDTarget: Sendable {
    let uri: NBDURI
    let security: TLSCredentials?
    let identity: [UInt8]
    /// Set by the first connection; later ones must find the same lease.
    let facts = Mutex<NBDExportFacts?>(nil)
    /// The links, one bit each, of which an ended connection may still carry a store. While a bit is set no other
    /// link sends: the kernel was told that the store failed, and may store the page again elsewhere.
    let unfenced = Atomic<UInt32>(0)
    private let all = Mutex<[NBDLink]>([])

    init(uri: NBDURI, security: TLSCredentials?, identity: [UInt8]) {
        self.uri = uri
        self.security = security
        self.identity = identity
    }

    /// A link that was never connected may have had a predecessor: it is fenced before anything is sent.
    func add(_ link: NBDLink, isConnected: Bool) {
        all.withLock { $0.append(link) }
        if !isConnected { unfenced.bitwiseOr(link.bit, ordering: .releasing) }
    }

    func links() -> [NBDLink] { all.withLock { $0 } }

    /// Also ends the circle of links and target.
    func closeLinks() {
        let links = all.withLock { links in
            defer { links = [] }
            return links
        }
        for link in links { link.close() }
    }
}

/// State and counters of a fabric. Any thread.
final class NBDTally: Sendable {
    let state = Atomic<UInt8>(FabricState.reconnecting.rawValue)
    let reconnects = Atomic<UInt64>(0)
    let noSpace = Atomic<UInt64>(0)
    let deadlines = Atomic<UInt64>(0)
    let peerErrors = Atomic<UInt64>(0)
    let violations = Atomic<UInt64>(0)

    func moveTo(_ next: FabricState) {
        // A fabric that was closed or lost stays so.
        let now = state.load(ordering: .acquiring)
        if now == FabricState.closed.rawValue || now == FabricState.lost.rawValue { return }
        state.store(next.rawValue, ordering: .releasing)
    }

    var counters: FabricCounters {
        var counters = FabricCounters()
        counters.reconnects = reconnects.load(ordering: .relaxed)
        counters.refusedNoSpace = noSpace.load(ordering: .relaxed)
        counters.deadlinesPassed = deadlines.load(ordering: .relaxed)
        counters.peerErrors = peerErrors.load(ordering: .relaxed)
        counters.protocolViolations = violations.load(ordering: .relaxed)
        return counters
    }
}

/// One thread's way in.
final class NBDChannel: FabricChannel {
    /// One discard covers at most this: the length of a request has 32 bits.
    private static let discardPagesMax = 1 << 18

    private let link: NBDLink
    /// Whose end would close the link.
    private let fabric: FabricNBD
    private let pages: UInt64
    private let payloadPagesMax: Int
    private let canTrim: Bool

    init(_ link: NBDLink, size: ByteCount, _ fabric: FabricNBD) {
        self.link = link
        self.fabric = fabric
        pages = size.pages.pages
        let facts = fabric.facts
        payloadPagesMax = max(1, (facts?.payloadBytesMax ?? pageBytes) / pageBytes)
        canTrim = facts?.flags.contains(.sendWriteZeroes) ?? false
    }

    func load(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>, deadline: Int64
    ) throws(FabricError) -> Int {
        try checkRange(range)
        var done = 0
        while done < range.count {
            let count = min(range.count - done, payloadPagesMax)
            unsafe try link.exchange(
                .read, page: range.first + UInt64(done), count: count, send: nil,
                receive: staging + done * pageBytes, deadline: deadline)
            done += count
        }
        unsafe vectors[0] = unsafe iovec(iov_base: staging, iov_len: range.count * pageBytes)
        return 1
    }

    func store(
        _ range: PageRange, from bytes: UnsafeRawPointer, deadline: Int64
    ) throws(FabricError) {
        try checkRange(range)
        var done = 0
        while done < range.count {
            let count = min(range.count - done, payloadPagesMax)
            unsafe try link.exchange(
                .write, page: range.first + UInt64(done), count: count,
                send: bytes + done * pageBytes, receive: nil, deadline: deadline)
            done += count
        }
    }

    /// WRITE_ZEROES without NO_HOLE frees and promises zeros; TRIM promises nothing.
    func discard(_ range: PageRange, deadline: Int64) throws(FabricError) {
        try checkRange(range)
        guard canTrim else { throw .peerError(ENOTSUP) }
        var done = 0
        while done < range.count {
            let count = min(range.count - done, Self.discardPagesMax)
            unsafe try link.exchange(
                .writeZeroes, page: range.first + UInt64(done), count: count, send: nil,
                receive: nil, deadline: deadline)
            done += count
        }
    }

    private func checkRange(_ range: PageRange) throws(FabricError) {
        guard range.count > 0, range.first < pages, UInt64(range.count) <= pages - range.first
        else {
            throw .outOfRange
        }
    }
}
