import FarMemory
import Glibc
import HTTPEndpoint
import JSONText
import LinuxSystem
import Synchronization
import TestSupport
import Testing

/// Answers with what it was asked.
@Sendable private func echo(_ request: HTTPRequest) -> HTTPResponse {
    switch request.path {
    case "/echo":
        return HTTPResponse(
            status: 200,
            headers: [("X-Method", request.method), ("X-A", request.query("a") ?? "-")],
            body: request.body)
    case "/header": return .text(request.header("x-test") ?? "none")
    case "/large": return HTTPResponse(status: 200, body: [UInt8](repeating: 7, count: 3 << 20))
    case "/slow":
        sleepNanoseconds(300_000_000)
        return .text("slow")
    case "/stuck":
        sleepNanoseconds(2_000_000_000)
        return .text("late")
    case "/bad": return HTTPResponse(status: 200, headers: [("X-Bad", "a\r\nX-Injected: 1")])
    default: return .notFound
    }
}

private func options(_ change: (inout HTTPServerOptions) -> Void) -> HTTPServerOptions {
    var options = HTTPServerOptions()
    change(&options)
    return options
}

private func withServer(
    _ endpoint: Endpoint, _ options: HTTPServerOptions = HTTPServerOptions(),
    _ body: (HTTPServer, HTTPClient) throws -> Void
) throws {
    let server = try HTTPServer(listen: endpoint, options: options, handler: echo)
    defer { server.stop() }
    try body(server, HTTPClient(target: server.endpoint, bearerToken: options.bearerToken))
}

private func get(_ client: HTTPClient, _ path: String) throws -> HTTPResponse {
    try client.request("GET", path, timeout: .seconds(5))
}

private func expectStatus(_ client: HTTPClient, _ path: String, _ status: Int) throws {
    let response = try get(client, path)
    #expect(response.status == status)
}

private let loopback = Endpoint.tcp(host: "127.0.0.1", port: 0)

/// Sends raw bytes and reads what comes until the peer closes or `seconds` pass.
private func exchange(
    _ endpoint: Endpoint, _ text: String, seconds: Double = 2, thenClose: Bool = false
) throws -> String {
    guard case .tcp(let host, let port) = endpoint else { return "" }
    let socket = try connectTCP(host, "\(port)", timeout: 1_000_000_000)
    try socket.setSocketTimeouts(receive: UInt64(seconds * 1e9), send: 1_000_000_000)
    try? socket.writeAll(text)
    if thenClose { return "" }
    var answer: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while true {
        let count =
            (try? unsafe chunk.withUnsafeMutableBytes { try unsafe socket.read(into: $0) }) ?? 0
        if count == 0 { return String(decoding: answer, as: UTF8.self) }
        answer += chunk[..<count]
    }
}

