package import LinuxSystem
package import PoolProtocol

/// Why a session with memserver could not be had or went wrong.
package enum RDMASessionError: Error, Equatable, Sendable {
    /// This host has no RDMA device, or no way to that address by one.
    case noDevice
    /// Nobody answers there.
    case unreachable(SystemError)
    /// No answer in time.
    case timedOut
    /// The server's own words.
    case refused(ControlErrorCode, String)
    /// Somebody refused who is no memserver: nobody listens on that port.
    case notServed
    /// The server wants a key, and there is none.
    case keyNeeded
    case protocolViolation(String)
    /// The lease is not the one that was asked for: its pages are lost.
    case anotherLease
    /// A data queue failed, so that nobody knows what of its requests was carried out.
    case queueFailed
}

extension RDMASessionError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .noDevice: "no RDMA device of this host leads there; see rdma link"
        case .unreachable(let error): "memserver cannot be reached (\(error)); is it running?"
        case .timedOut: "memserver does not answer; is the address right, and is it running?"
        case .refused(let code, let text): "memserver refused: \(text) (\(code))"
        case .notServed: "no memserver listens there; is it running with --rdma?"
        case .keyNeeded: "memserver wants a key; give --auth-file"
        case .protocolViolation(let what):
            "memserver answered what the protocol does not allow: \(what)"
        case .anotherLease: "another lease has taken the place of this one; its pages are lost"
        case .queueFailed: "a data queue failed"
        }
    }
}

/// Where a lease is.
package struct RDMATarget: Equatable, Sendable {
    package let host: String
    package let port: UInt16
    package let lease: String
    package let key: SharedKey?

    package init(host: String, port: UInt16, lease: String, key: SharedKey?) {
        self.host = host
        self.port = port
        self.lease = lease
        self.key = key
    }
}
