import CGnuTLS
import Glibc
package import LinuxSystem
package import PoolProtocol

/// Why a session with memserver could not be had or went wrong.
package enum ShmSessionError: Error, Equatable, Sendable {
    /// Nobody listens, or the connection broke.
    case unreachable(SystemError)
    /// No answer in time.
    case timedOut
    /// The server's own words.
    case refused(ControlErrorCode, String)
    /// The server wants a key, and there is none.
    case keyNeeded
    case protocolViolation(String)
    /// The lease is not the one that was asked for: its pages are lost.
    case anotherLease
}

extension ShmSessionError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .unreachable(let error): "memserver cannot be reached (\(error)); is it running?"
        case .timedOut: "memserver does not answer; is it overloaded or stopped?"
        case .refused(let code, let text): "memserver refused: \(text) (\(code))"
        case .keyNeeded: "memserver wants a key; give --auth-file"
        case .protocolViolation(let what):
            "memserver answered what the protocol does not allow: \(what)"
        case .anotherLease: "another lease has taken the place of this one; its pages are lost"
        }
    }
}

/// What an opened lease is.
struct OpenedLease: Equatable {
    var record: ShmLeaseRecord
    /// Data, page bits, grants: the receiver owns them.
    var descriptors: [Int32]
}

/// One connection of the control protocol, one request at a time. Belongs to one thread.
struct ShmSession: ~Copyable {
    private let socket: FileDescriptor
    private var cookie: UInt32 = 0
    /// For each answer.
    private static let patience: Int64 = 2_000_000_000

    /// The descriptor, to watch for a hang-up.
    var descriptor: Int32 { socket.rawValue }

    private init(socket: consuming FileDescriptor) { self.socket = socket }

    /// Connects, agrees on a version, and proves the key.
    static func connect(path: String, key: SharedKey?) throws(ShmSessionError) -> ShmSession {
        var session = try ShmSession(socket: connected(to: path))
        let welcome = try session.request(
            .hello(versions: 1...1, features: 0, clientName: "farswap-\(getpid())"))
        guard case .welcome(_, let authRequired, _, let challenge) = welcome.message else {
            throw .protocolViolation("no welcome")
        }
        guard authRequired else { return session }
        guard let key else { throw .keyNeeded }
        let text = ControlMessage.authenticatedBytes(
            challenge: challenge, keyName: key.name, over: .shm)
        try session.requireOK(.auth(keyName: key.name, mac: Self.hmac(text, key: key.secret)))
        return session
    }

    private static func connected(to path: String) throws(ShmSessionError) -> FileDescriptor {
        do throws(SystemError) {
            return try connectUnix(path)
        } catch {
            throw .unreachable(error)
        }
    }

    /// Opens a lease; the descriptors come along.
    mutating func open(
        _ name: String, size: UInt64, create: Bool
    ) throws(ShmSessionError) -> OpenedLease {
        let flags: OpenFlags = create ? .create : []
        let answer = try request(.open(leaseName: name, size: size, flags: flags))
        guard case .opened(let id, let epoch, let size, let slabBytes) = answer.message,
            answer.descriptors.count == 3
        else {
            for fd in answer.descriptors { close(fd) }
            throw .protocolViolation("no lease")
        }
        let record = ShmLeaseRecord(id: id, epoch: epoch, size: size, slabBytes: Int(slabBytes))
        guard record.isPossible else {
            for fd in answer.descriptors { close(fd) }
            throw .protocolViolation("an impossible lease")
        }
        return OpenedLease(record: record, descriptors: answer.descriptors)
    }

    /// Asks for slabs; the answer may be fewer, from the first on.
    mutating func grant(_ slabs: SlabRange) throws(ShmSessionError) -> SlabRange {
        guard case .granted(let got) = try request(.grant(slabs)).message,
            got.first == slabs.first, got.count <= slabs.count
        else { throw .protocolViolation("no grant") }
        return got
    }

