// Verbs: RDMA connections, memory and queues behind typed errors and owners.
//
// Thread model: the libraries below lock, so any thread may call; each object has one owner that ends it, once, when no
// other thread uses it any more. Ending goes backwards: queues before their completion queue and domain, memory before its
// domain. A connection's end waits until its channel's thread has no event of it in hand, which it never has for longer
// than a copy takes.
// Must not import: Foundation.

package import CVerbsShims
import Glibc
package import LinuxSystem

/// Where connection events arrive. One thread takes them.
@safe package final class RDMAChannel: @unchecked Sendable {
    // SAFETY of @unchecked Sendable, here and below: the library locks its objects; see the module's head.
    fileprivate let raw: OpaquePointer

    /// `ENODEV` where the kernel has no RDMA device.
    package init() throws(SystemError) {
        guard let raw = unsafe fm_rdma_channel_open() else {
            throw SystemError.last("open the RDMA connection manager")
        }
        unsafe self.raw = raw
    }

    deinit { unsafe fm_rdma_channel_close(raw) }

    /// Readable when an event waits.
    package var descriptor: Int32 { unsafe fm_rdma_channel_fd(raw) }

    /// The next event, nil when there is none now.
    package func next() throws(SystemError) -> RDMAEvent? {
        var event = unsafe fm_rdma_event()
        let count = try check("rdma_get_cm_event") { unsafe fm_rdma_channel_next(raw, &event) }
        return count > 0 ? unsafe RDMAEvent(event) : nil
    }
}

/// What happened to a connection.
package struct RDMAEvent {
    package enum Kind: UInt32, Sendable {
        case none, addressResolved, routeResolved, connectRequest, established, rejected
        case unreachable, disconnected, deviceRemoved
    }

    package let kind: Kind
    /// An errno where there is one, or the reason of a rejection.
    package let status: Int32
    /// Of the connection that it is for; of a request: the listener's.
    package let context: UInt64
    /// Of a request: the new connection, which the receiver must accept, or refuse and end.
    package let connection: RDMAConnection?
    /// Of a request: READs that the peer wants to have under way.
    package let readsIn: UInt8
    package let privateData: [UInt8]

    fileprivate init(_ raw: fm_rdma_event) {
        kind = unsafe Kind(rawValue: raw.kind) ?? .none
        status = unsafe raw.status
        context = unsafe raw.context
        connection = unsafe raw.id.map { unsafe RDMAConnection(raw: $0) }
        readsIn = unsafe raw.reads_in
        // SAFETY: the length is one of the tuple's bytes.
        privateData = unsafe withUnsafeBytes(of: raw.private_data) {
            unsafe Array($0.prefix(Int(raw.private_length)))
        }
    }
}

/// A device's bounds.
package struct RDMADevice: Sendable {
    package let name: String
    package let readsInMax: Int
    package let readsOutMax: Int
    package let queueDepthMax: Int
    package let completionsMax: Int
}

/// How a connection is made.
package struct RDMAConnectionOptions: Sendable {
    package var privateData: [UInt8] = []
    /// READs of the peer that are served at once.
    package var readsIn = 0
    /// READs of this end.
    package var readsOut = 0
    /// Of a packet, 0 to 6: Soft-RoCE takes 7 as for ever.
    package var retries: UInt8 = 6
    /// Of a message that found no receive posted: 0 to 6; 7 is for ever.
    package var retriesReady: UInt8 = 6

    package init() {}
}

