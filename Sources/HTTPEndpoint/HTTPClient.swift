import CCurl
import CHTTPShims
package import FarMemory
import Glibc

/// Why a request got no response.
package enum HTTPClientError: Error, Equatable, CustomStringConvertible {
    /// No connection: nobody listens there, no such socket or host, permission.
    case unreachable(Endpoint, String)
    /// The time given passed.
    case deadline(Endpoint)
    /// The response is larger than the client's limit, in bytes.
    case tooLarge(Int)
    /// The connection broke or what came was not HTTP.
    case broken(Endpoint, String)
    /// Method, path or a header holds what HTTP cannot carry.
    case invalidRequest(String)

    package var description: String {
        switch self {
        case .unreachable(let endpoint, let why): "cannot reach \(endpoint): \(why)"
        case .deadline(let endpoint): "\(endpoint) did not answer in time"
        case .tooLarge(let limit): "the response is larger than \(limit) bytes"
        case .broken(let endpoint, let why): "\(endpoint): \(why)"
        case .invalidRequest(let why): "invalid request: \(why)"
        }
    }
}

/// An HTTP client of one endpoint over a persistent connection, for one thread. Proxies and redirects are not followed.
package final class HTTPClient {
    package let target: Endpoint
    let handle: CurlHandle
    let bodyBytesMax: Int
    let bearerToken: String?

    /// Does not connect yet. `bodyBytesMax` bounds a response's body.
    package init(target: Endpoint, bearerToken: String? = nil, bodyBytesMax: Int = 16 << 20) {
        self.target = target
        self.bodyBytesMax = bodyBytesMax
        self.bearerToken = bearerToken
        handle = CurlHandle()
    }

    /// Sends a request and waits for the whole response, at most `timeout` from now. Any status is a response.
    /// `path` starts with a slash and is already percent-encoded (`PercentEncoding`).
    package func request(
        _ method: String, _ path: String, headers: [(name: String, value: String)] = [],
        body: [UInt8]? = nil, timeout: Nanoseconds
    ) throws(HTTPClientError) -> HTTPResponse {
        try check(method, path, headers)
        let received = Received(bodyBytesMax: bodyBytesMax)
        var list = HeaderList()
        // No 100-continue handshake: it costs a round trip, and the bodies are small.
        list.append("Expect:")
        if body != nil, !headers.contains(where: { $0.name.lowercased() == "content-type" }) {
            list.append("Content-Type: application/octet-stream")
        }
        if let bearerToken { list.append("Authorization: Bearer \(bearerToken)") }
        for header in headers { list.append("\(header.name): \(header.value)") }
        let code = unsafe handle.perform(
            Transfer(
                method: method, url: url(path), target: target, body: body,
                milliseconds: max(1, Int(timeout.milliseconds))),
            list: list.first, received: received)
        return try response(code, received)
    }

    func url(_ path: String) -> String {
        switch target {
        case .unix: "http://localhost\(path)"
        case .tcp(let host, let port) where host.contains(":"): "http://[\(host)]:\(port)\(path)"
        case .tcp(let host, let port): "http://\(host):\(port)\(path)"
        }
    }

    /// Refuses what could smuggle another header or request.
    func check(
        _ method: String, _ path: String, _ headers: [(name: String, value: String)]
    ) throws(HTTPClientError) {
        func isToken(_ text: String) -> Bool {
            !text.isEmpty && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != 0x3A }
        }
        guard isToken(method) else { throw .invalidRequest("method '\(method)'") }
        guard path.hasPrefix("/"), path.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw .invalidRequest("path '\(path)'")
        }
        for header in headers {
            let isClean = header.value.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F }
            guard isToken(header.name), isClean else {
                throw .invalidRequest("header '\(header.name)'")
            }
        }
    }

    func response(
        _ code: CURLcode, _ received: Received
    ) throws(HTTPClientError) -> HTTPResponse {
        if received.isTooLarge { throw .tooLarge(bodyBytesMax) }
        let why = unsafe String(cString: curl_easy_strerror(code))
        switch code {
        case CURLE_OK:
            return HTTPResponse(
                status: handle.status, headers: received.headers, body: received.body)
        case CURLE_OPERATION_TIMEDOUT: throw .deadline(target)
        case CURLE_COULDNT_CONNECT, CURLE_COULDNT_RESOLVE_HOST: throw .unreachable(target, why)
        default: throw .broken(target, why)
        }
    }
}

/// What one transfer is made of.
struct Transfer {
    let method: String
    let url: String
    let target: Endpoint
    let body: [UInt8]?
    /// Of the whole transfer; 0 for a stream, which its pulse ends.
    let milliseconds: Int
    /// Of a stream's connection.
    var connectMilliseconds: Int?
}

/// Owner of libcurl's handle, and with it of the connection.
@safe final class CurlHandle {
    private let pointer: OpaquePointer

    private static let isInitialized: Bool = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

    init() {
        precondition(Self.isInitialized, "libcurl initialises")
        guard let raw = unsafe curl_easy_init() else {
            preconditionFailure("no memory for an HTTP client")
        }
        unsafe pointer = OpaquePointer(raw)
    }

    deinit { unsafe curl_easy_cleanup(raw) }

    private var raw: UnsafeMutableRawPointer { unsafe UnsafeMutableRawPointer(pointer) }

    var status: Int { unsafe fm_curl_status(raw) }

