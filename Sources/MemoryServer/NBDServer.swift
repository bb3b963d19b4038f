package import FarMemory
package import LinuxSystem
import PoolProtocol
package import Telemetry

/// The NBD listeners of a server: one thread accepts, one thread serves each connection.
package final class NBDServer: Sendable {
    private let table: ConnectionTable
    /// Where it listens, with the port that the kernel chose.
    package let endpoint: Endpoint
    private let exports: any NBDExports
    private let security: NBDSecurity
    private let limits: NBDLimits
    private let counters: NBDCounters
    private let log: Logger

    /// Starts listening; `run` accepts.
    package init(
        _ endpoint: Endpoint, exports: any NBDExports, security: NBDSecurity, limits: NBDLimits,
        counters: NBDCounters, log: Logger
    ) throws(SystemError) {
        let listener: FileDescriptor
        var socketPath: String?
        switch endpoint {
        case .unix(let path):
            listener = try listenUnix(path)
            socketPath = path
            self.endpoint = endpoint
        case .tcp(let host, let port):
            listener = try listenTCP(host, "\(port)")
            self.endpoint = .tcp(host: host, port: UInt16(try listener.localPort()))
        }
        table = ConnectionTable(
            listener, socketPath: socketPath, name: "nbd", limit: limits.connections, log: log)
        self.exports = exports
        self.security = security
        self.limits = limits
        self.counters = counters
        self.log = log
    }

    /// Accepts until `stop`. Blocks the calling thread.
    package func run() {
        table.run { _ in
            counters.connectionsRefused.add()
            log.warn("nbd_connection_refused", ["reason": "too many connections"])
        } serve: {
            self.serve($0, $1)
        }
    }

    /// Ends accepting and all connections: what they have in flight is answered first. Waits at most
    /// `timeout` nanoseconds for them; true when all have ended.
    package func stop(timeout: Int64) -> Bool { table.stop(timeout: timeout) }

    private func serve(_ raw: Int32, _ slot: Int) {
        counters.connections.add()
        counters.connectionsOpen.add(1)
        let end = converse(raw, slot)
        counters.connectionsOpen.add(-1)
        switch end {
        case .disconnected, .closed, .shuttingDown:
            log.debug("nbd_connection_end", ["slot": slot, "reason": end.rawValue])
        default:
            counters.connectionsRefused.add()
            log.warn("nbd_connection_end", ["slot": slot, "reason": end.rawValue])
        }
    }

    private func converse(_ raw: Int32, _ slot: Int) -> NBDConnectionEnd {
        do throws(SystemError) {
            if case .tcp = endpoint { try check("setsockopt") { setNoDelay(raw) } }
            try check("setsockopt") {
                setTimeouts(
                    raw, receive: min(5_000_000_000, limits.request.nanoseconds),
                    send: limits.send.nanoseconds)
            }
        } catch {
            return .closed
        }
        let transport = NBDTransport(descriptor: raw, sendTimeout: limits.send.nanoseconds)
        defer { transport.end() }
        var negotiator = NBDNegotiator(
            transport, exports: exports, security: security,
            deadline: monotonicNow() + limits.handshake.nanoseconds
        ) { self.table.fence($0, slot, deadline: $1) }
        let agreed: (NBDAgreement, NBDOpenExport)
        do throws(NBDRefusal) {
            agreed = try negotiator.run()
        } catch {
            if !error.reason.isEmpty { log.warn("nbd_client_refused", ["reason": error.reason]) }
            return error.end
        }
        defer { agreed.1.close() }
        do throws(SystemError) {
            return try NBDConnection(
                transport, agreed.0, limits: limits, counters: counters, shard: slot
            ).run()
        } catch {
            log.error("nbd_connection_memory", ["reason": error.description])
            return .refused
        }
    }
}