/// A listener, or one end of a connection with its pair of queues.
@safe package final class RDMAConnection: @unchecked Sendable {
    /// nil once it was ended.
    fileprivate var raw: OpaquePointer?

    fileprivate init(raw: OpaquePointer) { unsafe self.raw = raw }

    deinit { end() }

    /// A connection to be made.
    package init(_ channel: RDMAChannel, context: UInt64) throws(SystemError) {
        guard let raw = unsafe fm_rdma_make(channel.raw, context) else {
            throw SystemError.last("rdma_create_id")
        }
        unsafe self.raw = raw
    }

    /// A listener.
    package init(
        listeningOn host: String, port: UInt16, _ channel: RDMAChannel, backlog: Int32,
        context: UInt64
    ) throws(SystemError) {
        guard
            let raw = unsafe fm_rdma_listen(channel.raw, host, "\(port)", backlog, context)
        else { throw SystemError.last("listen for RDMA") }
        unsafe self.raw = raw
    }

    private var live: OpaquePointer {
        guard let raw = unsafe raw else { preconditionFailure("a connection that was ended") }
        return unsafe raw
    }

    /// The port it is bound to.
    package var localPort: UInt16 { UInt16(truncatingIfNeeded: unsafe fm_rdma_local_port(live)) }

    /// What its events carry. Before any other thread knows it.
    package func setContext(_ context: UInt64) { unsafe fm_rdma_set_context(live, context) }

    package func resolveAddress(
        _ host: String, port: UInt16, milliseconds: Int32
    ) throws(SystemError) {
        try check("resolve \(host)") {
            unsafe fm_rdma_resolve_address(live, host, "\(port)", milliseconds)
        }
    }

    package func resolveRoute(milliseconds: Int32) throws(SystemError) {
        try check("rdma_resolve_route") { unsafe fm_rdma_resolve_route(live, milliseconds) }
    }

    /// How long a packet's acknowledgement is waited for: 4.096 us * 2^exponent. Before connect or accept; where the
    /// device or kernel cannot, its own time stays.
    package func setAcknowledgementTimeout(exponent: UInt8) {
        _ = unsafe fm_rdma_set_ack_timeout(live, exponent)
    }

    package func connect(_ options: RDMAConnectionOptions) throws(SystemError) {
        unsafe try withRaw(options) { (parameters) throws(SystemError) in
            try check("rdma_connect") { unsafe fm_rdma_connect(live, parameters) }
        }
    }

    package func accept(_ options: RDMAConnectionOptions) throws(SystemError) {
        unsafe try withRaw(options) { (parameters) throws(SystemError) in
            try check("rdma_accept") { unsafe fm_rdma_accept(live, parameters) }
        }
    }

    private func withRaw(
        _ options: RDMAConnectionOptions,
        _ body: (UnsafePointer<fm_rdma_parameters>) throws(SystemError) -> Void
    ) throws(SystemError) {
        precondition(options.privateData.count <= 255, "private data is 255 bytes at most")
        var failure: SystemError?
        unsafe options.privateData.withUnsafeBytes { bytes in
            var parameters = unsafe fm_rdma_parameters()
            unsafe parameters.private_data = bytes.baseAddress
            unsafe parameters.private_length = UInt8(bytes.count)
            unsafe parameters.reads_in = UInt8(clamping: options.readsIn)
            unsafe parameters.reads_out = UInt8(clamping: options.readsOut)
            unsafe parameters.retries = options.retries
            unsafe parameters.retries_ready = options.retriesReady
            do throws(SystemError) { try unsafe body(&parameters) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// Refuses a request, with words for the peer.
    package func reject(_ privateData: [UInt8]) {
        _ = unsafe fm_rdma_reject(live, privateData, UInt8(clamping: privateData.count))
    }

    /// Says goodbye to the peer. The queues fail from here on.
    package func disconnect() { _ = unsafe fm_rdma_disconnect(live) }

    /// Gives it its queues; completions of both go to `completions`.
    package func makeQueues(
        _ domain: ProtectionDomain, _ completions: CompletionQueue, sends: Int, receives: Int
    ) throws(SystemError) {
        try check("rdma_create_qp") {
            unsafe fm_rdma_queues_make(
                live, domain.raw, completions.raw, UInt32(sends), UInt32(receives))
        }
    }

    /// Ends the queues: nothing arrives by them any more, and nothing that was posted is still carried out when this
    /// returns.
    package func endQueues() { if let raw = unsafe raw { unsafe fm_rdma_queues_destroy(raw) } }

    /// Ends queues and connection.
    package func end() {
        guard let raw = unsafe raw else { return }
        unsafe self.raw = nil
        unsafe fm_rdma_queues_destroy(raw)
        unsafe fm_rdma_destroy(raw)
    }

    package func isOnDevice(of other: RDMAConnection) -> Bool {
        unsafe fm_rdma_same_device(live, other.live)
    }

    package func device() throws(SystemError) -> RDMADevice {
        var facts = fm_rdma_device()
        try check("ibv_query_device") { unsafe fm_rdma_query_device(live, &facts) }
        // SAFETY: the name is terminated inside its field.
        let name = unsafe withUnsafeBytes(of: facts.name) {
            unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        return RDMADevice(
            name: name, readsInMax: Int(facts.reads_in_max), readsOutMax: Int(facts.reads_out_max),
            queueDepthMax: Int(facts.queue_depth_max), completionsMax: Int(facts.completions_max))
    }

    /// Posts a chain of at most `FM_RDMA_CHAIN_MAX` with one doorbell. Allocates nothing.
    /// - Returns: how many were posted; fewer than `count` when the queues are full or have failed.
    @inline(__always)
    package func post(_ work: UnsafePointer<fm_rdma_work>, count: Int) -> Int {
        Int(unsafe fm_rdma_post(live, work, Int32(count)))
    }

    /// Makes room for one message to come.
    package func postReceive(
        _ id: UInt64, into memory: UnsafeMutableRawPointer, count: Int, key: UInt32
    ) throws(SystemError) {
        try check("ibv_post_recv") {
            unsafe fm_rdma_post_receive(live, id, memory, UInt32(count), key)
        }
    }
}

/// Memory and queues that may meet.
@safe package final class ProtectionDomain: @unchecked Sendable {
    fileprivate let raw: OpaquePointer

    /// On the device of a connection.
    package init(on connection: RDMAConnection) throws(SystemError) {
        guard let id = unsafe connection.raw, let raw = unsafe fm_rdma_domain_make(id) else {
            throw SystemError.last("ibv_alloc_pd")
        }
        unsafe self.raw = raw
    }

    deinit { _ = unsafe fm_rdma_domain_destroy(raw) }
}

/// Memory that a device may read and write.
@safe package final class MemoryRegion: @unchecked Sendable {
    private var raw: OpaquePointer?
    private let domain: ProtectionDomain
    package let localKey: UInt32
    package let remoteKey: UInt32

    /// Pins memory of the caller, who keeps it longer than this.
    /// - Parameters:
    ///   - address: where peers find it; nil: at its own address.
    ///   - isRemote: whether peers may read and write it.
    package init(
        _ domain: ProtectionDomain, _ memory: UnsafeMutableRawPointer, count: Int,
        address: UInt64? = nil, isRemote: Bool
    ) throws(SystemError) {
        let access = isRemote ? FM_RDMA_REMOTE_READ.rawValue | FM_RDMA_REMOTE_WRITE.rawValue : 0
        guard
            let raw = unsafe fm_rdma_register(
                domain.raw, memory, count, address ?? UInt64(UInt(bitPattern: memory)),
                Int32(access))
        else { throw SystemError.last("ibv_reg_mr") }
        unsafe self.raw = raw
        self.domain = domain
        localKey = unsafe fm_rdma_local_key(raw)
        remoteKey = unsafe fm_rdma_remote_key(raw)
    }

    deinit { try? end() }

    /// Ends the keys: from here on no request finds the memory.
    package func end() throws(SystemError) {
        guard let raw = unsafe raw else { return }
        try check("ibv_dereg_mr") { unsafe fm_rdma_deregister(raw) }
        unsafe self.raw = nil
    }
}

/// A request that is done.
package typealias RDMACompletion = fm_rdma_completion

/// Where queues say what is done. One thread takes completions.
@safe package final class CompletionQueue: @unchecked Sendable {
    fileprivate let raw: OpaquePointer

    package init(on connection: RDMAConnection, entries: Int) throws(SystemError) {
        guard let id = unsafe connection.raw,
            let raw = unsafe fm_rdma_cq_make(id, Int32(entries))
        else { throw SystemError.last("ibv_create_cq") }
        unsafe self.raw = raw
    }

    deinit { unsafe fm_rdma_cq_destroy(raw) }

    /// Readable when a completion came after `arm`.
    package var descriptor: Int32 { unsafe fm_rdma_cq_fd(raw) }

    /// Asks for the descriptor to become readable with the next completion: poll after it, for those before do not count.
    package func arm() throws(SystemError) {
        try check("ibv_req_notify_cq") { unsafe fm_rdma_cq_arm(raw) }
    }

    /// Takes what made the descriptor readable.
    package func quiet() { unsafe fm_rdma_cq_quiet(raw) }

    /// Takes completions; allocates nothing.
    @inline(__always)
    package func poll(
        _ completions: UnsafeMutablePointer<RDMACompletion>, count: Int
    ) throws(SystemError) -> Int {
        try Int(check("ibv_poll_cq") { unsafe fm_rdma_cq_poll(raw, completions, Int32(count)) })
    }

    /// Takes up to 16 completions: the first `count` of the batch. Allocates nothing.
    package func pollBatch() throws(SystemError) -> (
        batch: InlineArray<16, RDMACompletion>, count: Int
    ) {
        var batch = InlineArray<16, RDMACompletion>(repeating: RDMACompletion())
        var count = 0
        var failure: SystemError?
        var span = batch.mutableSpan
        unsafe span.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            do throws(SystemError) {
                count = try unsafe poll(base, count: buffer.count)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return (batch, count)
    }
}

/// The library's words for a completion's status.
package func completionText(_ status: UInt32) -> String {
    unsafe fm_rdma_status_text(status).map { unsafe String(cString: $0) } ?? "status \(status)"
}