@Suite struct HTTPEndpointTests {
    @Test(arguments: [HTTPServerOptions.Threads.perConnection, .pool(1), .pool(2)])
    func requestsAndResponsesArriveWhole(threads: HTTPServerOptions.Threads) throws {
        try withServer(loopback, options { $0.threads = threads }) { _, client in
            for size in [0, 1, 5000, 1 << 20] {
                let body = (0..<size).map { UInt8(truncatingIfNeeded: $0) }
                let response = try client.request(
                    "POST", "/echo?a=x%20y%26z&b", body: body, timeout: .seconds(5))
                #expect(response.status == 200)
                #expect(response.body == body)
                #expect(response.header("x-method") == "POST")
                #expect(response.header("X-A") == "x y&z")
            }
            let header = try client.request(
                "GET", "/header", headers: [("X-Test", "v 1")], timeout: .seconds(5))
            #expect(header.text == "v 1")
            try expectStatus(client, "/none", 404)
            #expect(try client.request("HEAD", "/echo", timeout: .seconds(5)).status == 200)
            #expect(
                try client.request("DELETE", "/echo", timeout: .seconds(5)).header("X-Method")
                    == "DELETE")
        }
    }

    @Test func unixSocketIsPrivateAndCleanedUp() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("s")
        try withServer(.unix(path: path)) { _, client in
            try expectStatus(client, "/echo", 200)
            var information = stat()
            #expect(unsafe stat(path, &information) == 0)
            #expect(information.st_mode & 0o777 == 0o600)
            #expect { try HTTPServer(listen: .unix(path: path), handler: echo) } throws: {
                ($0 as? SystemError)?.code == EADDRINUSE
            }
        }
        #expect(!fileExists(path))
    }

    @Test func aStaleSocketIsReplacedButAFileIsNot() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("s")
        do { _ = try listenUnix(path) }
        #expect(fileExists(path))
        try withServer(.unix(path: path)) { _, client in
            try expectStatus(client, "/echo", 200)
        }
        let file = directory.file("f")
        try replaceFile(file, with: "precious")
        #expect(throws: SystemError.self) {
            try HTTPServer(listen: .unix(path: file), handler: echo)
        }
        #expect(try readSmallText(file) == "precious")
    }

    @Test func bearerTokenIsRequired() throws {
        try withServer(loopback, options { $0.bearerToken = "s3cret" }) { server, client in
            try expectStatus(client, "/echo", 200)
            for token in [nil, "", "s3cre", "s3crets", "S3CRET"] {
                let stranger = HTTPClient(target: server.endpoint, bearerToken: token)
                let response = try stranger.request(
                    "POST", "/echo", body: [1], timeout: .seconds(5))
                #expect(response.status == 401, "\(token ?? "none")")
            }
        }
    }

    @Test func oversizedBodiesAreRefusedAndTheServerLives() throws {
        try withServer(loopback, options { $0.bodyBytesMax = 1000 }) { server, client in
            let large = [UInt8](repeating: 1, count: 100_000)
            let response = try client.request("POST", "/echo", body: large, timeout: .seconds(5))
            #expect(response.status == 413)
            let piece = "3e8\r\n" + String(repeating: "x", count: 1000) + "\r\n"
            let chunked = try exchange(
                server.endpoint,
                "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\(piece)\(piece)0\r\n\r\n",
                seconds: 1)
            #expect(chunked.hasPrefix("HTTP/1.1 413"))
            let exact = try client.request(
                "POST", "/echo", body: Array(large.prefix(1000)), timeout: .seconds(5))
            #expect(exact.body.count == 1000)
        }
    }

    @Test func malformedRequestsHarmNobody() throws {
        try withServer(loopback) { server, client in
            let huge = String(repeating: "h", count: 100_000)
            for text in [
                "\r\n\r\n", "GARBAGE\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
                "GET /echo HTTP/1.1\r\n\r\n", "GET /\(huge) HTTP/1.1\r\nHost: x\r\n\r\n",
                "GET /echo HTTP/1.1\r\nHost: x\r\nX: \(huge)\r\n\r\n",
                "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
                "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                "\u{0}\u{1}\u{2}\r\n\r\n",
            ] {
                let answer = try exchange(server.endpoint, text, seconds: 0.3)
                #expect(!answer.contains(" 200 "), "\(text.prefix(60))")
            }
            for text in [
                "", "GET /ec", "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12",
            ] {
                _ = try exchange(server.endpoint, text, thenClose: true)
            }
            try expectStatus(client, "/echo", 200)
        }
    }

    @Test func silentConnectionsAreClosed() throws {
        try withServer(loopback, options { $0.idleTimeout = .seconds(1) }) { server, _ in
            let start = monotonicNow()
            _ = try exchange(server.endpoint, "GET /echo HTTP/1.1\r\n", seconds: 10)
            #expect(monotonicNow() - start < 5_000_000_000)
        }
    }

    @Test func aBadHeaderFromAHandlerIsAnError() throws {
        try withServer(loopback) { _, client in
            let response = try client.request("GET", "/bad", timeout: .seconds(5))
            #expect(response.status == 500)
            #expect(response.header("X-Injected") == nil)
        }
    }

    @Test func stopWaitsForRequestsInProgress() throws {
        let server = try HTTPServer(
            listen: loopback,
            options: options { $0.threads = .perConnection },
            handler: echo)
        let answer = Mutex("")
        let endpoint = server.endpoint
        let thread = try WorkerThread("client") {
            let client = HTTPClient(target: endpoint)
            let text = (try? client.request("GET", "/slow", timeout: .seconds(5)).text) ?? "failed"
            answer.withLock { $0 = text }
        }
        sleepNanoseconds(100_000_000)
        server.stop()
        thread.join()
        #expect(answer.withLock { $0 } == "slow")
        let client = HTTPClient(target: endpoint)
        #expect(throws: HTTPClientError.self) {
            try client.request("GET", "/echo", timeout: .seconds(1))
        }
    }
}

