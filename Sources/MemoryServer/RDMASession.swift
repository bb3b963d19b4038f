import FarMemory
import LinuxSystem
import MemoryPool
import PoolProtocol
import Synchronization
import Telemetry
import Verbs

/// One client of the RDMA listener, from its connection to its end. Runs on a thread of its own, which owns all that the
/// session has.
final class RDMASession {
    private let server: RDMAServer
    private let entry: RDMASessionEntry
    private(set) var clientName = "?"
    private(set) var leaseName: String?
    private var keyName: String?
    private var challenge: [UInt8] = []
    private var stage = Stage.hello
    private var memory: RDMALeaseMemory?
    private var device: RDMADevice?
    private var lastHeard: Int64 = 0

    private enum Stage { case hello, auth, open, serving }

    init(_ server: RDMAServer, _ entry: RDMASessionEntry) {
        self.server = server
        self.entry = entry
    }

    /// Serves until the client closes, misbehaves or falls silent, or the server stops.
    func run(_ connection: RDMAConnection) -> RDMASessionEnd {
        let control: RDMAControlQueue
        do throws(SystemError) {
            device = try connection.device()
            control = try RDMAControlQueue(accepting: connection, server.limits)
        } catch {
            connection.reject(
                RDMAReject(.internal, "the server cannot make queues: \(error.reason)").encoded())
            return .failed(error)
        }
        defer {
            connection.disconnect()
            leaveLease()
        }
        do throws(RDMASessionEnd) {
            try serve(control)
        } catch {
            // Who leaves or is refused shall hear it. A client that is gone takes no reply, and waiting for that would
            // keep its lease from its next session.
            if memory == nil { control.drain() }
            return error
        }
    }

    /// Ends the memory before anybody else can get the lease.
    private func leaveLease() {
        guard let memory else { return }
        memory.end()
        server.pool.detach(memory.lease)
        self.memory = nil
    }

    private func serve(_ control: RDMAControlQueue) throws(RDMASessionEnd) -> Never {
        let poller = try ending { () throws(SystemError) in try makePoller(control) }
        lastHeard = monotonicNow()
        while true {
            try takeNotices(control)
            if let (message, cookie) = try control.next() {
                lastHeard = monotonicNow()
                server.counters.requests.add()
                try answer(message, cookie, control)
                continue
            }
            let left = deadline - monotonicNow()
            guard left > 0 else { throw stage == .serving ? .silent : .tooSlow }
            if try control.arm() { continue }
            try ending { () throws(SystemError) in
                try poller.wait(timeoutMilliseconds: Int32(left / 1_000_000 + 1)) { _, _ in }
            }
        }
    }

    private func makePoller(_ control: RDMAControlQueue) throws(SystemError) -> Poller {
        let poller = try Poller()
        try poller.add(control.completions.descriptor, .readable, token: 0)
        try poller.add(entry.wake.descriptor.rawValue, .readable, token: 1)
        return poller
    }

    private func ending<R: ~Copyable>(
        _ body: () throws(SystemError) -> R
    ) throws(RDMASessionEnd) -> R {
        do throws(SystemError) { return try body() } catch { throw .failed(error) }
    }

    private var deadline: Int64 {
        stage == .serving
            ? lastHeard + server.limits.silence.nanoseconds
            : entry.since + server.limits.handshake.nanoseconds
    }

    // MARK: What other threads say

    private func takeNotices(_ control: RDMAControlQueue) throws(RDMASessionEnd) {
        entry.wake.drain()
        let notices = entry.state.withLock { state -> [RDMANotice] in
            guard !state.notices.isEmpty else { return [] }
            defer { state.notices = [] }
            return state.notices
        }
        var end: RDMASessionEnd?
        for notice in notices {
            switch notice {
            case .queue(let number, let connection, let reads):
                if end != nil || !accept(number, connection, reads, control) {
                    server.refuseData(connection)
                }
            case .queueClosed(let number): memory?.closeQueue(number)
            case .end(let reason): end = end ?? reason
            }
        }
        if let end { throw end }
    }

