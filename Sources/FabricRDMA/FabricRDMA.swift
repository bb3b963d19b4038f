// FabricRDMA: far memory on another host, one-sided. Loads and stores are READs and WRITEs of the lease's memory, which
// memserver's processor has no part in; it is asked for slabs, ahead of need, by a thread of our own.
//
// Thread model: channels run on the callers' threads, each with a data queue of its own. One control thread owns the session
// and makes the queues. They meet at the gates (a slab is open while its key is known), at a queue's lock, and at a condition
// that requests wait on when their slab's key is not there yet.
//
// Invariants: a page's bit is set after its WRITE was completed, and cleared before its slab goes back; a slab goes back only
// while its gate is closed. A session in which a request's end is not known is over: nothing is sent to the lease again before
// the server has ended that session (RESUME), so no WRITE of it can arrive after a later one. A failed or missing completion is
// an error, never a success.
// Must not import: Foundation.

package import Fabric
package import FarMemory
import Glibc
package import LinuxSystem
import PoolProtocol
import Synchronization
package import Telemetry

/// A lease of a memserver that listens for RDMA.
@safe package final class FabricRDMA: Fabric, @unchecked Sendable {
    // SAFETY of @unchecked Sendable: keys are written before their gate opens and read behind it; the rest is atomic, locked, or
    // belongs to the control thread.

    package let size: ByteCount
    let target: RDMATarget
    /// What happens to the session, which nobody asked for.
    let log: Logger?
    let record: RDMALeaseRecord
    let gates: SlabGates
    let file: RDMAPageFile
    var pages: SharedBitmap { file.pages }
    /// Zeros, for pages that hold nothing.
    let zeros: MemoryMapping
    /// Under which key a slab is reached; valid behind its open gate.
    let keys: UnsafeMutablePointer<UInt32>
    /// Where the server has the lease's first byte, in this session.
    let base = Atomic<UInt64>(0)
    let wanted: SharedBitmap
    private let wantedMemory: MemoryMapping
    let arrival = Condition()
    let wake: EventSignal
    let queues = Mutex<[RDMADataQueue]>([])
    /// How many queues there may be, as the server said last.
    let queuesMax = Atomic<Int>(0)

    private let stateWord = Atomic<UInt8>(FabricState.reconnecting.rawValue)
    /// Grows with each answer to what stores waited for, so that a waiter knows a newer refusal.
    let refusals = Atomic<UInt64>(0)
    let trimWanted = Atomic<Bool>(false)
    /// A data queue failed: the session must end.
    let isFaulty = Atomic<Bool>(false)
    let stopping = Atomic<UInt8>(0)
    let reconnects = Atomic<UInt64>(0)
    let refusedNoSpace = Atomic<UInt64>(0)
    let deadlinesPassed = Atomic<UInt64>(0)
    let peerErrors = Atomic<UInt64>(0)
    let violations = Atomic<UInt64>(0)
    private var control: WorkerThread?

    static let zeroBytes = 16 * pageBytes
    /// One data queue each.
    private static let channelsMax = 16

    /// The lease's number: another lease of the same name has another.
    package var epoch: UInt64 { record.epoch }

    package var handover: Handover? {
        Handover(bytes: record.encoded(), descriptors: [file.file.rawValue])
    }

    /// Connects and opens the lease, making it when there is none. A lease that another session just lost is waited for.
    /// All that the lease holds counts as stored: nobody is there who knows better.
    /// - Parameter epoch: the number of the lease that it must be, where pages of ours are in one already.
    package static func connect(
        _ target: RDMATarget, size: ByteCount, epoch: UInt64? = nil, log: Logger? = nil
    ) throws(RDMASessionError) -> FabricRDMA {
        let deadline = monotonicNow() + 4_000_000_000
        while true {
            do throws(RDMASessionError) {
                return try connectOnce(target, size: size, epoch: epoch, log: log)
            } catch {
                guard passes(error), monotonicNow() < deadline else {
                    if epoch != nil, case .refused(.noLease, _) = error { throw .anotherLease }
                    throw error
                }
            }
            sleepNanoseconds(20_000_000)
        }
    }

    /// Whether another attempt may fare better: packets of a first contact are lost, and a lease is busy while its last
    /// session ends.
    private static func passes(_ error: RDMASessionError) -> Bool {
        switch error {
        case .timedOut, .queueFailed, .refused(.busy, _): true
        default: false
        }
    }

    private static func connectOnce(
        _ target: RDMATarget, size: ByteCount, epoch: UInt64?, log: Logger?
    ) throws(RDMASessionError) -> FabricRDMA {
        let session = try RDMAControlClient(target)
        let lease = try session.open(size: size.bytes, create: epoch == nil)
        guard epoch == nil || lease.epoch == epoch else { throw .anotherLease }
        let record = RDMALeaseRecord(lease)
        guard record.isPossible else { throw .protocolViolation("an impossible lease") }
        let fabric: FabricRDMA
        do throws(SystemError) {
            fabric = try FabricRDMA(
                target, record, RDMAPageFile(pageCount: record.pageCount), log)
        } catch {
            throw .unreachable(error)
        }
        let thread = RDMAControlThread(fabric)
        try thread.adopt(session, lease, presumingAll: true)
        do throws(SystemError) { try fabric.start(thread) } catch { throw .unreachable(error) }
        return fabric
    }

    /// Goes on with what a predecessor left. A session is got in the background; until then nothing can be loaded.
    /// - Parameter size: what the lease must have.
    /// - Throws: `EINVAL` when this is no lease of that size.
    package static func resume(
        _ left: Handover, _ target: RDMATarget, size: ByteCount, log: Logger? = nil
    ) throws(SystemError) -> FabricRDMA {
        let record = try RDMALeaseRecord(checking: left, size: size)
        let fabric = try FabricRDMA(
            target, record,
            RDMAPageFile(copying: left.descriptors[0], pageCount: record.pageCount), log)
        try fabric.start(RDMAControlThread(fabric))
        return fabric
    }

    private init(
        _ target: RDMATarget, _ record: RDMALeaseRecord, _ file: consuming RDMAPageFile,
        _ log: Logger?
    ) throws(SystemError) {
        self.target = target
        self.record = record
        self.file = file
        self.log = log
        size = ByteCount(record.size)
        gates = SlabGates(count: record.slabCount)
        zeros = try MemoryMapping(anonymous: Self.zeroBytes, populate: true)
        wantedMemory = try MemoryMapping(
            anonymous: SharedBitmap.byteCount(record.slabCount), populate: true)
        unsafe wanted = SharedBitmap(wantedMemory.base, count: record.slabCount)
        wake = try EventSignal()
        unsafe keys = .allocate(capacity: record.slabCount)
        unsafe keys.initialize(repeating: 0, count: record.slabCount)
    }

    deinit { unsafe keys.deallocate() }

    private func start(_ thread: RDMAControlThread) throws(SystemError) {
        control = try WorkerThread("farswap-rdma") { thread.run() }
    }

    package var state: FabricState {
        FabricState(rawValue: stateWord.load(ordering: .acquiring)) ?? .lost
    }

    /// A lease that is lost stays so.
    func moveTo(_ next: FabricState) {
        if state == .lost && next != .closed { return }
        stateWord.store(next.rawValue, ordering: .releasing)
    }

    package var maximumChannels: Int {
        let allowed = queuesMax.load(ordering: .relaxed)
        return allowed > 0 ? min(allowed, Self.channelsMax) : Self.channelsMax
    }

    package var counters: FabricCounters {
        var result = FabricCounters()
        result.reconnects = reconnects.load(ordering: .relaxed)
        result.refusedNoSpace = refusedNoSpace.load(ordering: .relaxed)
        result.deadlinesPassed = deadlinesPassed.load(ordering: .relaxed)
        result.peerErrors = peerErrors.load(ordering: .relaxed)
        result.protocolViolations = violations.load(ordering: .relaxed)
        result.slabsGranted = UInt64((0..<gates.count).count { gates.isOpen($0) })
        result.slabBytes = UInt64(record.slabBytes)
        result.pagesStored = UInt64(pages.countSet(0..<pages.count))
        return result
    }

    /// Makes a channel; waits a moment for its queue, without which its requests are `unreachable`.
    package func makeChannel() throws(FabricError) -> any FabricChannel {
        let made: RDMADataQueue? = queues.withLock { queues in
            precondition(queues.count < Self.channelsMax, "more channels than maximumChannels")
            do throws(SystemError) {
                let queue = try RDMADataQueue(number: UInt16(queues.count + 1))
                queues.append(queue)
                return queue
            } catch {
                return nil
            }
        }
        guard let made else { throw .noSpace }
        wake.signal()
        let deadline = monotonicNow() + 2_000_000_000
        arrival.lock()
        while state == .connected, monotonicNow() < deadline, !isReady(made) {
            _ = arrival.wait(until: monotonicNow() + 20_000_000)
        }
        arrival.unlock()
        return RDMAFabricChannel(self, made)
    }

    private func isReady(_ queue: RDMADataQueue) -> Bool {
        queue.lock()
        defer { queue.unlock() }
        return queue.isConnected
    }

    package func close(releaseLease: Bool) {
        stopping.store(releaseLease ? 2 : 1, ordering: .releasing)
        wake.signal()
        control?.join()
        control = nil
        moveTo(.closed)
    }

    // MARK: For channels

    /// Waits until the slab's gate lets this thread in. Every return needs one `gates.leave`.
    func enterSlab(_ slab: Int, deadline: Int64) throws(FabricError) {
        if gates.enter(slab) { return }
        let before = refusals.load(ordering: .acquiring)
        wanted.set(slab)
        wake.signal()
        arrival.lock()
        defer { arrival.unlock() }
        while true {
            if gates.enter(slab) { return }
            if refusals.load(ordering: .acquiring) != before { throw .noSpace }
            try checkState()
            guard
                arrival.wait(until: min(deadline, monotonicNow() + 50_000_000))
                    || monotonicNow() < deadline
            else { throw .deadlinePassed }
        }
    }

    /// Throws unless there is a session.
    func checkState() throws(FabricError) {
        switch state {
        case .connected: break
        case .reconnecting: throw .unreachable
        case .lost, .closed: throw .leaseLost
        }
    }

    /// A request's end is not known, or it failed: the session must end.
    func noteFault(_ error: FabricError) {
        switch error {
        case .deadlinePassed: deadlinesPassed.wrappingAdd(1, ordering: .relaxed)
        case .peerError: peerErrors.wrappingAdd(1, ordering: .relaxed)
        case .protocolViolation: violations.wrappingAdd(1, ordering: .relaxed)
        default: break
        }
        // At once, so that nobody begins another request.
        if state == .connected { moveTo(.reconnecting) }
        isFaulty.store(true, ordering: .releasing)
        wake.signal()
    }

    /// Something was discarded: empty slabs may go back.
    func noteDiscard() {
        if !trimWanted.exchange(true, ordering: .acquiringAndReleasing) { wake.signal() }
    }
}

extension RDMALeaseRecord {
    init(_ lease: OpenedRDMA) {
        self.init(
            id: lease.leaseID, epoch: lease.epoch, size: lease.size,
            slabBytes: Int(lease.slabBytes))
    }
}