@Suite struct HTTPClientTests {
    @Test func errorsAreTyped() throws {
        let nobody = Endpoint.unix(path: "/nonexistent/socket")
        #expect {
            try HTTPClient(target: nobody).request("GET", "/", timeout: .seconds(1))
        } throws: {
            if case .unreachable(nobody, _)? = $0 as? HTTPClientError { true } else { false }
        }
        try withServer(loopback, options { $0.threads = .perConnection }) { server, client in
            let start = monotonicNow()
            #expect { try client.request("GET", "/stuck", timeout: .milliseconds(50)) } throws: {
                ($0 as? HTTPClientError) == .deadline(server.endpoint)
            }
            #expect(monotonicNow() - start < 1_500_000_000)
            let small = HTTPClient(target: server.endpoint, bodyBytesMax: 1 << 20)
            #expect { try small.request("GET", "/large", timeout: .seconds(5)) } throws: {
                ($0 as? HTTPClientError) == .tooLarge(1 << 20)
            }
            try expectStatus(small, "/echo", 200)
        }
    }

    @Test func requestsCannotBeSmuggled() throws {
        try withServer(loopback) { _, client in
            for path in ["", "echo", "/a b", "/a\r\nX: y", "/\u{7F}", "/é"] {
                #expect(throws: HTTPClientError.self, "\(path)") {
                    try client.request("GET", path, timeout: .seconds(1))
                }
            }
            #expect(throws: HTTPClientError.self) {
                try client.request("GET /x", "/", timeout: .seconds(1))
            }
            #expect(throws: HTTPClientError.self) {
                try client.request("GET", "/", headers: [("X", "a\r\nY: b")], timeout: .seconds(1))
            }
        }
    }

    @Test func aServerThatTalksNonsenseIsBroken() throws {
        let listener = try listenTCP("127.0.0.1", "0")
        let port = UInt16(try listener.localPort())
        let raw = listener.release()
        let thread = try WorkerThread("nonsense") {
            let listener = FileDescriptor(owning: raw)
            if let socket = try? listener.accept() { try? socket.writeAll("nonsense\r\n\r\n") }
        }
        defer { thread.join() }
        let client = HTTPClient(target: .tcp(host: "127.0.0.1", port: port))
        #expect {
            try client.request("GET", "/", timeout: .seconds(5))
        } throws: {
            if case .broken? = $0 as? HTTPClientError { true } else { false }
        }
    }

    @Test func aDeadPersistentConnectionIsReplaced() throws {
        let directory = try TemporaryDirectory()
        let endpoint = Endpoint.unix(path: directory.file("s"))
        let client = HTTPClient(target: endpoint)
        for _ in 0..<3 {
            let server = try HTTPServer(listen: endpoint, handler: echo)
            try expectStatus(client, "/echo", 200)
            try expectStatus(client, "/echo", 200)
            server.stop()
        }
    }

    @Test func percentEncoding() {
        #expect(PercentEncoding.encode("a b/é~") == "a%20b%2F%C3%A9~")
        #expect(PercentEncoding.query([("a", "1&2"), ("b", "")]) == "?a=1%262&b=")
        #expect(PercentEncoding.query([]) == "")
    }
}
