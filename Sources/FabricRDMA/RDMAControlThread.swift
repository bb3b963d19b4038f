import Fabric
import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol
import Synchronization
import Telemetry
import Verbs

/// The thread that owns a fabric's session: gets slabs, gives them back, and gets another session when one has failed.
final class RDMAControlThread: @unchecked Sendable {
    // SAFETY of @unchecked Sendable: made by the thread that starts it, used by it alone from then on.
    private let fabric: FabricRDMA
    private var session: RDMAControlClient?
    private var lease: OpenedRDMA?
    /// Slabs below have been asked after in this session.
    private var scanned = 0
    private var presumesAll = false
    /// How many of the fabric's queues are connected in this session.
    private var connected = 0
    private var lastNeed: Int64 = 0
    private var ahead = 0..<0
    private var pause = pauseMin
    private var lastTrouble: RDMASessionError?

    /// Slabs kept granted ahead of the highest one in use while stores go on.
    private static let slabsAhead = 32
    /// Of these, how many are asked for in one request: a slab that is needed meanwhile waits for its answer.
    private static let slabsAtOnce = 4
    /// Keys that fit into one answer.
    private static let keysMax = 124
    /// Without a store that needed a slab for this long, empty slabs go back.
    private static let trimAfter: Int64 = 300_000_000
    private static let pauseMin: Int64 = 2_000_000
    private static let pauseMax: Int64 = 200_000_000

    init(_ fabric: FabricRDMA) { self.fabric = fabric }

    /// Until the fabric is closed.
    func run() {
        fabric.trimWanted.store(true, ordering: .releasing)
        while fabric.stopping.load(ordering: .acquiring) == 0 {
            do throws(RDMASessionError) {
                if session == nil { try reconnect() }
                try serve()
            } catch {
                lose(error)
            }
        }
        finish()
    }

    /// Says goodbye. To give a lease back a connection is worth waiting for a moment; to keep it, not.
    private func finish() {
        let releases = fabric.stopping.load(ordering: .acquiring) == 2
        let deadline = monotonicNow() + 3_000_000_000
        while releases, session == nil, fabric.state != .lost, monotonicNow() < deadline {
            do throws(RDMASessionError) { try reconnect() } catch { lose(error) }
        }
        for queue in fabric.queues.withLock({ $0 }) { queue.remove() }
        do throws(RDMASessionError) {
            try session?.finish(releaseLease: releases)
        } catch {
            // The server keeps the lease for its grace period when it did not hear us.
        }
        session?.end()
        session = nil
    }

    // MARK: Sessions

    /// Opens the same lease again, after the server has ended the session before. Another lease of the same name is not
    /// ours: the pages are lost.
    private func reconnect() throws(RDMASessionError) {
        let made = try RDMAControlClient(fabric.target)
        do throws(RDMASessionError) {
            let last = fabric.file.lastSession
            let opened = try made.resume(session: last.number, token: last.token)
            guard RDMALeaseRecord(opened) == fabric.record else {
                throw RDMASessionError.anotherLease
            }
            fabric.isFaulty.store(false, ordering: .releasing)
            try adopt(made, opened, presumingAll: false)
        } catch {
            made.end()
            switch error {
            case .anotherLease, .refused(.noLease, _): fabric.moveTo(.lost)
            default: break
            }
            throw error
        }
        lastTrouble = nil
        fabric.log?.info("rdma_session_resumed", ["lease": fabric.target.lease])
        fabric.reconnects.wrappingAdd(1, ordering: .relaxed)
        fabric.trimWanted.store(true, ordering: .releasing)
    }

    /// Goes on in a session. With `presumingAll` all that the lease holds counts as stored, and is asked for at once.
    func adopt(
        _ made: RDMAControlClient, _ opened: OpenedRDMA, presumingAll: Bool
    ) throws(RDMASessionError) {
        fabric.file.lastSession = (opened.session, opened.token)
        lease = opened
        fabric.base.store(opened.base, ordering: .releasing)
        fabric.queuesMax.store(Int(opened.queuesMax), ordering: .relaxed)
        scanned = 0
        ahead = 0..<0
        presumesAll = presumingAll
        session = made
        while presumingAll, scanned < fabric.gates.count { try scan(made) }
        presumesAll = false
        connected = 0
        try connectNewQueues(made, opened)
        pause = Self.pauseMin
        fabric.moveTo(.connected)
        announce()
    }

