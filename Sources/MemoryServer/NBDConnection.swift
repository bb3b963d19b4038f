import CLinuxShims
package import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol
import Telemetry

/// Deadlines and bounds of the NBD listeners.
package struct NBDLimits: Sendable {
    /// From accept to the end of the negotiation.
    package var handshake = Nanoseconds.seconds(10)
    /// For the rest of a request once its first byte is there; a second per MiB of payload is added.
    package var request = Nanoseconds.seconds(15)
    /// Without the peer taking a single byte of a reply.
    package var send = Nanoseconds.seconds(30)
    package var connections = 64
    /// How long a connection looks for the next request before it sleeps, when that has paid.
    package var spin = Nanoseconds.microseconds(50)
    /// How long a connection lets requests gather when they come faster than one by one.
    package var nap = Nanoseconds.microseconds(50)

    package init() {}
}

/// Why a connection ended; the counters and the log name it.
package enum NBDConnectionEnd: String, Sendable {
    case disconnected, closed, handshakeTimeout, requestTimeout, sendTimeout, malformed, oversized
    case refused, shuttingDown
}

/// What one negotiation agreed on.
struct NBDAgreement {
    var memory: ExportMemory
    var structured: Bool
    var allocationContext: Bool
}

/// The transmission phase of one connection: everything is allocated in `init`, one thread runs it.
///
/// Each round parses all requests that have arrived, carries them out, and sends all replies in one call.
/// Long reads are answered in chunks, one per round, so that requests behind them do not wait.
@safe final class NBDConnection {
    static let bufferBytes = 256 << 10
    /// Longer payloads are received straight into the mapping.
    static let inlinePayloadMax = 64 << 10
    /// Longer reads are cut into chunks of this size when the client understands that.
    static let chunkBytes = 128 << 10
    static let longReadsMax = 32
    static let extentsMax = 256
    static let scratchBytes = 256 << 10

    let transport: NBDTransport
    let memory: ExportMemory
    let structured: Bool
    let allocationContext: Bool
    let limits: NBDLimits
    let counters: NBDCounters
    let shard: Int
    let batch: NBDReplyBatch
    private let mapping: MemoryMapping
    // SAFETY: these point into `mapping`, which lives as long as this object.
    private let buffer: UnsafeMutableRawPointer
    let scratch: UnsafeMutableRawPointer
    let longReads: UnsafeMutablePointer<NBDLongRead>
    let extents: UnsafeMutableRawPointer
    var longReadCount = 0
    var longReadNext = 0
    private var head = 0
    private var tail = 0
    private var partialSince: Int64 = 0
    private var patience: NBDPatience
    var requestsInRound = 0

    init(
        _ transport: NBDTransport, _ agreement: NBDAgreement, limits: NBDLimits,
        counters: NBDCounters, shard: Int
    ) throws(SystemError) {
        self.transport = transport
        memory = agreement.memory
        structured = agreement.structured
        allocationContext = agreement.allocationContext
        self.limits = limits
        self.counters = counters
        self.shard = shard
        patience = NBDPatience(spin: limits.spin.nanoseconds)
        batch = try NBDReplyBatch(transport)
        let slotBytes = Self.longReadsMax * MemoryLayout<NBDLongRead>.stride
        let extentBytes = 4 + 8 * Self.extentsMax
        mapping = try MemoryMapping(
            anonymous: Self.bufferBytes + Self.scratchBytes + slotBytes + extentBytes)
        unsafe buffer = mapping.base
        unsafe scratch = mapping.base + Self.bufferBytes
        let slots = unsafe scratch + Self.scratchBytes
        unsafe longReads = slots.bindMemory(to: NBDLongRead.self, capacity: Self.longReadsMax)
        unsafe extents = slots + slotBytes
    }

    /// Serves until the connection ends.
    func run() -> NBDConnectionEnd {
        // Naps are shorter than the slack that timers have by default.
        _ = fm_thread_timer_slack(1000)
        do throws(NBDStop) {
            while true {
                try parseRound()
                do throws(TransportEnd) {
                    if longReadCount > 0 { try continueLongRead() }
                    try batch.flush()
                } catch {
                    throw error == .timedOut ? .sendTimeout : .closed
                }
                counters.requests.add(UInt64(requestsInRound), shard: shard)
                try receiveMore()
            }
        } catch {
            // What was asked before a proper end is answered, if the peer takes it.
            do throws(TransportEnd) {
                if error.end == .disconnected || error.end == .closed {
                    while longReadCount > 0 {
                        try continueLongRead()
                        try batch.flush()
                    }
                }
                try batch.flush()
            } catch {
                return .closed
            }
            return error.end
        }
    }

    /// Carries out the complete requests in the buffer.
    private func parseRound() throws(NBDStop) {
        requestsInRound = 0
        while longReadCount < Self.longReadsMax, tail - head >= NBDWire.requestBytes {
            // SAFETY: a whole header lies between head and tail.
            guard let request = unsafe NBDRequest(at: buffer + head) else { throw .malformed }
            let payload = request.payloadBytes
            guard payload <= NBDWire.payloadBytesMax else { throw .oversized }
            if payload > Self.inlinePayloadMax {
                head += NBDWire.requestBytes
                try receivePayload(request)
            } else if tail - head >= NBDWire.requestBytes + payload {
                let bytes = unsafe buffer + head + NBDWire.requestBytes
                head += NBDWire.requestBytes + payload
                if request.command == .disconnect { throw .disconnected }
                do throws(TransportEnd) {
                    unsafe try execute(request, bytes)
                } catch {
                    throw NBDStop(error)
                }
            } else {
                break
            }
            requestsInRound += 1
            partialSince = 0
        }
    }

