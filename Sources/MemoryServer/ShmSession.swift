import FarMemory
import LinuxSystem
import MemoryPool
import PoolProtocol
import Telemetry

/// One client of the shared-memory listener, from HELLO to its end. Runs on a thread of its own.
struct ShmSession {
    private enum Step { case goOn, end }

    let server: ShmServer
    let channel: FrameChannel
    private var clientName = "?"
    private var keyName: String?
    private var challenge: [UInt8] = []
    private var lease: Lease?
    /// Given back by the client itself: nothing is left to detach.
    private var isReleased = false

    init(server: ShmServer, channel: FrameChannel) {
        self.server = server
        self.channel = channel
    }

    /// Serves until the client closes, misbehaves, or the server stops.
    mutating func run() {
        let end = serve()
        if let lease, !isReleased {
            server.audit(lease)
            server.pool.detach(lease)
        }
        switch end {
        case .closed:
            server.log.info("shm_session_end", ["client": clientName, "lease": lease?.name ?? "-"])
        case .deadlinePassed:
            server.counters.sessionsRefused.add()
            server.log.warn("shm_session_end", ["client": clientName, "reason": "too slow"])
        case .malformed(let error):
            server.counters.sessionsRefused.add()
            server.log.warn(
                "shm_session_end", ["client": clientName, "reason": "malformed: \(error)"])
        }
    }

    private mutating func serve() -> FrameFailure {
        let handshakeEnd = monotonicNow() + server.limits.handshake.nanoseconds
        do throws(FrameFailure) {
            guard try greet(until: handshakeEnd), try authenticate(until: handshakeEnd) else {
                return .closed
            }
            while true {
                let deadline = lease == nil ? handshakeEnd : nil
                let (message, cookie) = try channel.receive(until: deadline)
                server.counters.requests.add()
                if answer(message, cookie) == .end { return .closed }
            }
        } catch {
            return error
        }
    }

    private mutating func greet(until deadline: Int64) throws(FrameFailure) -> Bool {
        let (message, cookie) = try channel.receive(until: deadline)
        guard case .hello(let versions, _, let name) = message else {
            return refuse(.badRequest, "HELLO is expected first", cookie)
        }
        clientName = name
        guard versions.contains(ShmServer.version) else {
            return refuse(.version, "this server speaks version \(ShmServer.version)", cookie)
        }
        guard let challenge = makeChallenge() else {
            return refuse(.internal, "no randomness", cookie)
        }
        self.challenge = challenge
        return channel.send(
            .welcome(
                version: ShmServer.version, authRequired: server.keys != nil,
                slabBytes: UInt32(server.pool.slab.bytes), challenge: challenge), cookie: cookie)
    }

    private mutating func authenticate(until deadline: Int64) throws(FrameFailure) -> Bool {
        guard let keys = server.keys else { return true }
        let (message, cookie) = try channel.receive(until: deadline)
        guard case .auth(let name, let answer) = message else {
            server.counters.authenticationFailures.add()
            return refuse(.unauthorized, "this server wants a key", cookie)
        }
        // The same work for an unknown name as for a known one.
        let key = keys.first { $0.name == name }
        let secret = key?.secret ?? challenge
        guard
            let expected = controlAuthenticationCode(
                secret: secret, challenge: challenge, keyName: name, over: .shm),
            equalInConstantTime(expected, answer), key != nil
        else {
            server.counters.authenticationFailures.add()
            server.log.warn("shm_authentication_failed", ["client": clientName, "key": name])
            return refuse(.unauthorized, "the key is not known here", cookie)
        }
        keyName = name
        return channel.send(.ok, cookie: cookie)
    }

    /// Sends an error that ends the session. Always false.
    private func refuse(_ code: ControlErrorCode, _ text: String, _ cookie: UInt32) -> Bool {
        server.counters.sessionsRefused.add()
        _ = channel.send(.error(code, text), cookie: cookie)
        return false
    }

