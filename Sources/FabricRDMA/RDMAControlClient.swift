import CGnuTLS
import CVerbsShims
import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol
import Verbs

/// The client's end of a session: its control queue, one request at a time, and what makes its data queues. Belongs to one
/// thread.
@safe final class RDMAControlClient {
    let link: RDMALink
    private let memory: MemoryMapping
    private var region: MemoryRegion?
    private var completions: CompletionQueue?
    private var connection: RDMAConnection?
    private var cookie: UInt32 = 0
    /// When something was sent last.
    private(set) var lastSent: Int64 = 0
    /// An answer in parts: the SEND's own completion may come before or after it.
    private var isSending = false
    private var answer: (slot: Int, bytes: Int)?

    /// For an answer.
    static let patience: Int64 = 3_000_000_000
    /// For the answer to RESUME: the server waits for the old session's end.
    private static let successionPatience: Int64 = 12_000_000_000
    private static let frameBytes = FrameHeader.byteCount + 512
    /// One receive for the answer, one for what must not come.
    private static let receives = 2
    private static let sent: UInt64 = 1 << 32

    /// Connects, agrees on a version, and proves the key.
    init(_ target: RDMATarget) throws(RDMASessionError) {
        link = try RDMALink(target)
        do throws(SystemError) {
            memory = try MemoryMapping(
                anonymous: (Self.receives + 1) * Self.frameBytes, populate: true)
        } catch {
            throw .unreachable(error)
        }
        let request = RDMAConnectRequest(versions: 1...1, queue: 0)
        let (made, _) = try link.connect(request, readsOut: 0) {
            (connection, domain) throws(SystemError) in
            let region = unsafe try MemoryRegion(
                domain, memory.base, count: memory.count, isRemote: false)
            let completions = try CompletionQueue(on: connection, entries: 8)
            self.region = region
            self.completions = completions
            try connection.makeQueues(domain, completions, sends: 2, receives: Self.receives)
            for slot in 0..<Self.receives { try post(slot, connection, region) }
        }
        connection = made
        try greet()
    }

    deinit { end() }

    /// Ends the connection.
    func end() {
        connection?.disconnect()
        connection?.end()
        connection = nil
        // Local memory that no queue refers to any more: a failure would harm nobody.
        try? region?.end()
    }

    /// Readable when something came, which is what must not be while no request waits.
    var descriptor: Int32 { completions?.descriptor ?? -1 }

    // MARK: Requests

    private func greet() throws(RDMASessionError) {
        let welcome = try request(
            .hello(versions: 1...1, features: 0, clientName: "farswap-\(getpid())"))
        guard case .welcome(_, let authRequired, _, let challenge) = welcome else {
            throw .protocolViolation("no welcome")
        }
        guard authRequired else { return }
        guard let key = link.target.key else { throw .keyNeeded }
        let text = ControlMessage.authenticatedBytes(
            challenge: challenge, keyName: key.name, over: .rdma)
        try requireOK(.auth(keyName: key.name, mac: Self.hmac(text, key: key.secret)))
    }

    func open(
        size: UInt64, create: Bool, exclusive: Bool = false
    ) throws(RDMASessionError) -> OpenedRDMA {
        var flags: OpenFlags = create ? .create : []
        if exclusive { flags.insert(.exclusive) }
        return try opened(
            .open(leaseName: link.target.lease, size: size, flags: flags), Self.patience)
    }

    func resume(session: UInt64, token: [UInt8]) throws(RDMASessionError) -> OpenedRDMA {
        try opened(
            .resume(leaseName: link.target.lease, session: session, token: token),
            Self.successionPatience)
    }

    private func opened(
        _ message: ControlMessage, _ patience: Int64
    ) throws(RDMASessionError) -> OpenedRDMA {
        guard case .openedRDMA(let lease) = try request(message, patience) else {
            throw .protocolViolation("no lease")
        }
        return lease
    }

    /// Asks for slabs; the answer may be fewer, from the first on.
    func grant(_ slabs: SlabRange) throws(RDMASessionError) -> [UInt32] {
        guard case .grantedKeys(let first, let keys) = try request(.grant(slabs)),
            first == slabs.first, keys.count <= slabs.count
        else { throw .protocolViolation("no grant") }
        return keys
    }

    /// The first run of slabs in a range that the lease holds.
    func held(_ slabs: SlabRange) throws(RDMASessionError) -> (first: Int, keys: [UInt32]) {
        guard case .grantedKeys(let first, let keys) = try request(.held(slabs)),
            first >= slabs.first, UInt64(first) + UInt64(keys.count) <= slabs.end
        else { throw .protocolViolation("not what is held") }
        return (Int(first), keys)
    }

    func giveBack(_ slabs: SlabRange) throws(RDMASessionError) {
        try requireOK(.returnSlabs(slabs))
    }

    func ping() throws(RDMASessionError) {
        guard case .pong = try request(.ping) else { throw .protocolViolation("no pong") }
    }

    func finish(releaseLease: Bool) throws(RDMASessionError) {
        try requireOK(releaseLease ? .release : .close)
    }

    private func requireOK(_ message: ControlMessage) throws(RDMASessionError) {
        guard case .ok = try request(message) else { throw .protocolViolation("no ok") }
    }

