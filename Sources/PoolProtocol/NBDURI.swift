package import FarMemory

/// Where an NBD export is: the NBD URI standard (NetworkBlockDevice doc/uri.md).
///
///     nbd://host:port/export          nbds://host/export          (TLS)
///     nbd+unix:///export?socket=PATH  nbds+unix:///export?socket=PATH
///
/// Parameters of TLS: `tls-certificates=DIR`, `tls-psk-file=FILE`, and the user part names the PSK identity.
package struct NBDURI: Equatable, Sendable {
    package var endpoint: Endpoint
    /// The export's name, percent-decoded; often empty.
    package var export: String
    package var usesTLS: Bool
    /// The PSK identity or the certificate's user.
    package var user: String?
    package var certificates: String?
    package var pskFile: String?

    package init(
        endpoint: Endpoint, export: String, usesTLS: Bool = false, user: String? = nil,
        certificates: String? = nil, pskFile: String? = nil
    ) {
        self.endpoint = endpoint
        self.export = export
        self.usesTLS = usesTLS
        self.user = user
        self.certificates = certificates
        self.pskFile = pskFile
    }

    /// Parses a URI; the error says what is wrong with it.
    package init(_ text: String) throws(NBDURIError) {
        guard let (scheme, rest) = split(text, "://") else {
            throw NBDURIError(text, "it has no scheme")
        }
        guard ["nbd", "nbds", "nbd+unix", "nbds+unix"].contains(scheme) else {
            throw NBDURIError(text, "'\(scheme)' is none of nbd, nbds, nbd+unix, nbds+unix")
        }
        usesTLS = scheme.hasPrefix("nbds")
        let (beforeQuery, query) = split(rest, "?") ?? (rest, "")
        let (authority, path) = split(beforeQuery, "/") ?? (beforeQuery, "")
        guard !beforeQuery.contains("#"), !query.contains("#") else {
            throw NBDURIError(text, "a fragment (#) has no meaning in it")
        }
        let (userPart, hostPart) = split(authority, "@") ?? ("", authority)
        user = userPart.isEmpty ? nil : try decodePercent(userPart, in: text)
        export = try decodePercent(path, in: text)
        var socket: String?
        for pair in query.split(separator: "&") {
            let (key, value) = split(String(pair), "=") ?? (String(pair), "")
            switch key {
            case "socket": socket = try decodePercent(value, in: text)
            case "tls-certificates": certificates = try decodePercent(value, in: text)
            case "tls-psk-file": pskFile = try decodePercent(value, in: text)
            default: throw NBDURIError(text, "parameter '\(key)' is unknown")
            }
        }
        if scheme.hasSuffix("+unix") {
            guard hostPart.isEmpty else { throw NBDURIError(text, "a unix URI has no host") }
            guard let socket, !socket.isEmpty else {
                throw NBDURIError(text, "a unix URI needs ?socket=PATH")
            }
            endpoint = .unix(path: socket)
        } else {
            guard socket == nil else { throw NBDURIError(text, "socket= needs nbd+unix") }
            endpoint = try parseHostPort(hostPart, defaultPort: NBDWire.defaultPort, in: text)
        }
    }
}

extension NBDURI: CustomStringConvertible {
    /// The URI as the parser and other NBD programs read it back.
    package var description: String {
        let scheme = usesTLS ? "nbds" : "nbd"
        let account = user.map { encodePercent($0, keepingSlashes: false) + "@" } ?? ""
        let name = encodePercent(export)
        var query: [String] = []
        var head: String
        switch endpoint {
        case .unix(let path):
            head = "\(scheme)+unix://\(account)/\(name)"
            query.append("socket=\(encodePercent(path))")
        case .tcp(let host, let port):
            let shown = host.contains(":") ? "[\(host)]" : host
            head = "\(scheme)://\(account)\(shown):\(port)/\(name)"
        }
        if let certificates { query.append("tls-certificates=\(encodePercent(certificates))") }
        if let pskFile { query.append("tls-psk-file=\(encodePercent(pskFile))") }
        if !query.isEmpty { head += "?" + query.joined(separator: "&") }
        return head
    }
}