    private mutating func answer(_ message: ControlMessage, _ cookie: UInt32) -> Step {
        switch message {
        case .open(let name, let size, let flags):
            return open(name, size, flags, cookie)
        case .grant(let slabs):
            return withLease(cookie) { lease throws(PoolError) in
                let granted = try lease.grant(range(slabs))
                return .granted(SlabRange(first: slabs.first, count: UInt32(granted)))
            }
        case .returnSlabs(let slabs):
            return withLease(cookie) { lease throws(PoolError) in
                try lease.giveBack(range(slabs))
                return .ok
            }
        case .ping: return reply(.pong, cookie)
        case .close:
            _ = reply(.ok, cookie)
            return .end
        case .release: return release(cookie)
        default:
            _ = reply(.error(.badRequest, "not a request"), cookie)
            return .end
        }
    }

    private func reply(_ message: ControlMessage, _ cookie: UInt32) -> Step {
        channel.send(message, cookie: cookie) ? .goOn : .end
    }

    /// A range within the lease and the limit per request, or `outOfRange` from the lease.
    private func range(_ slabs: SlabRange) throws(PoolError) -> Range<Int> {
        guard Int(slabs.count) <= PoolLimits.slabsPerRequestMax else { throw .outOfRange }
        return Int(slabs.first)..<Int(slabs.end)
    }

    private func withLease(
        _ cookie: UInt32, _ body: (Lease) throws(PoolError) -> ControlMessage
    ) -> Step {
        guard let lease else {
            return reply(.error(.badRequest, "no lease is open"), cookie)
        }
        do throws(PoolError) {
            return reply(try body(lease), cookie)
        } catch {
            return reply(.error(ControlErrorCode(error), error.description), cookie)
        }
    }

    private mutating func release(_ cookie: UInt32) -> Step {
        let step = withLease(cookie) { lease throws(PoolError) in
            try server.pool.release(attached: lease)
            return .ok
        }
        // A lease that its pool no longer knows has been released just now.
        guard let lease, lease.isGone else { return step }
        isReleased = true
        server.log.info("lease_released", ["lease": lease.name, "client": clientName])
        return .end
    }

    private mutating func open(
        _ name: String, _ size: UInt64, _ flags: OpenFlags, _ cookie: UInt32
    ) -> Step {
        guard lease == nil else {
            return reply(.error(.badRequest, "this session has a lease open"), cookie)
        }
        do throws(PoolError) {
            let opened = try attach(name, ByteCount(size), flags)
            lease = opened
            server.log.info(
                "lease_opened", ["lease": name, "client": clientName, "size": opened.size])
            let message = ControlMessage.opened(
                leaseID: opened.id, epoch: opened.epoch, size: opened.size.bytes,
                slabBytes: UInt32(opened.slabBytes))
            let isSent = opened.withDescriptors {
                channel.send(message, cookie: cookie, descriptors: $0)
            }
            return isSent ? .goOn : .end
        } catch {
            return reply(.error(ControlErrorCode(error), error.description), cookie)
        }
    }

    private func attach(
        _ name: String, _ size: ByteCount, _ flags: OpenFlags
    ) throws(PoolError) -> Lease {
        let given = size.bytes > 0 ? size : nil
        if flags.contains(.exclusive) {
            try server.pool.create(name, size: size, owner: keyName, pinned: false)
        }
        return try server.pool.attach(
            name, .exclusive, key: keyName,
            createSize: flags.contains(.create) ? given ?? server.autoLease : nil,
            expectedSize: given)
    }
}

extension ControlErrorCode {
    /// What a client is told of a pool's error.
    init(_ error: PoolError) {
        self =
            switch error {
            case .noSpace, .quotaUsedUp: .noSpace
            case .noSuchLease: .noLease
            case .leaseExists, .otherSize: .exists
            case .leaseBusy: .busy
            case .notOwner: .unauthorized
            case .invalidName, .invalidSize, .outOfRange: .badRequest
            case .notEmpty: .notEmpty
            case .tooManyLeases: .limit
            default: .internal
            }
    }
}
