/// Where a service listens or a client connects: a unix socket or a TCP address. Pure; nothing is resolved here.
package enum Endpoint: Hashable, Sendable {
    case unix(path: String)
    /// `host` is a name or an address without brackets; port 0 lets the kernel choose one for a listener.
    case tcp(host: String, port: UInt16)

    /// True when only this machine can reach it: a unix socket, or the loopback addresses by name or number.
    package var isLocal: Bool {
        switch self {
        case .unix: true
        case .tcp(let host, _): host == "localhost" || host == "::1" || Self.isLoopbackIPv4(host)
        }
    }

    /// 127.0.0.0/8 in dotted form; a name that merely starts with "127." is not an address.
    private static func isLoopbackIPv4(_ host: String) -> Bool {
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts.allSatisfy { UInt8($0) != nil } && parts[0] == "127"
    }
}

extension Endpoint: CustomStringConvertible {
    /// As the command line reads it back: `unix:/run/x.sock`, `tcp://127.0.0.1:80`, `tcp://[::1]:80`.
    package var description: String {
        switch self {
        case .unix(let path): "unix:\(path)"
        case .tcp(let host, let port) where host.contains(":"): "tcp://[\(host)]:\(port)"
        case .tcp(let host, let port): "tcp://\(host):\(port)"
        }
    }
}
