import CVerbsShims
import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol
import Verbs

/// The control queue of one session: frames in SENDs, each end with as many receives posted as there are credits.
/// Belongs to the session's thread.
@safe final class RDMAControlQueue {
    let connection: RDMAConnection
    let completions: CompletionQueue
    private let domain: ProtectionDomain
    private let memory: MemoryMapping
    private let region: MemoryRegion
    private let credits: Int
    private let replyTime: Int64
    /// Frames that came and were not taken yet, oldest first.
    private var arrived: [(slot: Int, bytes: Int)] = []
    private var freeSends: [Int]

    private static let frameBytes = FrameHeader.byteCount + 512
    private static let sent: UInt64 = 1 << 32

    /// Makes the queues of a connection that was asked for and accepts it.
    init(accepting connection: RDMAConnection, _ limits: RDMALimits) throws(SystemError) {
        self.connection = connection
        credits = Int(limits.credits)
        replyTime = limits.reply.nanoseconds
        freeSends = Array(0..<credits)
        memory = try MemoryMapping(anonymous: 2 * credits * Self.frameBytes, populate: true)
        domain = try ProtectionDomain(on: connection)
        completions = try CompletionQueue(on: connection, entries: 2 * credits + 2)
        region = unsafe try MemoryRegion(
            domain, memory.base, count: memory.count, isRemote: false)
        try connection.makeQueues(domain, completions, sends: credits, receives: credits)
        for slot in 0..<credits { try postReceive(slot) }
        try completions.arm()
        var options = RDMAConnectionOptions()
        options.privateData =
            RDMAAccept(version: RDMAServer.version, queue: 0, credits: limits.credits).encoded()
        try connection.accept(options)
    }

    deinit {
        connection.endQueues()
        // Without queues the keys are worth nothing, so a failure here harms nobody.
        try? region.end()
    }

    // SAFETY: slots are below 2 * credits, for which the mapping has room.
    private func frame(_ slot: Int) -> UnsafeMutableRawPointer {
        unsafe memory.base + slot * Self.frameBytes
    }

    private func postReceive(_ slot: Int) throws(SystemError) {
        try unsafe connection.postReceive(
            UInt64(slot), into: frame(slot), count: Self.frameBytes, key: region.localKey)
    }

    /// Takes what the device has finished.
    private func poll() throws(RDMASessionEnd) {
        while true {
            let done: InlineArray<16, RDMACompletion>
            let count: Int
            do throws(SystemError) {
                (done, count) = try completions.pollBatch()
            } catch {
                throw .failed(error)
            }
            for index in 0..<count {
                let completion = done[index]
                // The queues have failed, or were flushed when the connection ended.
                guard completion.status == 0 else { throw .closed }
                let slot = Int(completion.id & 0xFFFF)
                if completion.id & Self.sent != 0 {
                    freeSends.append(slot)
                } else {
                    arrived.append((slot, Int(completion.bytes)))
                }
            }
            if count < 16 { return }
        }
    }

    /// The next message; nil when there is none now.
    func next() throws(RDMASessionEnd) -> (ControlMessage, cookie: UInt32)? {
        if arrived.isEmpty { try poll() }
        guard !arrived.isEmpty else { return nil }
        let (slot, count) = arrived.removeFirst()
        // SAFETY: the device wrote `count` bytes into the slot; a longer message would have failed.
        let bytes = unsafe Array(
            UnsafeRawBufferPointer(start: frame(slot), count: min(count, Self.frameBytes)))
        do throws(SystemError) {
            // Before the reply that gives the client its credit back.
            try postReceive(slot)
        } catch {
            throw .failed(error)
        }
        do throws(ControlDecodeError) {
            guard bytes.count >= FrameHeader.byteCount else {
                throw ControlDecodeError.wrongLength(type: 0, length: bytes.count)
            }
            let header = try FrameHeader.decode(bytes.prefix(FrameHeader.byteCount))
            let payload = bytes.dropFirst(FrameHeader.byteCount)
            guard payload.count == header.payloadLength else {
                throw ControlDecodeError.wrongLength(type: header.type, length: payload.count)
            }
            return (
                try ControlMessage.decode(type: header.type, payload: payload), header.cookie
            )
        } catch {
            throw .malformed("\(error)")
        }
    }

    /// Asks for the descriptor of `completions` to become readable with what comes next. True when something came
    /// before, which it would not tell of.
    func arm() throws(RDMASessionEnd) -> Bool {
        completions.quiet()
        do throws(SystemError) { try completions.arm() } catch { throw .failed(error) }
        try poll()
        return !arrived.isEmpty
    }

    /// Sends a reply; waits for a slot while the client's device takes earlier ones.
    func send(_ message: ControlMessage, cookie: UInt32) throws(RDMASessionEnd) {
        let bytes = message.encoded(cookie: cookie)
        precondition(bytes.count <= Self.frameBytes, "a frame is 528 bytes at most")
        let slot = try freeSlot()
        let target = unsafe frame(credits + slot)
        unsafe bytes.withUnsafeBytes { source in
            // SAFETY: checked above; the slot is nobody else's until its completion.
            if let base = source.baseAddress {
                unsafe target.copyMemory(from: base, byteCount: source.count)
            }
        }
        var work = unsafe fm_rdma_work()
        unsafe work.id = Self.sent | UInt64(slot)
        unsafe work.local = target
        unsafe work.bytes = UInt32(bytes.count)
        unsafe work.local_key = region.localKey
        unsafe work.operation = UInt8(FM_RDMA_SEND.rawValue)
        guard unsafe connection.post(&work, count: 1) == 1 else { throw .closed }
    }

    private func freeSlot() throws(RDMASessionEnd) -> Int {
        let deadline = monotonicNow() + replyTime
        while true {
            if let slot = freeSends.popLast() { return slot }
            try poll()
            if freeSends.isEmpty {
                guard monotonicNow() < deadline else { throw .tooSlow }
                sleepNanoseconds(200_000)
            }
        }
    }

    /// Waits until the replies have been taken, so that the last one is not lost with the connection.
    func drain() {
        let deadline = monotonicNow() + replyTime
        while freeSends.count < credits, monotonicNow() < deadline {
            do throws(RDMASessionEnd) { try poll() } catch { return }
            sleepNanoseconds(200_000)
        }
    }
}
