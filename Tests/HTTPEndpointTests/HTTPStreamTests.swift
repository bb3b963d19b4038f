import FarMemory
import Glibc
import HTTPEndpoint
import LinuxSystem
import TestSupport
import Testing

/// Responses without an end, from a server of a few lines that says what it is told to.
@Suite(.timeLimit(.minutes(1))) struct HTTPStreamTests {
    /// Serves one connection: the text, and then silence until the client goes, or the end.
    private func serve(
        _ text: String, thenCloses: Bool, _ body: (HTTPClient) throws -> Void
    ) throws {
        // As the programs do: a peer that closes first is no signal.
        ignoreBrokenPipes()
        let directory = try TemporaryDirectory()
        let path = directory.file("s.sock")
        let listener = try listenUnix(path, mode: 0o600)
        let thread = try WorkerThread("server") {
            do throws(SystemError) {
                _ = try waitReady(listener.rawValue, .readable, timeout: 20_000_000_000)
                let peer = try listener.accept()
                try peer.setSocketTimeouts(receive: 20_000_000_000, send: 5_000_000_000)
                // The request is small and comes in one piece.
                var request = [UInt8](repeating: 0, count: 4096)
                let count = unsafe request.withUnsafeMutableBytes {
                    unsafe recv(peer.rawValue, $0.baseAddress, $0.count, 0)
                }
                // None, when the client was told to stop before it had sent it.
                guard count > 0 else { return }
                try peer.writeAll(text)
                // However the client goes, with an end or a reset.
                if !thenCloses { _ = try? readAll(peer, limit: 1 << 16, named: "client") }
            } catch {
                Issue.record("the server: \(error)")
            }
        }
        defer { thread.join() }
        try body(HTTPClient(target: .unix(path: path)))
    }

    private let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    @Test func piecesArriveBeforeTheEndAndTheReceiverMayEndIt() throws {
        try serve(head + "6\r\nfirst\n\r\n7\r\nsecond\n\r\n", thenCloses: false) { client in
            var got: [UInt8] = []
            let (end, refusal) = try client.stream(
                "/events", connectTimeout: .seconds(5),
                receive: {
                    got += $0
                    return got.count < 13
                }, mayGoOn: { true })
            #expect(end == .stopped && refusal == nil)
            #expect(String(decoding: got, as: UTF8.self) == "first\nsecond\n")
        }
    }

    @Test func silenceIsEndedByThePulse() throws {
        try serve(head, thenCloses: false) { client in
            var pulses = 0
            let (end, _) = try client.stream(
                "/events", connectTimeout: .seconds(5), receive: { _ in true },
                mayGoOn: {
                    pulses += 1
                    return pulses < 3
                })
            #expect(end == .stopped && pulses == 3)
        }
    }

    @Test func aFeedThatEndsAndOneThatBreaksAreTold() throws {
        try serve(head + "2\r\nx\n\r\n0\r\n\r\n", thenCloses: true) { client in
            let (end, refusal) = try client.stream(
                "/", connectTimeout: .seconds(5), receive: { _ in true }, mayGoOn: { true })
            #expect(end == .closed && refusal == nil)
        }
        try serve(head + "ff\r\nx\n", thenCloses: true) { client in
            #expect(throws: HTTPClientError.self) {
                try client.stream(
                    "/", connectTimeout: .seconds(5), receive: { _ in true }, mayGoOn: { true })
            }
        }
    }

    @Test func aRefusalIsAResponseAndNoPartOfTheFeed() throws {
        try serve("HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\ngone", thenCloses: true) { client in
            let (_, refusal) = try client.stream(
                "/", connectTimeout: .seconds(5),
                receive: { _ in
                    Issue.record("a refusal reached the receiver")
                    return true
                }, mayGoOn: { true })
            #expect(refusal?.status == 404 && refusal?.text == "gone")
        }
    }
}