/// A URI or listener that cannot be used, and why.
package struct NBDURIError: Error, Equatable, Sendable, CustomStringConvertible {
    package var text: String
    package var reason: String

    package init(_ text: String, _ reason: String) {
        self.text = text
        self.reason = reason
    }

    package var description: String { "'\(text)': \(reason)" }
}

/// Parses `--nbd tcp://HOST[:PORT]` or `unix:PATH`.
package func parseNBDListener(_ text: String) throws(NBDURIError) -> Endpoint {
    if let (head, path) = split(text, ":"), head == "unix", !path.hasPrefix("//") {
        guard path.hasPrefix("/") else {
            throw NBDURIError(text, "a unix listener needs an absolute path: unix:/run/x.sock")
        }
        guard path.utf8.count < 108 else { throw NBDURIError(text, "the path is too long") }
        return .unix(path: path)
    }
    guard let (scheme, rest) = split(text, "://"), scheme == "tcp" else {
        throw NBDURIError(text, "give tcp://HOST:PORT or unix:/PATH")
    }
    guard !rest.contains("/") else { throw NBDURIError(text, "a listener has no path") }
    return try parseHostPort(rest, defaultPort: NBDWire.defaultPort, in: text)
}

/// Cuts a text at the first occurrence of `mark`.
private func split(_ text: String, _ mark: String) -> (String, String)? {
    let bytes = Array(text.utf8)
    let wanted = Array(mark.utf8)
    guard bytes.count >= wanted.count else { return nil }
    for start in 0...(bytes.count - wanted.count)
    where Array(bytes[start..<start + wanted.count]) == wanted {
        return (
            String(decoding: bytes[..<start], as: UTF8.self),
            String(decoding: bytes[(start + wanted.count)...], as: UTF8.self)
        )
    }
    return nil
}

private func parseHostPort(
    _ part: String, defaultPort: UInt16, in text: String
) throws(NBDURIError) -> Endpoint {
    var host = part
    var portText: String?
    if part.hasPrefix("[") {
        guard let (inside, after) = split(String(part.dropFirst()), "]") else {
            throw NBDURIError(text, "'[' is not closed")
        }
        host = inside
        if let (nothing, port) = split(after, ":"), nothing.isEmpty {
            portText = port
        } else if !after.isEmpty {
            throw NBDURIError(text, "after ']' there may be only a port")
        }
    } else if let (name, port) = split(part, ":") {
        (host, portText) = (name, port)
    }
    guard !host.isEmpty else { throw NBDURIError(text, "it names no host") }
    let isName = host.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && !"@/?#[]".utf8.contains($0) }
    guard isName else { throw NBDURIError(text, "'\(host)' is no host") }
    guard let portText else { return .tcp(host: host, port: defaultPort) }
    guard portText.first != "+", let port = UInt16(portText) else {
        throw NBDURIError(text, "'\(portText)' is no port number")
    }
    return .tcp(host: host, port: port)
}

private func decodePercent(_ part: String, in text: String) throws(NBDURIError) -> String {
    var bytes: [UInt8] = []
    var rest = Array(part.utf8)[...]
    while let byte = rest.popFirst() {
        guard byte == UInt8(ascii: "%") else {
            bytes.append(byte)
            continue
        }
        guard rest.count >= 2, let high = hexDigit(rest.removeFirst()),
            let low = hexDigit(rest.removeFirst())
        else { throw NBDURIError(text, "'%' is not followed by two hex digits") }
        bytes.append(high << 4 | low)
    }
    guard let decoded = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
        throw NBDURIError(text, "a part of it is not text")
    }
    return decoded
}

/// A slash ends the authority, so the user part, which stands in it, must not keep one.
private func encodePercent(_ text: String, keepingSlashes: Bool = true) -> String {
    let digits = Array("0123456789ABCDEF".utf8)
    var bytes: [UInt8] = []
    for byte in text.utf8 {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."),
            UInt8(ascii: "_"), UInt8(ascii: "~"):
            bytes.append(byte)
        case UInt8(ascii: "/") where keepingSlashes:
            bytes.append(byte)
        default:
            bytes += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
    }
    return String(decoding: bytes, as: UTF8.self)
}

private func hexDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
}