    /// Waits for bytes; returns at once when long reads are under way.
    private func receiveMore() throws(NBDStop) {
        if longReadCount == Self.longReadsMax { return }
        makeRoom()
        if tail > head {
            let now = monotonicNow()
            if partialSince == 0 { partialSince = now }
            if now - partialSince > limits.request.nanoseconds { throw .requestTimeout }
        }
        do throws(TransportEnd) {
            if longReadCount > 0 {
                unsafe tail += try transport.receive(
                    buffer + tail, Self.bufferBytes - tail, wait: false)
            } else {
                tail += try receiveOrSleep()
            }
        } catch {
            guard error == .timedOut else { throw tail > head ? .malformed : .closed }
            // The socket's timeout is only a tick: an idle client may stay.
        }
    }

    /// Waits for the next requests in the way that has paid lately (NBDPatience).
    private func receiveOrSleep() throws(TransportEnd) -> Int {
        let space = Self.bufferBytes - tail
        if patience.gathers(served: requestsInRound) { _ = fm_nap(UInt64(limits.nap.nanoseconds)) }
        var got = unsafe try transport.receive(buffer + tail, space, wait: false)
        if got > 0 { return got }
        switch patience.choose() {
        case .nap:
            _ = fm_nap(UInt64(limits.nap.nanoseconds))
            got = unsafe try transport.receive(buffer + tail, space, wait: false)
            if got > 0 { return got }
        case .spin(let start, let length):
            repeat {
                cpuRelax()
                got = unsafe try transport.receive(buffer + tail, space, wait: false)
                if got > 0 {
                    patience.spun(true)
                    return got
                }
            } while monotonicNow() - start < length
            patience.spun(false)
        case .sleep:
            break
        }
        let start = monotonicNow()
        got = unsafe try transport.receive(buffer + tail, space, wait: true)
        patience.slept(monotonicNow() - start)
        return got
    }

    /// Moves a beginning of a request to the front when the rest might not fit behind it.
    private func makeRoom() {
        if head == tail {
            head = 0
            tail = 0
        } else if Self.bufferBytes - head < Self.inlinePayloadMax + NBDWire.requestBytes {
            unsafe memmove(buffer, buffer + head, tail - head)
            tail -= head
            head = 0
        }
    }

    /// A write whose payload goes straight to its place. What cannot be stored is received all the same,
    /// for the next request comes behind it.
    private func receivePayload(_ request: NBDRequest) throws(NBDStop) {
        // Others need not wait for a long payload to get their replies.
        do throws(TransportEnd) { try batch.flush() } catch { throw NBDStop(error) }
        var error = rangeError(request) ?? flagError(request)
        let count = Int(request.length)
        if error == nil && !memory.prepare(offset: request.offset, count: count) {
            error = .noSpace
        }
        let allowed =
            limits.request.nanoseconds + Int64(count / (1 << 20)) * 1_000_000_000
        let deadline = monotonicNow() + allowed
        var done = 0
        while done < count {
            let piece = min(count - done, Self.scratchBytes)
            if tail > head {
                let here = min(piece, tail - head)
                if error == nil {
                    _ = unsafe memory.store(
                        buffer + head, offset: request.offset + UInt64(done), count: here)
                }
                head += here
                done += here
                continue
            }
            done += try receivePiece(
                error == nil ? request.offset + UInt64(done) : nil, piece, deadline)
        }
        do throws(TransportEnd) { try answer(request, error ?? .none) } catch {
            throw NBDStop(error)
        }
    }

    private func receivePiece(
        _ offset: UInt64?, _ count: Int, _ deadline: Int64
    ) throws(NBDStop) -> Int {
        let left = deadline - monotonicNow()
        guard left > 0, transport.waitReadable(left) else { throw .requestTimeout }
        do throws(TransportEnd) {
            guard let offset else {
                return unsafe try transport.receive(scratch, count, wait: false)
            }
            let place = unsafe memory.beginFill(offset: offset, count: count)
            defer { memory.endFill() }
            return unsafe try transport.receive(place ?? scratch, count, wait: false)
        } catch {
            throw .malformed
        }
    }
}

/// The end of a connection as an error of the loop.
struct NBDStop: Error {
    let end: NBDConnectionEnd
    static let malformed = NBDStop(end: .malformed)
    static let oversized = NBDStop(end: .oversized)
    static let closed = NBDStop(end: .closed)
    static let disconnected = NBDStop(end: .disconnected)
    static let requestTimeout = NBDStop(end: .requestTimeout)
    static let sendTimeout = NBDStop(end: .sendTimeout)

    init(end: NBDConnectionEnd) { self.end = end }
    /// A send that failed.
    init(_ end: TransportEnd) { self.end = end == .timedOut ? .sendTimeout : .closed }
}
