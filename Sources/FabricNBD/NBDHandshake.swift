package import FarMemory
import Glibc
package import LinuxSystem
package import PoolProtocol
import TransportSecurity

/// Why a connection to an NBD server could not be made.
package enum NBDConnectError: Error, Equatable, Sendable {
    /// No connection: nobody listens, or the network is away. Trying again may help.
    case system(SystemError)
    /// The server did not answer in time, or closed in the middle. Trying again may help.
    case interrupted
    /// What it sent is not the protocol.
    case notNBD
    /// The server does not give the export now.
    case refused(String)
    /// The server has no export of that name for this client.
    case unknownExport
    /// The server wants TLS, or cannot speak it, or a key or certificate was not accepted.
    case security(String)
}

extension NBDConnectError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .system(let error): error.description
        case .interrupted: "the NBD server did not finish the handshake in time"
        case .notNBD: "it does not speak the NBD protocol (fixed newstyle)"
        case .unknownExport: "the NBD server has no export of that name (or not for this key)"
        case .refused(let reason): "the NBD server refuses the export: \(reason)"
        case .security(let reason): "TLS: \(reason)"
        }
    }
}

/// What an NBD server said of the export it gave.
package struct NBDExportFacts: Equatable, Sendable {
    package var size: ByteCount
    package var flags: NBDTransmissionFlags
    /// The longest payload that it takes.
    package var payloadBytesMax: Int
    /// The lease's number, where the server is a memserver.
    package var epoch: UInt64?
    /// Whether the server has ended this client's older connections.
    package var isFenced: Bool
}

/// An export on a connected socket.
package struct NBDConnectedExport: ~Copyable {
    package let descriptor: FileDescriptor
    package let facts: NBDExportFacts

    /// Gives the descriptor to another owner.
    package consuming func takeDescriptor() -> FileDescriptor { descriptor }
}

