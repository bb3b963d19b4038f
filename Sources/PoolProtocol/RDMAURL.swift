/// Where a lease is, over RDMA: `rdma://HOST[:PORT][/LEASE]`. Pure; nothing is resolved here.
package struct RDMAURL: Equatable, Sendable {
    /// A name or an address, without brackets.
    package let host: String
    package let port: UInt16
    /// Nil where the URL names none.
    package let lease: String?

    /// The port of memserver's RDMA listener unless it is told another.
    package static let defaultPort: UInt16 = 50000

    package init(_ text: String) throws(RDMAURLError) {
        guard text.hasPrefix("rdma://") else {
            throw RDMAURLError("'\(text)': write rdma://HOST:PORT/LEASE")
        }
        let rest = text.dropFirst("rdma://".count)
        let parts = rest.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        (host, port) = try Self.authority(parts[0], in: text)
        guard parts.count > 1, !parts[1].isEmpty else {
            lease = nil
            return
        }
        guard Self.isLeaseName(parts[1]) else {
            throw RDMAURLError(
                "'\(text)': '\(parts[1])' is no lease; use 1 to 64 of the characters A-Z a-z 0-9 . _ -"
            )
        }
        lease = String(parts[1])
    }

    private static func authority(
        _ text: Substring, in url: String
    ) throws(RDMAURLError) -> (String, UInt16) {
        var (host, tail) = (text, Substring())
        if text.hasPrefix("["), let close = text.firstIndex(of: "]") {
            host = text[text.index(after: text.startIndex)..<close]
            tail = text[text.index(after: close)...]
        } else if let colon = text.firstIndex(of: ":") {
            (host, tail) = (text[..<colon], text[colon...])
        }
        let allowed = host.utf8.allSatisfy { byte in
            byte > 0x20 && byte < 0x7f && !"[]@?#%\\".utf8.contains(byte)
        }
        guard !host.isEmpty, allowed else {
            throw RDMAURLError("'\(url)': give a host, as in rdma://memory1:50000/lease")
        }
        if tail.isEmpty { return (String(host), defaultPort) }
        guard tail.first == ":", let port = UInt16(tail.dropFirst()), port > 0,
            tail.dropFirst().allSatisfy({ $0.isASCII && $0.isNumber })
        else { throw RDMAURLError("'\(url)': a port is a number from 1 to 65535") }
        return (String(host), port)
    }

    private static func isLeaseName(_ text: Substring) -> Bool {
        text.utf8.count <= 64 && text.first != "."
            && text.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x41...0x5A).contains($0)
                    || (0x61...0x7A).contains($0) || "._-".utf8.contains($0)
            }
    }
}

/// Why a text is no such URL, and what to write instead.
package struct RDMAURLError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    init(_ description: String) { self.description = description }
}