    mutating func giveBack(_ slabs: SlabRange) throws(ShmSessionError) {
        try requireOK(.returnSlabs(slabs))
    }

    mutating func finish(releaseLease: Bool) throws(ShmSessionError) {
        try requireOK(releaseLease ? .release : .close)
    }

    private mutating func requireOK(_ message: ControlMessage) throws(ShmSessionError) {
        guard case .ok = try request(message).message else { throw .protocolViolation("no ok") }
    }

    private mutating func request(
        _ message: ControlMessage
    ) throws(ShmSessionError) -> (message: ControlMessage, descriptors: [Int32]) {
        cookie &+= 1
        let bytes = message.encoded(cookie: cookie)
        do throws(SystemError) {
            try sendAll(bytes)
        } catch {
            throw .unreachable(error)
        }
        let answer = try receive(deadline: monotonicNow() + Self.patience)
        if case .error(let code, let text) = answer.message { throw .refused(code, text) }
        return answer
    }

    private func sendAll(_ bytes: [UInt8]) throws(SystemError) {
        let error: SystemError? = unsafe bytes.withUnsafeBytes { buffer in
            do throws(SystemError) {
                try unsafe socket.send(buffer, descriptors: [])
                return nil
            } catch {
                return error
            }
        }
        if let error { throw error }
    }

    private func receive(
        deadline: Int64
    ) throws(ShmSessionError) -> (message: ControlMessage, descriptors: [Int32]) {
        var descriptors: [Int32] = []
        do throws(ShmSessionError) {
            let head = try receive(FrameHeader.byteCount, deadline, &descriptors)
            let header = try decoded { () throws(ControlDecodeError) in
                try FrameHeader.decode(head)
            }
            guard header.cookie == cookie else { throw ShmSessionError.protocolViolation("cookie") }
            let payload = try receive(header.payloadLength, deadline, &descriptors)
            let message = try decoded { () throws(ControlDecodeError) in
                try ControlMessage.decode(type: header.type, payload: payload)
            }
            return (message, descriptors)
        } catch {
            for fd in descriptors { close(fd) }
            throw error
        }
    }

    private func decoded<T>(
        _ decode: () throws(ControlDecodeError) -> T
    ) throws(ShmSessionError) -> T {
        do throws(ControlDecodeError) {
            return try decode()
        } catch {
            throw .protocolViolation("\(error)")
        }
    }

    private func receive(
        _ count: Int, _ deadline: Int64, _ descriptors: inout [Int32]
    ) throws(ShmSessionError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            do throws(SystemError) {
                guard
                    try waitReady(
                        socket.rawValue, .readable, timeout: max(0, deadline - monotonicNow()))
                else { throw SystemError(call: "wait", code: ETIMEDOUT) }
                var more: [Int32] = []
                let got = try receiveOnce(&bytes, from: done, &more)
                descriptors += more
                guard got > 0 else { throw SystemError(call: "recvmsg", code: ECONNRESET) }
                done += got
            } catch {
                throw error.code == ETIMEDOUT ? .timedOut : .unreachable(error)
            }
        }
        return bytes
    }

    private func receiveOnce(
        _ bytes: inout [UInt8], from offset: Int, _ descriptors: inout [Int32]
    ) throws(SystemError) -> Int {
        var failure: SystemError?
        var got = 0
        unsafe bytes.withUnsafeMutableBytes { buffer in
            do throws(SystemError) {
                // SAFETY: offset < count, so the rest of the buffer is inside it.
                got = try unsafe socket.receive(
                    into: UnsafeMutableRawBufferPointer(rebasing: buffer[offset...]),
                    descriptors: &descriptors, maximum: 3)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return got
    }

    private static func hmac(_ text: [UInt8], key: [UInt8]) -> [UInt8] {
        var mac = [UInt8](repeating: 0, count: 32)
        let status = unsafe gnutls_hmac_fast(
            GNUTLS_MAC_SHA256, key, key.count, text, text.count, &mac)
        precondition(status == 0, "HMAC-SHA256 always exists")
        return mac
    }
}