    private func connect(
        _ queue: RDMADataQueue, _ session: RDMAControlClient, _ lease: OpenedRDMA
    ) throws(RDMASessionError) {
        guard queue.number <= lease.queuesMax else {
            throw .refused(.limit, "the server allows \(lease.queuesMax) queues")
        }
        var parts: (CompletionQueue, MemoryRegion)?
        let request = RDMAConnectRequest(
            versions: 1...1, queue: queue.number, session: lease.session, token: lease.token)
        let (connection, _) = try session.link.connect(request, readsOut: Int(lease.readsMax)) {
            (connection, domain) throws(SystemError) in
            parts = try queue.prepare(connection, domain)
        }
        guard let parts else { throw .queueFailed }
        queue.install(connection, parts.0, parts.1)
    }

    private func lose(_ error: RDMASessionError) {
        // Once for each reason: attempts go on for as long as it takes.
        if lastTrouble != error {
            lastTrouble = error
            fabric.log?.warn(
                "rdma_session_lost", ["lease": fabric.target.lease, "reason": error.description])
        }
        if case .protocolViolation = error {
            fabric.violations.wrappingAdd(1, ordering: .relaxed)
        }
        if fabric.state == .connected { fabric.moveTo(.reconnecting) }
        announce()
        // First those that wait for an answer are told that there is none, then the queues go: from there on nobody is
        // inside a gate.
        let queues = fabric.queues.withLock { $0 }
        for queue in queues { queue.fail() }
        for queue in queues { queue.remove() }
        for slab in 0..<fabric.gates.count where fabric.gates.isOpen(slab) {
            while !fabric.gates.close(slab) { sleepNanoseconds(10_000) }
        }
        session?.end()
        session = nil
        announce()
        // Stores that wait must not wait for the pause: they hear "unreachable" and try again.
        sleepNanoseconds(pause)
        pause = min(pause * 2, Self.pauseMax)
    }

    // MARK: Work

    private func serve() throws(RDMASessionError) {
        guard let session, let lease else { throw .queueFailed }
        while fabric.stopping.load(ordering: .acquiring) == 0 {
            if fabric.isFaulty.load(ordering: .acquiring) { throw .queueFailed }
            try connectNewQueues(session, lease)
            if let slab = fabric.wanted.firstSet(0..<fabric.wanted.count) {
                lastNeed = monotonicNow()
                try obtain(slab, session)
                continue
            }
            if scanned < fabric.gates.count {
                try scan(session)
                continue
            }
            if try obtainAhead(session) { continue }
            let isTrimDue = fabric.trimWanted.load(ordering: .acquiring)
            if isTrimDue, monotonicNow() - lastNeed > Self.trimAfter {
                fabric.trimWanted.store(false, ordering: .releasing)
                try giveBackEmptySlabs(session)
            }
            try rest(session, lease, trimSoon: fabric.trimWanted.load(ordering: .acquiring))
        }
    }

    /// Connects queues that were made since. Their locks are not asked: a channel may hold one while it waits for us.
    private func connectNewQueues(
        _ session: RDMAControlClient, _ lease: OpenedRDMA
    ) throws(RDMASessionError) {
        let queues = fabric.queues.withLock { $0 }
        while connected < queues.count {
            try connect(queues[connected], session, lease)
            connected += 1
            announce()
        }
    }

    /// Sleeps until something is wanted, the connection tells something, or it is time to trim or to be heard.
    private func rest(
        _ session: RDMAControlClient, _ lease: OpenedRDMA, trimSoon: Bool
    ) throws(RDMASessionError) {
        try session.checkQuiet()
        let silence = Int64(lease.silenceMilliseconds) * 1_000_000
        let pingIn = session.lastSent + silence / 3 - monotonicNow()
        guard pingIn > 0 else { return try session.ping() }
        do throws(SystemError) {
            // Made anew each time: this is not the data path, and the descriptors change with the session.
            let poller = try Poller()
            try poller.add(fabric.wake.descriptor.rawValue, .readable, token: 0)
            try poller.add(session.descriptor, .readable, token: 1)
            try poller.add(session.link.descriptor, .readable, token: 2)
            let milliseconds = Int32(clamping: pingIn / 1_000_000 + 1)
            try poller.wait(
                timeoutMilliseconds: trimSoon ? min(100, milliseconds) : milliseconds
            ) { _, _ in }
        } catch {
            throw .unreachable(error)
        }
        fabric.wake.drain()
    }

    private func pages(_ slab: Int) -> Range<Int> {
        slab * fabric.record.pagesPerSlab..<(slab + 1) * fabric.record.pagesPerSlab
    }

    private func open(_ first: Int, _ keys: [UInt32]) {
        for (index, key) in keys.enumerated() {
            let slab = first + index
            guard !fabric.gates.isOpen(slab) else { continue }
            // SAFETY: answers were checked against what was asked for, which lies in the lease; nobody reads it before the
            // gate is open.
            unsafe fabric.keys[slab] = key
            fabric.gates.open(slab)
            fabric.wanted.clear(slab)
        }
        announce()
    }

