import CMicrohttpd

/// One request while its body arrives. Used only by the thread that serves its connection.
private final class Exchange {
    var body: [UInt8] = []
    var discardedBytes = 0
}

/// A client that goes on sending after it exceeded the limit by this much is cut off.
private let discardBytesMax = 16 << 20

/// libmicrohttpd's access handler: called once when the headers are there, then for each piece of the body, and a last
/// time with none.
func accessHandler(
    context: UnsafeMutableRawPointer?, connection: OpaquePointer?, url: UnsafePointer<CChar>?,
    method: UnsafePointer<CChar>?, version: UnsafePointer<CChar>?,
    upload: UnsafePointer<CChar>?, uploadSize: UnsafeMutablePointer<Int>?,
    state: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> MHD_Result {
    guard let context = unsafe context, let connection = unsafe connection,
        let url = unsafe url, let method = unsafe method, let uploadSize = unsafe uploadSize,
        let state = unsafe state
    else { return .NO }
    // SAFETY: the context is the core that the server keeps alive until its threads have ended.
    let core = unsafe Unmanaged<HTTPServerCore>.fromOpaque(context).takeUnretainedValue()
    guard let opaque = unsafe state.pointee else {
        let exchange = Exchange()
        // SAFETY: retained here, released once in requestCompleted, which always runs for a state that was set.
        unsafe state.pointee = Unmanaged.passRetained(exchange).toOpaque()
        core.begin()
        guard let refusal = unsafe earlyRefusal(core, connection) else { return .YES }
        return unsafe send(refusal, on: connection)
    }
    // SAFETY: set above by this function for this same request.
    let exchange = unsafe Unmanaged<Exchange>.fromOpaque(opaque).takeUnretainedValue()
    let count = unsafe uploadSize.pointee
    if count > 0 {
        // SAFETY: the library gives `count` readable bytes for the length of this call.
        let piece = unsafe UnsafeBufferPointer(start: upload, count: count)
        unsafe uploadSize.pointee = 0
        return unsafe take(piece, into: exchange, limit: core.options.bodyBytesMax) ? .YES : .NO
    }
    guard exchange.discardedBytes == 0 else {
        return unsafe send(bodyTooLarge(core), on: connection)
    }
    let request = unsafe HTTPRequest(
        method: String(cString: method), path: String(cString: url),
        queryItems: values(of: connection, .GET_ARGUMENT_KIND),
        headers: values(of: connection, .HEADER_KIND), body: exchange.body)
    return unsafe send(core.handler(request), on: connection)
}

/// libmicrohttpd's completion callback: the response is sent or the connection broke.
func requestCompleted(
    context: UnsafeMutableRawPointer?, connection: OpaquePointer?,
    state: UnsafeMutablePointer<UnsafeMutableRawPointer?>?,
    code: MHD_RequestTerminationCode
) {
    guard let context = unsafe context, let state = unsafe state, let opaque = unsafe state.pointee
    else { return }
    // SAFETY: balances the retain of accessHandler; the pointer is cleared so that it cannot happen twice.
    unsafe Unmanaged<Exchange>.fromOpaque(opaque).release()
    unsafe state.pointee = nil
    // SAFETY: as in accessHandler.
    unsafe Unmanaged<HTTPServerCore>.fromOpaque(context).takeUnretainedValue().end()
}

/// What can be refused from the headers alone, before a body is read.
private func earlyRefusal(_ core: HTTPServerCore, _ connection: OpaquePointer) -> HTTPResponse? {
    guard core.isAuthorized(unsafe header("Authorization", of: connection)) else {
        var response = HTTPResponse.error(401, "this endpoint needs a bearer token")
        response.headers.append(("WWW-Authenticate", "Bearer"))
        return response
    }
    if let text = unsafe header("Content-Length", of: connection), let length = UInt64(text),
        length > UInt64(core.options.bodyBytesMax)
    {
        return bodyTooLarge(core)
    }
    return nil
}

private func bodyTooLarge(_ core: HTTPServerCore) -> HTTPResponse {
    .error(413, "the body is larger than \(core.options.bodyBytesMax) bytes")
}

/// Adds a piece of the body; past the limit it is dropped, so that the client reads a 413 instead of a reset. False when
/// the client does not stop.
private func take(
    _ piece: UnsafeBufferPointer<CChar>, into exchange: Exchange, limit: Int
) -> Bool {
    if exchange.discardedBytes == 0, exchange.body.count + piece.count <= limit {
        unsafe exchange.body.append(contentsOf: piece.lazy.map { UInt8(bitPattern: $0) })
        return true
    }
    exchange.body = []
    exchange.discardedBytes += piece.count
    return exchange.discardedBytes <= discardBytesMax
}

private func header(_ name: String, of connection: OpaquePointer) -> String? {
    guard let text = unsafe MHD_lookup_connection_value(connection, .HEADER_KIND, name) else {
        return nil
    }
    return unsafe String(cString: text)
}

private typealias Values = [(name: String, value: String)]

/// All headers or query items of a request, copied.
private func values(of connection: OpaquePointer, _ kind: MHD_ValueKind) -> Values {
    var values: Values = []
    unsafe withUnsafeMutablePointer(to: &values) { pointer in
        // SAFETY: the callback runs only during this call, while the pointer is valid, on this thread.
        _ = unsafe MHD_get_connection_values(connection, kind, appendValue, pointer)
    }
    return values
}

private func appendValue(
    context: UnsafeMutableRawPointer?, kind: MHD_ValueKind, key: UnsafePointer<CChar>?,
    value: UnsafePointer<CChar>?
) -> MHD_Result {
    guard let context = unsafe context, let key = unsafe key else { return .NO }
    let list = unsafe context.assumingMemoryBound(to: Values.self)
    let text = unsafe value.map { unsafe String(cString: $0) } ?? ""
    unsafe list.pointee.append((String(cString: key), text))
    return .YES
}

/// Queues a response. A header that HTTP cannot carry turns it into a 500: it is a bug in the handler.
private func send(_ response: HTTPResponse, on connection: OpaquePointer) -> MHD_Result {
    guard let message = unsafe makeMessage(response) else {
        let failure = HTTPResponse.error(500, "the handler gave a header that HTTP cannot carry")
        guard let fallback = unsafe makeMessage(failure) else { return .NO }
        defer { unsafe MHD_destroy_response(fallback) }
        return unsafe MHD_queue_response(connection, 500, fallback)
    }
    defer { unsafe MHD_destroy_response(message) }
    return unsafe MHD_queue_response(connection, UInt32(response.status), message)
}

private func makeMessage(_ response: HTTPResponse) -> OpaquePointer? {
    var body = response.body
    // SAFETY: the library copies the bytes before the call returns.
    let message = unsafe body.withUnsafeMutableBytes {
        unsafe MHD_create_response_from_buffer($0.count, $0.baseAddress, .RESPMEM_MUST_COPY)
    }
    guard let message = unsafe message else { return nil }
    for (name, value) in response.headers {
        guard unsafe MHD_add_response_header(message, name, value) == .YES else {
            unsafe MHD_destroy_response(message)
            return nil
        }
    }
    return unsafe message
}