    private func accept(
        _ number: UInt16, _ connection: RDMAConnection, _ reads: Int, _ control: RDMAControlQueue
    ) -> Bool {
        guard let memory, number <= server.limits.queues else { return false }
        do throws(SystemError) {
            return try memory.accept(
                number, connection, reads: min(reads, readsMax), control: control.connection)
        } catch {
            server.log.warn(
                "rdma_queue_failed", ["client": clientName, "reason": error.description])
            return false
        }
    }

    private var readsMax: Int {
        max(1, min(server.limits.reads, device?.readsInMax ?? 1))
    }

    // MARK: The conversation

    private func answer(
        _ message: ControlMessage, _ cookie: UInt32, _ control: RDMAControlQueue
    ) throws(RDMASessionEnd) {
        switch (stage, message) {
        case (.hello, .hello(let versions, _, let name)):
            clientName = name
            try control.send(try welcome(versions, cookie, control), cookie: cookie)
            stage = server.keys == nil ? .open : .auth
        case (.auth, .auth(let name, let mac)):
            guard isRight(mac, of: name) else {
                server.counters.authenticationFailures.add()
                server.log.warn(
                    "rdma_authentication_failed", ["client": clientName, "key": name])
                try refuse(.unauthorized, "the key is not known here", cookie, control)
            }
            keyName = name
            stage = .open
            try control.send(.ok, cookie: cookie)
        case (.hello, _): try refuse(.badRequest, "HELLO is expected first", cookie, control)
        case (.auth, _):
            server.counters.authenticationFailures.add()
            try refuse(.unauthorized, "this server wants a key", cookie, control)
        default: try serve(message, cookie, control)
        }
    }

    private func welcome(
        _ versions: ClosedRange<UInt16>, _ cookie: UInt32, _ control: RDMAControlQueue
    ) throws(RDMASessionEnd) -> ControlMessage {
        guard versions.contains(RDMAServer.version) else {
            try refuse(
                .version, "this server speaks version \(RDMAServer.version)", cookie, control)
        }
        guard let challenge = makeChallenge() else {
            try refuse(.internal, "no randomness", cookie, control)
        }
        self.challenge = challenge
        return .welcome(
            version: RDMAServer.version, authRequired: server.keys != nil,
            slabBytes: UInt32(server.pool.slab.bytes), challenge: challenge)
    }

    private func isRight(_ mac: [UInt8], of name: String) -> Bool {
        // The same work for an unknown name as for a known one.
        let key = server.keys?.first { $0.name == name }
        guard
            let expected = controlAuthenticationCode(
                secret: key?.secret ?? challenge, challenge: challenge, keyName: name,
                over: .rdma)
        else { return false }
        return equalInConstantTime(expected, mac) && key != nil
    }

    /// Sends an error that ends the session.
    private func refuse(
        _ code: ControlErrorCode, _ text: String, _ cookie: UInt32, _ control: RDMAControlQueue
    ) throws(RDMASessionEnd) -> Never {
        try control.send(.error(code, text), cookie: cookie)
        throw .refused
    }

    /// After the client was let in.
    private func serve(
        _ message: ControlMessage, _ cookie: UInt32, _ control: RDMAControlQueue
    ) throws(RDMASessionEnd) {
        switch message {
        case .open, .resume:
            try control.send(open(message, control), cookie: cookie)
        case .grant(let slabs):
            try withMemory(cookie, control) { memory throws(PoolError) in
                .grantedKeys(first: slabs.first, keys: try memory.grant(slabs))
            }
        case .held(let slabs):
            try withMemory(cookie, control) { memory throws(PoolError) in
                let (first, keys) = try memory.held(slabs)
                return .grantedKeys(first: first, keys: keys)
            }
        case .returnSlabs(let slabs):
            try withMemory(cookie, control) { memory throws(PoolError) in
                try memory.giveBack(slabs)
                return .ok
            }
        case .ping: try control.send(.pong, cookie: cookie)
        case .close:
            // The lease is free when the client hears that it is.
            leaveLease()
            try control.send(.ok, cookie: cookie)
            throw .closed
        case .release: try release(cookie, control)
        default: try refuse(.badRequest, "not a request", cookie, control)
        }
    }