    /// Asks for the keys of what the lease holds already, a part at a time.
    private func scan(_ session: RDMAControlClient) throws(RDMASessionError) {
        let count = min(Self.keysMax, fabric.gates.count - scanned)
        let (first, keys) = try session.held(
            SlabRange(first: UInt32(scanned), count: UInt32(count)))
        let end = keys.isEmpty ? scanned + count : first + keys.count
        try checkLost(scanned..<(keys.isEmpty ? end : first))
        if presumesAll, !keys.isEmpty {
            fabric.pages.set(pages(first).lowerBound..<pages(end - 1).upperBound)
        }
        open(first, keys)
        scanned = end
    }

    /// Pages in slabs that the lease does not hold are lost. Nobody stores there: their gates are closed.
    private func checkLost(_ slabs: Range<Int>) throws(RDMASessionError) {
        for slab in slabs where !fabric.gates.isOpen(slab) && !fabric.pages.isClear(pages(slab)) {
            fabric.moveTo(.lost)
            throw .anotherLease
        }
    }

    /// Gets a slab that a request waits for. Those after it come when nobody waits: registering takes a while.
    private func obtain(
        _ slab: Int, _ session: RDMAControlClient
    ) throws(RDMASessionError) {
        guard !fabric.gates.isOpen(slab) else {
            fabric.wanted.clear(slab)
            return announce()
        }
        if !fabric.pages.isClear(pages(slab)) { return try find(slab, session) }
        let isGranted = try grant(slab..<slab + 1, session)
        fabric.wanted.clear(slab)
        if isGranted {
            ahead = slab + 1..<min(slab + 1 + Self.slabsAhead, fabric.gates.count)
        } else {
            fabric.refusedNoSpace.wrappingAdd(1, ordering: .relaxed)
            fabric.refusals.wrappingAdd(1, ordering: .acquiringAndReleasing)
        }
        announce()
    }

    /// Gets some of the slabs ahead of need; false when there is nothing to do.
    private func obtainAhead(_ session: RDMAControlClient) throws(RDMASessionError) -> Bool {
        while let first = ahead.first, fabric.gates.isOpen(first) { ahead.removeFirst() }
        guard let first = ahead.first else { return false }
        var end = first
        while end < ahead.upperBound, end - first < Self.slabsAtOnce, !fabric.gates.isOpen(end) {
            end += 1
        }
        if try !grant(first..<end, session) { ahead = 0..<0 }
        return true
    }

    /// Asks for slabs; false when there is no space for the first.
    private func grant(
        _ slabs: Range<Int>, _ session: RDMAControlClient
    ) throws(RDMASessionError) -> Bool {
        var keys: [UInt32] = []
        do throws(RDMASessionError) {
            keys = try session.grant(
                SlabRange(first: UInt32(slabs.lowerBound), count: UInt32(slabs.count)))
        } catch {
            guard case .refused(.noSpace, _) = error else { throw error }
        }
        open(slabs.lowerBound, keys)
        fabric.trimWanted.store(true, ordering: .releasing)
        return !keys.isEmpty
    }

    /// Gets the key of a slab that holds pages: the lease has it, or they are lost. It must not be granted anew.
    private func find(_ slab: Int, _ session: RDMAControlClient) throws(RDMASessionError) {
        let (first, keys) = try session.held(SlabRange(first: UInt32(slab), count: 1))
        fabric.wanted.clear(slab)
        if keys.isEmpty { try checkLost(slab..<slab + 1) }
        open(first, keys)
    }

    private func announce() {
        fabric.arrival.lock()
        fabric.arrival.broadcast()
        fabric.arrival.unlock()
    }

    private func giveBackEmptySlabs(_ session: RDMAControlClient) throws(RDMASessionError) {
        var slab = 0
        while slab < fabric.gates.count {
            let first = slab
            while slab < fabric.gates.count, slab - first < 256, closeIfEmpty(slab) { slab += 1 }
            if slab > first {
                try session.giveBack(
                    SlabRange(first: UInt32(first), count: UInt32(slab - first)))
            } else {
                slab += 1
            }
            if fabric.wanted.firstSet(0..<fabric.wanted.count) != nil {
                return fabric.noteDiscard()
            }
        }
    }

    private func closeIfEmpty(_ slab: Int) -> Bool {
        guard fabric.gates.isOpen(slab), fabric.pages.isClear(pages(slab)),
            fabric.gates.close(slab)
        else { return false }
        // Nobody is inside and nobody gets in: what is clear now stays clear.
        if fabric.pages.isClear(pages(slab)) { return true }
        fabric.gates.open(slab)
        return false
    }
}