    /// Runs one transfer to its end. Options are set anew each time; the connection stays.
    func perform(
        _ transfer: Transfer, list: UnsafeMutablePointer<curl_slist>?, received: Received
    ) -> CURLcode {
        unsafe curl_easy_reset(raw)
        set(CURLOPT_NOSIGNAL, 1)
        set(CURLOPT_TIMEOUT_MS, transfer.milliseconds)
        set(CURLOPT_CONNECTTIMEOUT_MS, transfer.connectMilliseconds ?? transfer.milliseconds)
        set(CURLOPT_TCP_NODELAY, 1)
        text(CURLOPT_URL, transfer.url)
        text(CURLOPT_PROXY, "")
        text(CURLOPT_CUSTOMREQUEST, transfer.method)
        if transfer.method == "HEAD" { set(CURLOPT_NOBODY, 1) }
        if case .unix(let path) = transfer.target { text(CURLOPT_UNIX_SOCKET_PATH, path) }
        _ = unsafe fm_curl_set_list(raw, CURLOPT_HTTPHEADER, list)
        // SAFETY: `received` and the body live until perform returns, and libcurl uses both only inside it.
        let context = unsafe Unmanaged.passUnretained(received).toOpaque()
        _ = unsafe fm_curl_set_sinks(raw, receiveBody, receiveHeader, context)
        if received.stream != nil { _ = unsafe fm_curl_set_pulse(raw, pulse, context) }
        guard let body = transfer.body else { return unsafe curl_easy_perform(raw) }
        return unsafe body.withUnsafeBytes { bytes in
            set(CURLOPT_POST, 1)
            set(CURLOPT_POSTFIELDSIZE, bytes.count)
            // An empty array has no address; a body of no bytes needs one that is not nil.
            let start = unsafe bytes.baseAddress ?? UnsafeRawPointer(context)
            _ = unsafe fm_curl_set_pointer(raw, CURLOPT_POSTFIELDS, start)
            return unsafe curl_easy_perform(raw)
        }
    }

    private func set(_ option: CURLoption, _ value: Int) {
        let code = unsafe fm_curl_set_number(raw, option, value)
        precondition(code == CURLE_OK, "libcurl knows the option")
    }

    private func text(_ option: CURLoption, _ value: String) {
        let code = unsafe fm_curl_set_text(raw, option, value)
        precondition(code == CURLE_OK, "libcurl takes the text")
    }
}

/// Owner of libcurl's header list.
@safe struct HeaderList: ~Copyable {
    private(set) var first: UnsafeMutablePointer<curl_slist>?

    init() { unsafe first = nil }

    mutating func append(_ line: String) {
        guard let list = unsafe curl_slist_append(first, line) else {
            preconditionFailure("no memory for a header")
        }
        unsafe first = list
    }

    deinit { unsafe curl_slist_free_all(first) }
}

/// Collects a response within its bounds.
final class Received {
    private(set) var body: [UInt8] = []
    private(set) var headers: [(name: String, value: String)] = []
    private(set) var isTooLarge = false
    private let bodyBytesMax: Int
    /// Takes the body of a successful response piece by piece instead of it being collected.
    var stream: ResponseStream?
    private var headerBytes = 0
    private static let headerBytesMax = 64 << 10

    init(bodyBytesMax: Int) { self.bodyBytesMax = bodyBytesMax }

    func takeBody(_ bytes: UnsafeRawBufferPointer) -> Bool {
        if let stream, stream.isSuccess {
            return stream.take(unsafe Array(bytes))
        }
        guard body.count + bytes.count <= bodyBytesMax else {
            isTooLarge = true
            return false
        }
        unsafe body.append(contentsOf: bytes)
        return true
    }

    func takeHeader(_ bytes: UnsafeRawBufferPointer) -> Bool {
        headerBytes += bytes.count
        guard headerBytes <= Self.headerBytesMax else {
            isTooLarge = true
            return false
        }
        let line = unsafe String(decoding: bytes, as: UTF8.self)
        if line.hasPrefix("HTTP/") {
            headers = []
            stream?.noteStatus(line)
        } else if let colon = line.firstIndex(of: ":") {
            let value = line[line.index(after: colon)...]
            let trimmed = value.drop { $0 == " " || $0 == "\t" }
            let end = trimmed.lastIndex { !$0.isWhitespace }.map { trimmed.index(after: $0) }
            headers.append(
                (String(line[..<colon]), String(trimmed[..<(end ?? trimmed.startIndex)])))
        }
        return true
    }
}

private func receiveBody(
    bytes: UnsafeMutablePointer<CChar>?, size: Int, count: Int, context: UnsafeMutableRawPointer?
) -> Int {
    guard let context = unsafe context else { return 0 }
    // SAFETY: the context is the `Received` of the transfer that runs now; libcurl gives size × count bytes.
    let received = unsafe Unmanaged<Received>.fromOpaque(context).takeUnretainedValue()
    let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: size * count)
    return unsafe received.takeBody(buffer) ? size * count : 0
}

private func receiveHeader(
    bytes: UnsafeMutablePointer<CChar>?, size: Int, count: Int, context: UnsafeMutableRawPointer?
) -> Int {
    guard let context = unsafe context else { return 0 }
    // SAFETY: as in receiveBody.
    let received = unsafe Unmanaged<Received>.fromOpaque(context).takeUnretainedValue()
    let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: size * count)
    return unsafe received.takeHeader(buffer) ? size * count : 0
}