    private func request(
        _ message: ControlMessage, _ patience: Int64 = patience
    ) throws(RDMASessionError) -> ControlMessage {
        cookie &+= 1
        try send(message.encoded(cookie: cookie))
        let deadline = monotonicNow() + patience
        while answer == nil || isSending { try waitForCompletion(until: deadline) }
        let reply = try takeAnswer()
        if case .error(let code, let text) = reply { throw .refused(code, text) }
        return reply
    }

    private func send(_ bytes: [UInt8]) throws(RDMASessionError) {
        guard let connection, let region, answer == nil else {
            throw .protocolViolation("an answer without a request")
        }
        precondition(bytes.count <= Self.frameBytes, "a frame is 528 bytes at most")
        let target = unsafe frame(Self.receives)
        unsafe bytes.withUnsafeBytes { source in
            // SAFETY: checked above, and no earlier send is under way.
            if let base = source.baseAddress {
                unsafe target.copyMemory(from: base, byteCount: source.count)
            }
        }
        var work = unsafe fm_rdma_work()
        unsafe work.id = Self.sent
        unsafe work.local = target
        unsafe work.bytes = UInt32(bytes.count)
        unsafe work.local_key = region.localKey
        unsafe work.operation = UInt8(FM_RDMA_SEND.rawValue)
        isSending = true
        guard unsafe connection.post(&work, count: 1) == 1 else { throw .queueFailed }
        lastSent = monotonicNow()
    }

    // SAFETY: slots are at most `receives`, for which the mapping has room.
    private func frame(_ slot: Int) -> UnsafeMutableRawPointer {
        unsafe memory.base + slot * Self.frameBytes
    }

    private func post(
        _ slot: Int, _ connection: RDMAConnection, _ region: MemoryRegion
    ) throws(SystemError) {
        try unsafe connection.postReceive(
            UInt64(slot), into: frame(slot), count: Self.frameBytes, key: region.localKey)
    }

    /// What is wrong with the control queue while no request waits; nil when nothing is.
    func checkQuiet() throws(RDMASessionError) {
        link.takeEvents()
        if link.isBroken { throw .queueFailed }
        completions?.quiet()
        try poll()
        if answer != nil { throw .protocolViolation("an answer without a request") }
        try wrapping { () throws(SystemError) in try completions?.arm() }
        try poll()
        if answer != nil { throw .protocolViolation("an answer without a request") }
    }

    private func waitForCompletion(until deadline: Int64) throws(RDMASessionError) {
        let (hadAnswer, wasSending) = (answer != nil, isSending)
        guard let completions else { throw .queueFailed }
        while true {
            try poll()
            if hadAnswer != (answer != nil) || wasSending != isSending { return }
            completions.quiet()
            try wrapping { () throws(SystemError) in try completions.arm() }
            try poll()
            if hadAnswer != (answer != nil) || wasSending != isSending { return }
            link.takeEvents()
            if link.isBroken { throw .queueFailed }
            let left = deadline - monotonicNow()
            guard left > 0 else { throw .timedOut }
            // Not longer than a moment: what happens to the connection is told elsewhere.
            _ = try wrapping { () throws(SystemError) in
                try waitReady(completions.descriptor, .readable, timeout: min(left, 50_000_000))
            }
        }
    }

    private func poll() throws(RDMASessionError) {
        guard let completions else { return }
        let (done, count) = try wrapping { () throws(SystemError) in try completions.pollBatch() }
        for index in 0..<count {
            let completion = done[index]
            guard completion.status == 0 else { throw .queueFailed }
            if completion.id & Self.sent != 0 {
                isSending = false
            } else if answer == nil {
                answer = (Int(completion.id), Int(completion.bytes))
            } else {
                throw .protocolViolation("two answers to one request")
            }
        }
    }

    private func takeAnswer() throws(RDMASessionError) -> ControlMessage {
        guard let (slot, count) = answer, let connection, let region else { throw .queueFailed }
        answer = nil
        // SAFETY: the device wrote `count` bytes into the slot; a longer message would have failed.
        let bytes = unsafe Array(
            UnsafeRawBufferPointer(start: frame(slot), count: min(count, Self.frameBytes)))
        try wrapping { () throws(SystemError) in try post(slot, connection, region) }
        do throws(ControlDecodeError) {
            guard bytes.count >= FrameHeader.byteCount else {
                throw ControlDecodeError.wrongLength(type: 0, length: bytes.count)
            }
            let header = try FrameHeader.decode(bytes.prefix(FrameHeader.byteCount))
            let payload = bytes.dropFirst(FrameHeader.byteCount)
            guard header.cookie == cookie else { throw ControlDecodeError.badField("cookie") }
            guard payload.count == header.payloadLength else {
                throw ControlDecodeError.wrongLength(type: header.type, length: payload.count)
            }
            return try ControlMessage.decode(type: header.type, payload: payload)
        } catch {
            throw .protocolViolation("\(error)")
        }
    }

    private func wrapping<R>(
        _ body: () throws(SystemError) -> R
    ) throws(RDMASessionError) -> R {
        do throws(SystemError) { return try body() } catch { throw .unreachable(error) }
    }

    private static func hmac(_ text: [UInt8], key: [UInt8]) -> [UInt8] {
        var mac = [UInt8](repeating: 0, count: 32)
        let status = unsafe gnutls_hmac_fast(
            GNUTLS_MAC_SHA256, key, key.count, text, text.count, &mac)
        precondition(status == 0, "HMAC-SHA256 always exists")
        return mac
    }
}