/// The client's handshake.
package enum NBDHandshake {
    /// Connects, without TLS, and takes an export with simple replies: the descriptor is then in the
    /// transmission phase, blocking, for the kernel's NBD client or another owner.
    /// - Parameters:
    ///   - client: names the connection; an older one of this name is ended first where the server can.
    ///   - deadline: on the monotonic clock, for all of it.
    package static func connect(
        _ uri: NBDURI, client: [UInt8]? = nil, deadline: Int64
    ) throws(NBDConnectError) -> NBDConnectedExport {
        guard !uri.usesTLS else {
            throw .security("a descriptor cannot carry TLS; use nbd:// or the fuse frontend")
        }
        let (socket, facts) = try negotiate(uri, client: client, security: nil, deadline: deadline)
        let descriptor = socket.takeDescriptor()
        do throws(SystemError) { try descriptor.setNonBlocking(false) } catch {
            throw .system(error)
        }
        return NBDConnectedExport(descriptor: descriptor, facts: facts)
    }

    /// Connects and negotiates; `client` fences older connections of the same name.
    static func negotiate(
        _ uri: NBDURI, client: [UInt8]?, security: TLSCredentials?, deadline: Int64
    ) throws(NBDConnectError) -> (NBDSocket, NBDExportFacts) {
        let socket = try open(uri.endpoint, deadline)
        do throws(NBDSocketError) {
            let greeting = try parse(NBDGreeting.init, socket.receive(NBDGreeting.bytes, deadline))
            guard greeting.flags.contains(.fixedNewstyle) else { throw .notProtocol }
            let flags = greeting.flags.intersection([.fixedNewstyle, .noZeroes])
            try socket.send(encodeNBDClientFlags(flags), deadline)
            if let security {
                let reply = try ask(socket, .startTLS, [], deadline).last
                guard reply?.0 == .acknowledge else {
                    throw .refused(.security("the server does not offer it"))
                }
                try socket.encrypt(security, host: uri.endpoint.hostName, deadline)
            }
            var isFenced = false
            if let client {
                let reply = try ask(socket, .fence, client, deadline).last
                isFenced = reply?.0 == .acknowledge
                // A server that knows no fences is one thing, one that could not put it up another.
                guard isFenced || reply?.0 == .unsupported else {
                    throw .refused(refusal(reply))
                }
            }
            var facts = try takeExport(socket, uri.export, deadline)
            facts.isFenced = isFenced
            return (socket, facts)
        } catch {
            switch error {
            case .timedOut, .closed: throw .interrupted
            case .notProtocol: throw .notNBD
            case .refused(let reason): throw reason
            }
        }
    }

    private static func open(
        _ endpoint: Endpoint, _ deadline: Int64
    ) throws(NBDConnectError) -> NBDSocket {
        do throws(SystemError) {
            let descriptor: FileDescriptor
            switch endpoint {
            case .unix(let path):
                descriptor = try connectUnix(path)
            case .tcp(let host, let port):
                let left = max(1_000_000, deadline - monotonicNow())
                descriptor = try connectTCP(host, "\(port)", timeout: left)
                try descriptor.setNoDelay()
            }
            try descriptor.setNonBlocking(true)
            return NBDSocket(descriptor)
        } catch {
            throw .system(error)
        }
    }

    private static func takeExport(
        _ socket: NBDSocket, _ name: String, _ deadline: Int64
    ) throws(NBDSocketError) -> NBDExportFacts {
        let request = NBDExportRequest(name: name, wanted: [.blockSize, .epoch])
        let replies = try ask(socket, .go, request.encoded, deadline)
        guard let last = replies.last, last.0 == .acknowledge else {
            throw .refused(refusal(replies.last))
        }
        var facts = NBDExportFacts(
            size: .zero, flags: [], payloadBytesMax: NBDWire.payloadBytesMax, epoch: nil,
            isFenced: false)
        for (kind, data) in replies where kind == .info {
            switch try parse(NBDExportFact.init, data) {
            case .export(let size, let flags):
                facts.size = ByteCount(size)
                facts.flags = flags
            case .blockSize(let minimum, _, let maximum):
                guard minimum <= UInt32(pageBytes), maximum >= UInt32(pageBytes) else {
                    throw .refused(.refused("its block size does not suit pages of 4 KiB"))
                }
                facts.payloadBytesMax = min(facts.payloadBytesMax, Int(maximum))
            case .epoch(let epoch): facts.epoch = epoch
            case .text, .unknown: break
            }
        }
        guard facts.size.bytes > 0 else { throw .notProtocol }
        return facts
    }

    private static func refusal(_ reply: (NBDOptionReply, [UInt8])?) -> NBDConnectError {
        guard let (kind, data) = reply else { return .notNBD }
        let text = String(decoding: data, as: UTF8.self)
        switch kind {
        case .tlsRequired: return .security("the server wants it; use nbds:// with a key")
        case .unknownExport: return .unknownExport
        case .unsupported: return .refused("the server is too old for NBD_OPT_GO")
        default: return .refused(text.isEmpty ? "reply \(kind.rawValue & 0xffff)" : text)
        }
    }

    /// Sends an option and collects the replies, at most 64.
    private static func ask(
        _ socket: NBDSocket, _ option: NBDOption, _ data: [UInt8], _ deadline: Int64
    ) throws(NBDSocketError) -> [(NBDOptionReply, [UInt8])] {
        try socket.send(NBDOptionHeader.encode(option, data), deadline)
        var replies: [(NBDOptionReply, [UInt8])] = []
        for _ in 0..<64 {
            let header = try parse(
                NBDOptionReplyHeader.init, socket.receive(NBDWire.optionReplyBytes, deadline))
            guard header.option == option else { throw .notProtocol }
            replies.append((header.reply, try socket.receive(Int(header.length), deadline)))
            if header.reply == .acknowledge || header.reply.isError { return replies }
        }
        throw .notProtocol
    }

    private static func parse<T>(
        _ decode: ([UInt8]) throws(NBDProtocolError) -> T, _ bytes: [UInt8]
    ) throws(NBDSocketError) -> T {
        do throws(NBDProtocolError) { return try decode(bytes) } catch { throw .notProtocol }
    }
}

extension Endpoint {
    /// The name that a certificate must carry.
    var hostName: String {
        switch self {
        case .unix: "localhost"
        case .tcp(let host, _): host
        }
    }
}