    private func withMemory(
        _ cookie: UInt32, _ control: RDMAControlQueue,
        _ body: (RDMALeaseMemory) throws(PoolError) -> ControlMessage
    ) throws(RDMASessionEnd) {
        let reply: ControlMessage
        if let memory {
            do throws(PoolError) {
                reply = try body(memory)
            } catch {
                reply = .error(ControlErrorCode(error), error.description)
            }
        } else {
            reply = .error(.badRequest, "no lease is open")
        }
        try control.send(reply, cookie: cookie)
    }

    private func release(
        _ cookie: UInt32, _ control: RDMAControlQueue
    ) throws(RDMASessionEnd) {
        guard let memory else {
            return try control.send(.error(.badRequest, "no lease is open"), cookie: cookie)
        }
        // Its memory goes back to the pool: nobody may reach it from here on.
        memory.end()
        do throws(PoolError) {
            try server.pool.release(attached: memory.lease)
        } catch {
            try refuse(ControlErrorCode(error), error.description, cookie, control)
        }
        self.memory = nil
        server.log.info("lease_released", ["lease": memory.lease.name, "client": clientName])
        try control.send(.ok, cookie: cookie)
        throw .closed
    }

    // MARK: Opening

    private func open(_ message: ControlMessage, _ control: RDMAControlQueue) -> ControlMessage {
        guard memory == nil else { return .error(.badRequest, "this session has a lease open") }
        do throws(PoolError) {
            let lease = try attach(message)
            do throws(PoolError) {
                return try opened(lease, control)
            } catch {
                memory = nil
                server.pool.detach(lease)
                throw error
            }
        } catch {
            return .error(ControlErrorCode(error), error.description)
        }
    }

    private func opened(
        _ lease: Lease, _ control: RDMAControlQueue
    ) throws(PoolError) -> ControlMessage {
        guard let random = makeChallenge(8), let token = makeChallenge(16) else {
            throw .system(SystemError(call: "draw a token", code: 5))
        }
        let made: RDMALeaseMemory
        do throws(SystemError) {
            made = try RDMALeaseMemory(lease, on: control.connection, server.counters)
        } catch {
            throw .system(error)
        }
        // 0 is no session.
        let number = random.reduce(0) { $0 << 8 | UInt64($1) } | 1
        guard
            server.table.open(entry, number: number, token: token, leaseName: lease.name)
        else { throw .tooManyLeases }
        memory = made
        leaseName = lease.name
        stage = .serving
        server.log.info(
            "lease_opened",
            ["lease": lease.name, "client": clientName, "size": lease.size, "over": "rdma"])
        return .openedRDMA(
            OpenedRDMA(
                leaseID: lease.id, epoch: lease.epoch, size: lease.size.bytes,
                base: RDMALeaseMemory.base, slabBytes: UInt32(lease.slabBytes),
                queuesMax: server.limits.queues, readsMax: UInt16(readsMax), session: number,
                token: token,
                silenceMilliseconds: UInt32(server.limits.silence.nanoseconds / 1_000_000)))
    }

    private func attach(_ message: ControlMessage) throws(PoolError) -> Lease {
        switch message {
        case .resume(let name, let number, let token):
            endPredecessor(name, number, token)
            return try server.pool.attach(name, .exclusive, key: keyName)
        case .open(let name, let size, let flags):
            let given = size > 0 ? ByteCount(size) : nil
            if flags.contains(.exclusive) {
                try server.pool.create(
                    name, size: ByteCount(size), owner: keyName, pinned: false)
            }
            return try server.pool.attach(
                name, .exclusive, key: keyName,
                createSize: flags.contains(.create) ? given ?? server.autoLease : nil,
                expectedSize: given)
        default: preconditionFailure("neither OPEN nor RESUME")
        }
    }

    /// Ends the session that this client had, if it still is, and waits until nothing of it can arrive any more.
    private func endPredecessor(_ name: String, _ number: UInt64, _ token: [UInt8]) {
        guard let old = server.table.find(number: number, token: token),
            old.state.withLock({ $0.leaseName }) == name
        else { return }
        old.end(.replaced)
        let deadline = monotonicNow() + server.limits.succession.nanoseconds
        // When it takes longer the lease is busy, and the client hears that.
        while !old.state.withLock({ $0.isEnded }), monotonicNow() < deadline {
            sleepNanoseconds(200_000)
        }
    }
}
