// HTTPEndpoint: a small HTTP/1.1 server (libmicrohttpd) and client (libcurl) over TCP and unix sockets.
//
// Purpose: admin endpoints, lifecycle events, the function gateway and their clients.
// Thread model: the server calls its handler on its own threads, possibly many at once; a client belongs to one thread.
// Invariants: bodies, headers, connections and waits are bounded on both sides; what exceeds a bound is refused with a
// status or a typed error, and never grows memory.
// Must not import: Foundation.

package import JSONText

/// One request as a handler sees it: whole, bounded, decoded.
package struct HTTPRequest: Sendable {
    /// `GET`, `POST`, …
    package let method: String
    /// Percent-decoded, without the query.
    package let path: String
    /// Percent-decoded, in the order of the URL.
    package let queryItems: [(name: String, value: String)]
    /// In the order of arrival.
    package let headers: [(name: String, value: String)]
    package let body: [UInt8]

    package init(
        method: String, path: String, queryItems: [(name: String, value: String)] = [],
        headers: [(name: String, value: String)] = [], body: [UInt8] = []
    ) {
        self.method = method
        self.path = path
        self.queryItems = queryItems
        self.headers = headers
        self.body = body
    }

    /// The first value of a query item.
    package func query(_ name: String) -> String? {
        queryItems.first { $0.name == name }?.value
    }

    /// The first value of a header; names are compared without regard to case.
    package func header(_ name: String) -> String? { firstHeader(headers, name) }
}

/// One response, from a handler or to a client.
package struct HTTPResponse: Sendable {
    package var status: Int
    package var headers: [(name: String, value: String)]
    package var body: [UInt8]

    package init(
        status: Int, headers: [(name: String, value: String)] = [], body: [UInt8] = []
    ) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// The first value of a header; names are compared without regard to case.
    package func header(_ name: String) -> String? { firstHeader(headers, name) }

    /// The body as text; invalid UTF-8 is repaired.
    package var text: String { String(decoding: body, as: UTF8.self) }
}

extension HTTPResponse {
    package static func text(
        _ text: String, status: Int = 200, type: String = "text/plain; charset=utf-8"
    ) -> HTTPResponse {
        HTTPResponse(status: status, headers: [("Content-Type", type)], body: Array(text.utf8))
    }

    package static func json(_ value: JSONValue, status: Int = 200) -> HTTPResponse {
        HTTPResponse(
            status: status, headers: [("Content-Type", "application/json")],
            body: value.renderedBytes() + [0x0A])
    }

    /// Metrics in the Prometheus text format.
    package static func metrics(_ text: String) -> HTTPResponse {
        .text(text, type: "text/plain; version=0.0.4; charset=utf-8")
    }

    /// `{"error": "..."}` with a status of 400 or more.
    package static func error(_ status: Int, _ message: String) -> HTTPResponse {
        .json(["error": JSONValue(message)], status: status)
    }

    /// Taken, nothing to say.
    package static let noContent = HTTPResponse(status: 204)

    package static let notFound = HTTPResponse.error(404, "no such path")
    /// 405 with the methods that the path has.
    package static func methodNotAllowed(_ allowed: String) -> HTTPResponse {
        var response = error(405, "use \(allowed)")
        response.headers.append(("Allow", allowed))
        return response
    }
}

private func firstHeader(
    _ headers: [(name: String, value: String)], _ name: String
) -> String? {
    let wanted = name.lowercased()
    return headers.first { $0.name.lowercased() == wanted }?.value
}

/// Percent-encoding for the parts of a URL.
package enum PercentEncoding {
    /// Everything but unreserved characters encoded: safe as one path segment, query name or query value.
    package static func encode(_ text: String) -> String {
        let hex = Array("0123456789ABCDEF".utf8)
        var bytes: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: bytes.append(byte)
            default: bytes += [0x25, hex[Int(byte >> 4)], hex[Int(byte & 15)]]
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// `?name=value&...`, empty for no items.
    package static func query(_ items: [(name: String, value: String)]) -> String {
        guard !items.isEmpty else { return "" }
        return "?" + items.map { "\(encode($0.name))=\(encode($0.value))" }.joined(separator: "&")
    }
}
