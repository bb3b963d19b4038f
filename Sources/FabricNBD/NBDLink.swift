import CLinuxShims
import Fabric
import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol
import Synchronization
import TransportSecurity

/// One connection that comes back: requests wait for it within their deadlines.
final class NBDLink: Sendable {
    private static let backoffFirst: Int64 = 5_000_000
    private static let backoffMax: Int64 = 500_000_000
    /// Looking for the reply this long before sleeping saves a wake-up when the server is near.
    private static let spin: Int64 = 15_000
    /// Between two looks at another link's fence.
    private static let fencePause: Int64 = 1_000_000
    /// One attempt to connect may take at most this.
    private static let connectMax: Int64 = 3_000_000_000

    private struct State {
        var socket: NBDSocket?
        var cookie: UInt64 = 1
        var backoff = NBDLink.backoffFirst
        var nextAttempt: Int64 = 0
        var isClosed = false
    }

    private let target: NBDTarget
    private let tally: NBDTally
    /// The name that fences this link's older connections.
    private let client: [UInt8]
    /// This link in `NBDTarget.unfenced`.
    let bit: UInt32
    private let state: Mutex<State>

    init(_ target: NBDTarget, _ tally: NBDTally, number: Int) {
        self.target = target
        self.tally = tally
        client = NBDContinuity.connectionName(target.identity, number)
        bit = 1 << UInt32(number)
        state = Mutex(State())
    }

    /// The first connection of a fabric: its errors are told in full. `epoch` is the lease that a predecessor
    /// had: where another one has taken its place, every request throws `leaseLost`.
    func connectFirst(epoch: UInt64?, deadline: Int64) throws(NBDConnectError) -> NBDExportFacts {
        var (socket, facts) = try NBDHandshake.negotiate(
            target.uri, client: client, security: target.security, deadline: deadline)
        let isSame = epoch == nil || epoch == facts.epoch
        if let epoch { facts.epoch = epoch }
        target.facts.withLock { [facts] in $0 = facts }
        if isSame { state.withLock { $0.socket = socket } }
        tally.moveTo(isSame ? .connected : .lost)
        return facts
    }

    func close() {
        state.withLock { state in
            state.isClosed = true
            state.socket = nil
        }
    }

    /// Sends one request and takes its reply, again on a new connection when the old one breaks: all requests
    /// are idempotent, and one link has one at a time.
    func exchange(
        _ command: NBDCommand, page: UInt64, count: Int, send: UnsafeRawPointer?,
        receive: UnsafeMutableRawPointer?, deadline: Int64
    ) throws(FabricError) {
        let call = unsafe NBDCall(
            command: command, offset: page * UInt64(pageBytes), length: count * pageBytes,
            send: send, receive: receive)
        // Outside of the lock: two links that wait for each other must not hold their own.
        try awaitOthersFences(deadline)
        // SAFETY: the pointers are used inside this call only, by this thread.
        nonisolated(unsafe) let borrowed = call
        let failure = state.withLock { state -> FabricError? in
            do throws(FabricError) {
                unsafe try self.attempt(borrowed, &state, deadline)
                return nil
            } catch {
                return error
            }
        }
        if let failure {
            note(failure)
            throw failure
        }
    }

    private func attempt(
        _ call: NBDCall, _ state: inout State, _ deadline: Int64
    ) throws(FabricError) {
        while true {
            if state.isClosed { throw .unreachable }
            guard let socket = state.socket else {
                try reconnect(&state, deadline)
                continue
            }
            state.cookie &+= 1
            let error: NBDErrorNumber
            do throws(NBDSocketError) {
                error = try call.run(on: socket, cookie: state.cookie, Self.spin, deadline)
            } catch {
                // Half a reply may be under way: this connection is of no more use.
                state.socket = nil
                if call.command != .read { target.unfenced.bitwiseOr(bit, ordering: .releasing) }
                tally.moveTo(.reconnecting)
                switch error {
                case .timedOut: throw .deadlinePassed
                case .closed: continue
                case .notProtocol, .refused: throw .protocolViolation
                }
            }
            if error == .none { return }
            throw FabricError(error)
        }
    }

