// FabricShm: far memory on the same host, one-sided. The lease's file is mapped; loads and stores touch
// it without asking anybody. The server is asked for slabs only, ahead of need, by a thread of our own.
//
// Thread model: channels run on the callers' threads. One control thread owns the session. They meet at
// the gates (a slab is open while it is granted), the page bits (shared with the server and with a
// successor of this process), and a condition that stores wait on when their slab is not there yet.
//
// A successor can go on with the lease's files before it has a session, or without ever getting one: see
// ShmHandover.swift.
//
// Invariants: a page's bit is set after its bytes are in place, and cleared before its slab goes back; a
// slab goes back only while its gate is closed, so that no store can be under way in it.

import CWireFormat
package import Fabric
package import FarMemory
import Glibc
package import LinuxSystem
package import PoolProtocol
import Synchronization

/// A lease of a memserver on this host.
@safe package final class FabricShm: Fabric, @unchecked Sendable {
    // SAFETY of @unchecked Sendable: the mappings are only touched as the module's rules above say; all
    // else is atomic or belongs to the control thread.

    package let size: ByteCount
    let slabBytes: Int
    let data: MemoryMapping
    private let pageFile: MemoryMapping
    private let grantFile: MemoryMapping
    /// Zeros, for pages that hold nothing.
    let zeros: MemoryMapping
    let pages: SharedBitmap
    let gates: SlabGates
    /// The server clears it before it clears the page bits of a lease that it ends.
    private let epochMark: SharedWord
    private let grants: SharedBitmap
    private let wanted: SharedBitmap
    private let wantedMemory: MemoryMapping
    /// Slabs whose give-back was sent and not answered. In memory that a successor gets.
    private let returning: SharedBitmap
    private let returningFile: MemoryMapping
    private let files: ShmLeaseFiles
    private let arrival = Condition()
    private let wake: EventSignal
    private let socketPath: String
    private let leaseName: String
    private let key: SharedKey?
    private let record: ShmLeaseRecord

    private let stateWord = Atomic<UInt8>(FabricState.connected.rawValue)
    /// Grows with each answer to what stores waited for, so that a waiter knows a newer refusal.
    private let refusals = Atomic<UInt64>(0)
    private let trimWanted = Atomic<Bool>(false)
    private let stopping = Atomic<UInt8>(0)
    private let reconnects = Atomic<UInt64>(0)
    private let refusedNoSpace = Atomic<UInt64>(0)
    private let violations = Atomic<UInt64>(0)
    private var control: WorkerThread?

    static let zeroBytes = 16 * pageBytes
    /// Slabs kept granted ahead of the highest one in use while stores go on.
    private static let slabsAhead = 32
    /// Without a store that needed a slab for this long, empty slabs go back.
    private static let trimAfter: Int64 = 300_000_000
    static let headerBytes = 64

    /// The lease's number: another lease of the same name has another.
    package var epoch: UInt64 { record.epoch }

    package var handover: Handover? {
        Handover(bytes: record.encoded(), descriptors: files.numbers)
    }

    /// Connects and opens the lease, making it when there is none. A lease that another session just
    /// lost is waited for.
    /// - Parameter epoch: the number of the lease that it must be, where pages of ours are in one already.
    package static func connect(
        socket: String, leaseName: String, size: ByteCount, key: SharedKey?, epoch: UInt64? = nil
    ) throws(ShmSessionError) -> FabricShm {
        let deadline = monotonicNow() + 1_500_000_000
        while true {
            do throws(ShmSessionError) {
                var session = try ShmSession.connect(path: socket, key: key)
                let lease = try session.open(leaseName, size: size.bytes, create: epoch == nil)
                guard epoch == nil || lease.record.epoch == epoch else {
                    for fd in lease.descriptors { Glibc.close(fd) }
                    throw ShmSessionError.anotherLease
                }
                do throws(SystemError) {
                    let fabric = try FabricShm(
                        socket: socket, leaseName: leaseName, key: key, record: lease.record,
                        files: ShmLeaseFiles(opened: lease), state: .connected)
                    try fabric.start(session)
                    return fabric
                } catch {
                    throw ShmSessionError.unreachable(error)
                }
            } catch {
                guard case .refused(.busy, _) = error, monotonicNow() < deadline else {
                    if epoch != nil, case .refused(.noLease, _) = error { throw .anotherLease }
                    throw error
                }
            }
            sleepNanoseconds(2_000_000)
        }
    }

    /// Goes on with what a predecessor left. No server is needed: pages are served at once, a session is got
    /// in the background, and only then can slabs be granted.
    /// - Parameter size: what the lease must have.
    /// - Throws: `EINVAL` when this is no lease of that size.
    package static func resume(
        _ left: Handover, socket: String, leaseName: String, size: ByteCount, key: SharedKey?
    ) throws(SystemError) -> FabricShm {
        let record = try ShmLeaseRecord(checking: left, size: size)
        let fabric = try FabricShm(
            socket: socket, leaseName: leaseName, key: key, record: record,
            files: ShmLeaseFiles(copying: left.descriptors), state: .reconnecting)
        try fabric.start(nil)
        return fabric
    }

    private init(
        socket: String, leaseName: String, key: SharedKey?, record: ShmLeaseRecord,
        files: consuming ShmLeaseFiles, state: FabricState
    ) throws(SystemError) {
        socketPath = socket
        self.leaseName = leaseName
        self.key = key
        self.record = record
        size = ByteCount(record.size)
        slabBytes = record.slabBytes
        let slabCount = record.slabCount
        let pageCount = Int(record.size) / pageBytes
        data = try MemoryMapping(sharing: files.data.rawValue, count: Int(record.size))
        pageFile = try MemoryMapping(
            sharing: files.pages.rawValue,
            count: Self.headerBytes + SharedBitmap.byteCount(pageCount), populate: true)
        grantFile = try MemoryMapping(
            sharing: files.grants.rawValue,
            count: Self.headerBytes + SharedBitmap.byteCount(slabCount), writable: false)
        returningFile = try MemoryMapping(
            sharing: files.returning.rawValue, count: SharedBitmap.byteCount(slabCount),
            populate: true)
        self.files = files
        zeros = try MemoryMapping(anonymous: Self.zeroBytes, populate: true)
        wantedMemory = try MemoryMapping(
            anonymous: SharedBitmap.byteCount(slabCount), populate: true)
        unsafe pages = SharedBitmap(pageFile.base + Self.headerBytes, count: pageCount)
        unsafe epochMark = SharedWord(pageFile.base + Int(FM_BITMAP_EPOCH_OFFSET))
        unsafe grants = SharedBitmap(grantFile.base + Self.headerBytes, count: slabCount)
        unsafe wanted = SharedBitmap(wantedMemory.base, count: slabCount)
        unsafe returning = SharedBitmap(returningFile.base, count: slabCount)
        gates = SlabGates(count: slabCount)
        wake = try EventSignal()
        stateWord.store(state.rawValue, ordering: .releasing)
        // A server that still has a predecessor's give-back before it would clear what is stored there now.
        for slab in 0..<slabCount where grants.isSet(slab) && !returning.isSet(slab) {
            gates.open(slab)
        }
    }

    package var state: FabricState {
        FabricState(rawValue: stateWord.load(ordering: .acquiring)) ?? .lost
    }

    package var maximumChannels: Int { 64 }

    package var counters: FabricCounters {
        var result = FabricCounters()
        result.reconnects = reconnects.load(ordering: .relaxed)
        result.refusedNoSpace = refusedNoSpace.load(ordering: .relaxed)
        result.protocolViolations = violations.load(ordering: .relaxed)
        result.slabsGranted = UInt64(grants.countSet(0..<grants.count))
        result.slabBytes = UInt64(slabBytes)
        result.pagesStored = UInt64(pages.countSet(0..<pages.count))
        return result
    }

    package func makeChannel() throws(FabricError) -> any FabricChannel { ShmChannel(self) }

    package func close(releaseLease: Bool) {
        stopping.store(releaseLease ? 2 : 1, ordering: .releasing)
        wake.signal()
        control?.join()
        control = nil
        stateWord.store(FabricState.closed.rawValue, ordering: .releasing)
    }

    // MARK: For channels

    /// To be asked after the page bits were read, or set: bits of a lease that was ended say nothing.
    func checkLease() throws(FabricError) {
        guard state != .lost, epochMark.value == record.epoch else {
            stateWord.store(FabricState.lost.rawValue, ordering: .releasing)
            throw .leaseLost
        }
    }

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
            switch state {
            case .connected: break
            case .reconnecting: throw .unreachable
            case .lost, .closed: throw .leaseLost
            }
            guard
                arrival.wait(until: min(deadline, monotonicNow() + 50_000_000))
                    || monotonicNow() < deadline
            else { throw .deadlinePassed }
        }
    }

    /// Something was discarded: empty slabs may go back.
    func noteDiscard() {
        if !trimWanted.exchange(true, ordering: .acquiringAndReleasing) { wake.signal() }
    }

    // MARK: The control thread

    private func start(_ session: consuming ShmSession?) throws(SystemError) {
        let box = SessionBox(session)
        control = try WorkerThread("farswap-grant") { [self] in
            var state = ControlLoop(session: box.take())
            run(&state)
        }
    }

    private struct ControlLoop: ~Copyable {
        var session: ShmSession?
        /// Watches the session's connection and `wake`; made anew with each session.
        var poller: Poller?
        var lastNeed: Int64 = 0
        var pause: Int64 = 1_000_000
    }

    private func run(_ loop: inout ControlLoop) {
        trimWanted.store(true, ordering: .releasing)
        while stopping.load(ordering: .acquiring) == 0 {
            do throws(ShmSessionError) {
                if loop.session == nil { try reconnect(&loop) }
                try serve(&loop)
            } catch {
                lose(&loop, error)
            }
        }
        finish(&loop)
    }

    /// Says goodbye. To give a lease back a connection is worth waiting for a moment; to keep it, not.
    private func finish(_ loop: inout ControlLoop) {
        let releases = stopping.load(ordering: .acquiring) == 2
        let deadline = monotonicNow() + 2_000_000_000
        while releases, loop.session == nil, state != .lost, monotonicNow() < deadline {
            do throws(ShmSessionError) { try reconnect(&loop) } catch { lose(&loop, error) }
        }
        do throws(ShmSessionError) {
            try loop.session?.finish(releaseLease: releases)
        } catch {
            // The server keeps the lease for its grace period when it did not hear us.
        }
    }

    private func serve(_ loop: inout ControlLoop) throws(ShmSessionError) {
        while stopping.load(ordering: .acquiring) == 0 {
            if let slab = wanted.firstSet(0..<wanted.count) {
                loop.lastNeed = monotonicNow()
                try obtain(slab, &loop)
                continue
            }
            let quiet = monotonicNow() - loop.lastNeed
            if trimWanted.load(ordering: .acquiring), quiet > Self.trimAfter {
                trimWanted.store(false, ordering: .releasing)
                try giveBackEmptySlabs(&loop)
            }
            try rest(&loop, trimSoon: trimWanted.load(ordering: .acquiring))
        }
    }

    /// Sleeps until something is wanted, the server hangs up, or it is time to trim.
    private func rest(_ loop: inout ControlLoop, trimSoon: Bool) throws(ShmSessionError) {
        var hungUp = false
        do throws(SystemError) {
            if loop.poller == nil {
                let made = try Poller()
                try made.add(wake.descriptor.rawValue, .readable, token: 0)
                try made.add(loop.session?.descriptor ?? -1, .readable, token: 1)
                loop.poller = consume made
            }
            try loop.poller?.wait(timeoutMilliseconds: trimSoon ? 100 : -1) { token, _ in
                // The server never speaks first: whatever comes is the end of the connection.
                if token == 1 { hungUp = true }
            }
        } catch {
            throw .unreachable(error)
        }
        wake.drain()
        if hungUp {
            throw .unreachable(SystemError(call: "the control connection", code: ECONNRESET))
        }
    }

    /// Gets the wanted slab and those after it.
    private func obtain(_ slab: Int, _ loop: inout ControlLoop) throws(ShmSessionError) {
        var end = slab
        while end < grants.count, end - slab < Self.slabsAhead, !gates.isOpen(end) { end += 1 }
        if end == slab {
            wanted.clear(slab)
            announce()
            return
        }
        var got: SlabRange
        do throws(ShmSessionError) {
            got =
                try loop.session?.grant(
                    SlabRange(first: UInt32(slab), count: UInt32(end - slab)))
                ?? SlabRange(first: UInt32(slab), count: 0)
        } catch {
            guard case .refused(.noSpace, _) = error else { throw error }
            got = SlabRange(first: UInt32(slab), count: 0)
        }
        wanted.clear(slab)
        guard got.count > 0 else {
            refusedNoSpace.wrappingAdd(1, ordering: .relaxed)
            refusals.wrappingAdd(1, ordering: .acquiringAndReleasing)
            announce()
            return
        }
        for index in slab..<slab + Int(got.count) {
            populate(index)
            gates.open(index)
            wanted.clear(index)
            // The first one is waited for; the others are ahead of need.
            if index == slab { announce() }
        }
        trimWanted.store(true, ordering: .releasing)
        announce()
    }

    /// Maps a granted slab now, so that stores do not fault one page at a time.
    private func populate(_ slab: Int) {
        do throws(SystemError) {
            try data.populate(offset: slab * slabBytes, count: slabBytes)
        } catch {
            // Only slower: the pages are the server's allocation, and they fault in one by one.
        }
    }

    private func announce() {
        arrival.lock()
        arrival.broadcast()
        arrival.unlock()
    }

    private func giveBackEmptySlabs(_ loop: inout ControlLoop) throws(ShmSessionError) {
        let pagesPerSlab = slabBytes / pageBytes
        for slab in 0..<grants.count where gates.isOpen(slab) {
            let range = slab * pagesPerSlab..<(slab + 1) * pagesPerSlab
            guard pages.isClear(range), gates.close(slab) else { continue }
            // Nobody is inside and nobody gets in: what is clear now stays clear.
            guard pages.isClear(range) else {
                gates.open(slab)
                continue
            }
            // SAFETY: the slab lies inside the mapping; nothing refers to its pages.
            _ = unsafe madvise(data.base + slab * slabBytes, slabBytes, MADV_DONTNEED)
            returning.set(slab)
            try loop.session?.giveBack(SlabRange(first: UInt32(slab), count: 1))
            returning.clear(slab)
            if wanted.firstSet(0..<wanted.count) != nil { return noteDiscard() }
        }
    }

    private func lose(_ loop: inout ControlLoop, _ error: ShmSessionError) {
        if case .protocolViolation = error { violations.wrappingAdd(1, ordering: .relaxed) }
        loop.poller = nil
        loop.session = nil
        if state == .connected {
            stateWord.store(FabricState.reconnecting.rawValue, ordering: .releasing)
        }
        announce()
        // Stores that wait must not wait for the pause: they hear "unreachable" and try again.
        sleepNanoseconds(loop.pause)
        loop.pause = min(loop.pause * 2, 100_000_000)
    }

    /// Opens the same lease again. Another one of the same name is not ours: the pages are lost.
    private func reconnect(_ loop: inout ControlLoop) throws(ShmSessionError) {
        var session = try ShmSession.connect(path: socketPath, key: key)
        let lease: OpenedLease
        do throws(ShmSessionError) {
            lease = try session.open(leaseName, size: size.bytes, create: false)
        } catch {
            if case .refused(.noLease, _) = error {
                stateWord.store(FabricState.lost.rawValue, ordering: .releasing)
            }
            throw error
        }
        for fd in lease.descriptors { Glibc.close(fd) }
        guard lease.record == record else {
            stateWord.store(FabricState.lost.rawValue, ordering: .releasing)
            throw .anotherLease
        }
        // The server has read all that an earlier session sent. A give-back that it did not hear of left its
        // slab granted behind a closed gate.
        returning.clear(0..<returning.count)
        for slab in 0..<grants.count where grants.isSet(slab) && !gates.isOpen(slab) {
            gates.open(slab)
        }
        loop.session = consume session
        loop.pause = 1_000_000
        reconnects.wrappingAdd(1, ordering: .relaxed)
        stateWord.store(FabricState.connected.rawValue, ordering: .releasing)
        trimWanted.store(true, ordering: .releasing)
        announce()
    }
}

/// Hands a session to the control thread.
private final class SessionBox: @unchecked Sendable {
    // SAFETY: filled before the thread starts, emptied by it once.
    private var session: ShmSession?
    init(_ session: consuming ShmSession?) { self.session = consume session }
    func take() -> ShmSession? { session.take() }
}
