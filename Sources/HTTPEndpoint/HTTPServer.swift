import CHTTPShims
import CMicrohttpd
package import FarMemory
import Glibc
package import LinuxSystem
import Synchronization

/// Bounds and behaviour of a server.
package struct HTTPServerOptions: Sendable {
    package enum Threads: Sendable, Equatable {
        /// A handler may block; the number of connections bounds the number of threads.
        case perConnection
        /// A fixed number of threads, each serving many connections: for handlers that answer at once.
        case pool(Int)
    }

    package var threads: Threads = .pool(1)
    /// Connections at a time; more wait in the listen queue.
    package var connectionsMax = 64
    /// A request with a larger body gets 413.
    package var bodyBytesMax = 1 << 20
    /// Bytes of request line and headers; more gets 414 or 431.
    package var headBytesMax = 16 << 10
    /// A connection that stays silent this long is closed.
    package var idleTimeout = Nanoseconds.seconds(30)
    /// When set, a request without `Authorization: Bearer TOKEN` gets 401.
    package var bearerToken: String?
    /// Mode of a unix socket.
    package var socketMode: UInt32 = 0o600

    package init() {}
}

/// An HTTP server on one endpoint. It runs from `init` to `stop()`, on its own threads.
package final class HTTPServer: Sendable {
    package typealias Handler = @Sendable (HTTPRequest) -> HTTPResponse

    /// Where it listens; a TCP port of 0 is replaced by the one the kernel chose.
    package let endpoint: Endpoint
    private let core: HTTPServerCore
    private let daemon: Mutex<DaemonHandle?>

    /// The daemon's address, moved between threads under the mutex.
    @safe private struct DaemonHandle: @unchecked Sendable {
        // SAFETY: libmicrohttpd's daemon may be stopped from any thread; the mutex lets only one do it, once.
        let pointer: OpaquePointer
    }

    /// Listens and starts serving. A unix socket nobody answers on is replaced; one that answers is EADDRINUSE.
    package init(
        listen endpoint: Endpoint, options: HTTPServerOptions = HTTPServerOptions(),
        handler: @escaping Handler
    ) throws(SystemError) {
        let socket: FileDescriptor
        switch endpoint {
        case .unix(let path):
            socket = try listenUnix(path, mode: options.socketMode)
            self.endpoint = endpoint
        case .tcp(let host, let port):
            socket = try listenTCP(host, "\(port)")
            self.endpoint = .tcp(host: host, port: UInt16(try socket.localPort()))
        }
        core = HTTPServerCore(options: options, handler: handler)
        var threads: UInt32 = 0
        if case .pool(let count) = options.threads {
            precondition(count > 0, "a pool needs a thread")
            threads = UInt32(count)
        }
        var raw = fm_http_server_options()
        raw.listen_socket = socket.release()
        raw.threads = threads
        raw.connections_max = UInt32(options.connectionsMax)
        raw.idle_timeout_s = UInt32(max(1, options.idleTimeout.seconds))
        raw.connection_memory = options.headBytesMax * 2
        raw.thread_stack = 512 << 10
        // SAFETY: the core is kept alive by this object, and the daemon's threads end in stop(), before it goes.
        let context = unsafe Unmanaged.passUnretained(core).toOpaque()
        guard
            let started = unsafe fm_http_server_start(
                &raw, accessHandler, requestCompleted, context)
        else {
            let failure = SystemError(call: "start the HTTP server", code: errno == 0 ? EIO : errno)
            close(raw.listen_socket)
            daemon = Mutex(nil)
            throw failure
        }
        daemon = Mutex(unsafe DaemonHandle(pointer: started))
    }

    /// Stops accepting, lets requests in progress finish for at most `drain`, and ends all threads. A handler that
    /// still runs then is waited for: handlers must have deadlines of their own. Idempotent.
    package func stop(drain: Nanoseconds = .seconds(5)) {
        let handle = daemon.withLock { handle in
            let taken = handle
            handle = nil
            return taken
        }
        guard let handle else { return }
        // quiesce gives the listening socket back to us.
        let socket = unsafe MHD_quiesce_daemon(handle.pointer)
        if socket >= 0 { close(socket) }
        if case .unix(let path) = endpoint { _ = unsafe unlink(path) }
        let deadline = monotonicNow() + drain.nanoseconds
        while core.inProgress > 0, monotonicNow() < deadline { sleepNanoseconds(1_000_000) }
        unsafe MHD_stop_daemon(handle.pointer)
    }

    deinit { stop() }
}

/// What the C callbacks see of a server.
final class HTTPServerCore: Sendable {
    let options: HTTPServerOptions
    let handler: HTTPServer.Handler
    private let exchanges = Atomic<Int>(0)

    init(options: HTTPServerOptions, handler: @escaping HTTPServer.Handler) {
        self.options = options
        self.handler = handler
    }

    var inProgress: Int { exchanges.load(ordering: .relaxed) }

    func begin() { exchanges.wrappingAdd(1, ordering: .relaxed) }
    func end() { exchanges.wrappingSubtract(1, ordering: .relaxed) }

    func isAuthorized(_ header: String?) -> Bool {
        guard let token = options.bearerToken else { return true }
        let expected = Array("Bearer \(token)".utf8)
        let given = Array((header ?? "").utf8)
        // No early exit: the time must not tell how much of a guess is right.
        var difference = UInt8(given.count == expected.count ? 0 : 1)
        for (index, byte) in expected.enumerated() {
            difference |= byte ^ (index < given.count ? given[index] : 0)
        }
        return difference == 0
    }
}