    private func reconnect(_ state: inout State, _ deadline: Int64) throws(FabricError) {
        let now = monotonicNow()
        if state.nextAttempt >= deadline || now >= deadline { throw .unreachable }
        if state.nextAttempt > now { sleepNanoseconds(state.nextAttempt - now) }
        do throws(NBDConnectError) {
            let (socket, facts) = try NBDHandshake.negotiate(
                target.uri, client: client, security: target.security,
                deadline: min(deadline, monotonicNow() + Self.connectMax))
            let first = target.facts.withLock { $0 } ?? facts
            guard first.epoch == facts.epoch, first.size <= facts.size else {
                throw NBDConnectError.unknownExport
            }
            // Without the fence an older store might still land: not yet.
            guard facts.isFenced || !first.isFenced else { throw NBDConnectError.interrupted }
            state.socket = socket
            state.backoff = Self.backoffFirst
            state.nextAttempt = 0
            target.unfenced.bitwiseAnd(~bit, ordering: .releasing)
            tally.reconnects.wrappingAdd(1, ordering: .relaxed)
            tally.moveTo(.connected)
        } catch {
            state.nextAttempt = monotonicNow() + state.backoff
            state.backoff = min(Self.backoffMax, state.backoff * 2)
            switch error {
            case .system, .interrupted, .notNBD, .refused, .security: return
            case .unknownExport:
                tally.moveTo(.lost)
                throw .leaseLost
            }
        }
    }

    /// Returns when no other link's ended connection can still carry a store: connects them if their own threads
    /// do not. The common case is one load of a word.
    private func awaitOthersFences(_ deadline: Int64) throws(FabricError) {
        while target.unfenced.load(ordering: .acquiring) & ~bit != 0 {
            for link in target.links() where link !== self { try link.fence(deadline) }
            guard target.unfenced.load(ordering: .acquiring) & ~bit != 0 else { return }
            guard monotonicNow() + Self.fencePause < deadline else { throw .unreachable }
            sleepNanoseconds(Self.fencePause)
        }
    }

    /// Connects if it must, unless its own thread is at it.
    private func fence(_ deadline: Int64) throws(FabricError) {
        guard target.unfenced.load(ordering: .acquiring) & bit != 0 else { return }
        let failure = state.withLockIfAvailable { state -> FabricError? in
            do throws(FabricError) {
                if state.isClosed { throw .unreachable }
                if state.socket == nil { try self.reconnect(&state, deadline) }
                return nil
            } catch {
                return error
            }
        }
        if let failure = failure ?? nil { throw failure }
    }

    private func note(_ failure: FabricError) {
        switch failure {
        case .noSpace: tally.noSpace.wrappingAdd(1, ordering: .relaxed)
        case .deadlinePassed: tally.deadlines.wrappingAdd(1, ordering: .relaxed)
        case .peerError: tally.peerErrors.wrappingAdd(1, ordering: .relaxed)
        case .protocolViolation: tally.violations.wrappingAdd(1, ordering: .relaxed)
        case .unreachable, .outOfRange, .leaseLost: break
        }
    }
}

extension FabricError {
    init(_ error: NBDErrorNumber) {
        switch error {
        case .noSpace: self = .noSpace
        case .invalid: self = .outOfRange
        default: self = .peerError(Int32(truncatingIfNeeded: error.rawValue))
        }
    }
}

/// One request and where its bytes are.
@safe struct NBDCall {
    let command: NBDCommand
    let offset: UInt64
    let length: Int
    let send: UnsafeRawPointer?
    let receive: UnsafeMutableRawPointer?

    /// Sends the request and receives the reply. Only simple replies were negotiated.
    func run(
        on socket: NBDSocket, cookie: UInt64, _ spin: Int64, _ deadline: Int64
    ) throws(NBDSocketError) -> NBDErrorNumber {
        let request = NBDRequest(
            command: command, cookie: cookie, offset: offset, length: UInt32(length))
        // SAFETY: the socket's own memory; what is sent is only read.
        let place = unsafe socket.header
        let parts = unsafe socket.parts
        unsafe request.encode(to: place)
        unsafe parts[0] = unsafe iovec(iov_base: place, iov_len: NBDWire.requestBytes)
        unsafe parts[1] = unsafe iovec(
            iov_base: UnsafeMutableRawPointer(mutating: send), iov_len: send == nil ? 0 : length)
        unsafe try socket.send(parts, send == nil ? 1 : 2, deadline)
        unsafe parts[0] = unsafe iovec(iov_base: place, iov_len: NBDWire.simpleReplyBytes)
        unsafe parts[1] = unsafe iovec(iov_base: receive, iov_len: receive == nil ? 0 : length)
        var got = unsafe try socket.receive(
            parts, receive == nil ? 1 : 2, minimum: NBDWire.simpleReplyBytes, spin: spin, deadline)
        guard case .simple(cookie, let error)? = unsafe NBDReply(at: place) else {
            throw .notProtocol
        }
        got -= NBDWire.simpleReplyBytes
        guard error == .none else {
            // An error carries no data: what came behind it is none of ours.
            guard got == 0 else { throw .notProtocol }
            return error
        }
        if let receive = unsafe receive, got < length {
            unsafe parts[0] = unsafe iovec(iov_base: receive + got, iov_len: length - got)
            _ = unsafe try socket.receive(
                parts, 1, minimum: length - got, spin: 0, deadline)
        }
        return .none
    }
}
