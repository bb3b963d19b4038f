import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol
import Verbs

/// The connections of one session, made one after the other over one event channel. Belongs to the control thread.
final class RDMALink {
    let target: RDMATarget
    private let channel: RDMAChannel
    private(set) var domain: ProtectionDomain?
    /// The connection that the others must share the device of.
    private var first: RDMAConnection?
    /// Queues whose peer has gone, 0 for control; or the device was removed.
    private(set) var isBroken = false

    /// A lost packet of the connection manager is sent again after seconds: a new attempt is sooner.
    static let attemptTime: Int64 = 1_500_000_000
    /// Linux answers for a neighbour that it had to look for when this time is over, not when it has found it.
    private static let resolveMilliseconds: Int32 = 250
    /// 67 ms until a packet is sent again, six times: under a second until a queue is known to have failed.
    private static let acknowledgementExponent: UInt8 = 14

    init(_ target: RDMATarget) throws(RDMASessionError) {
        self.target = target
        do throws(SystemError) { channel = try RDMAChannel() } catch {
            throw error.code == ENODEV ? .noDevice : .unreachable(error)
        }
    }

    /// Readable when something happened to a connection.
    var descriptor: Int32 { channel.descriptor }

    /// Connects a queue.
    /// - Parameter prepare: makes its pair of queues and posts receives.
    /// - Returns: the connection, and what the server said when it accepted.
    func connect(
        _ request: RDMAConnectRequest, readsOut: Int,
        prepare: (RDMAConnection, ProtectionDomain) throws(SystemError) -> Void
    ) throws(RDMASessionError) -> (RDMAConnection, RDMAAccept) {
        let deadline = monotonicNow() + Self.attemptTime
        let context = UInt64(request.queue)
        let connection = try wrapping { () throws(SystemError) in
            let made = try RDMAConnection(channel, context: context)
            try made.resolveAddress(
                target.host, port: target.port, milliseconds: Self.resolveMilliseconds)
            return made
        }
        do throws(RDMASessionError) {
            _ = try wait(for: .addressResolved, context, until: deadline)
            try wrapping { () throws(SystemError) in
                connection.setAcknowledgementTimeout(exponent: Self.acknowledgementExponent)
                try connection.resolveRoute(milliseconds: Int32(Self.attemptTime / 1_000_000))
            }
            _ = try wait(for: .routeResolved, context, until: deadline)
            let domain = try domain(for: connection)
            var options = RDMAConnectionOptions()
            options.privateData = request.encoded()
            options.readsOut = readsOut
            try wrapping { () throws(SystemError) in
                try prepare(connection, domain)
                try connection.connect(options)
            }
            let event = try wait(for: .established, context, until: deadline)
            let accept = try accepted(event, request.queue)
            return (connection, accept)
        } catch {
            connection.end()
            throw error
        }
    }

    private func domain(
        for connection: RDMAConnection
    ) throws(RDMASessionError) -> ProtectionDomain {
        if let domain, let first {
            guard connection.isOnDevice(of: first) else { throw .noDevice }
            return domain
        }
        let made = try wrapping { () throws(SystemError) in try ProtectionDomain(on: connection) }
        domain = made
        first = connection
        return made
    }

    private func accepted(
        _ event: RDMAEvent, _ queue: UInt16
    ) throws(RDMASessionError) -> RDMAAccept {
        do throws(ControlDecodeError) {
            let accept = try RDMAAccept.decode(event.privateData)
            guard accept.queue == queue, accept.version == 1 else {
                throw ControlDecodeError.badField("queue")
            }
            return accept
        } catch {
            throw .protocolViolation("\(error)")
        }
    }

    private func wait(
        for kind: RDMAEvent.Kind, _ context: UInt64, until deadline: Int64
    ) throws(RDMASessionError) -> RDMAEvent {
        while true {
            while let event = try wrapping({ () throws(SystemError) in try channel.next() }) {
                note(event)
                guard event.context == context else { continue }
                if event.kind == kind { return event }
                try judge(event)
            }
            let left = deadline - monotonicNow()
            guard left > 0 else { throw .timedOut }
            _ = try wrapping { () throws(SystemError) in
                try waitReady(channel.descriptor, .readable, timeout: left)
            }
        }
    }

    /// An event that is not the one waited for.
    private func judge(_ event: RDMAEvent) throws(RDMASessionError) {
        switch event.kind {
        case .rejected:
            guard let words = RDMAReject.decode(event.privateData) else { throw .notServed }
            throw .refused(words.code, words.text)
        case .unreachable:
            if event.status == ENODEV { throw .noDevice }
            if event.status == ETIMEDOUT { throw .timedOut }
            let code = event.status > 0 && event.status < 4096 ? event.status : EHOSTUNREACH
            throw .unreachable(SystemError(call: "connect to \(target.host)", code: code))
        case .disconnected, .deviceRemoved: throw .queueFailed
        default: break
        }
    }

    private func note(_ event: RDMAEvent) {
        if event.kind == .disconnected || event.kind == .deviceRemoved { isBroken = true }
    }

    /// Takes what happened since.
    func takeEvents() {
        do throws(SystemError) {
            while let event = try channel.next() { note(event) }
        } catch {
            isBroken = true
        }
    }

    private func wrapping<R>(
        _ body: () throws(SystemError) -> R
    ) throws(RDMASessionError) -> R {
        do throws(SystemError) { return try body() } catch {
            throw error.code == ENODEV ? .noDevice : .unreachable(error)
        }
    }
}
