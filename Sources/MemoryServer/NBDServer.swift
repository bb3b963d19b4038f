package import FarMemory
import Glibc
package import LinuxSystem
import PoolProtocol
import Synchronization
package import Telemetry

/// The NBD listeners of a server: one thread accepts, one thread serves each connection.
package final class NBDServer: Sendable {
    private struct State {
        /// Descriptors of the connections being served, by their slot; -1 is free.
        var connections: [Int32]
        /// What the connections' clients call themselves (NBDOption.fence).
        var clients: [[UInt8]]
        var isStopping = false
    }

    private let listener: FileDescriptor
    /// Where it listens, with the port that the kernel chose.
    package let endpoint: Endpoint
    private let exports: any NBDExports
    private let security: NBDSecurity
    private let limits: NBDLimits
    private let counters: NBDCounters
    private let log: Logger
    private let state: Mutex<State>

    /// Starts listening; `run` accepts.
    package init(
        _ endpoint: Endpoint, exports: any NBDExports, security: NBDSecurity, limits: NBDLimits,
        counters: NBDCounters, log: Logger
    ) throws(SystemError) {
        switch endpoint {
        case .unix(let path):
            listener = try listenUnix(path)
            self.endpoint = endpoint
        case .tcp(let host, let port):
            listener = try listenTCP(host, "\(port)")
            self.endpoint = .tcp(host: host, port: UInt16(try listener.localPort()))
        }
        self.exports = exports
        self.security = security
        self.limits = limits
        self.counters = counters
        self.log = log
        state = Mutex(
            State(
                connections: [Int32](repeating: -1, count: limits.connections),
                clients: [[UInt8]](repeating: [], count: limits.connections)))
    }

    /// Accepts until `stop`. Blocks the calling thread.
    package func run() {
        while true {
            do throws(SystemError) {
                try start(listener.accept())
            } catch {
                if state.withLock({ $0.isStopping }) { return }
                log.warn("nbd_accept_failed", ["reason": error.description])
                // Out of descriptors or memory: let others finish before the next try.
                sleepNanoseconds(100_000_000)
            }
        }
    }

    /// Ends accepting and all connections: what they have in flight is answered first. Waits at most
    /// `timeout` nanoseconds for them; true when all have ended.
    package func stop(timeout: Int64) -> Bool {
        state.withLock { state in
            state.isStopping = true
            for descriptor in state.connections where descriptor >= 0 {
                shutdown(descriptor, Int32(SHUT_RD))
            }
        }
        shutdown(listener.rawValue, Int32(SHUT_RDWR))
        if case .unix(let path) = endpoint { unsafe unlink(path) }
        let deadline = monotonicNow() + timeout
        while state.withLock({ $0.connections.contains { $0 >= 0 } }) {
            if monotonicNow() > deadline { return false }
            sleepNanoseconds(5_000_000)
        }
        return true
    }

    private func start(_ connection: consuming FileDescriptor) throws(SystemError) {
        let raw = connection.rawValue
        let slot = state.withLock { state -> Int? in
            guard !state.isStopping, let free = state.connections.firstIndex(of: -1) else {
                return nil
            }
            state.connections[free] = raw
            return free
        }
        guard let slot else {
            counters.connectionsRefused.add()
            log.warn("nbd_connection_refused", ["reason": "too many connections"])
            return
        }
        // From here the thread owns the descriptor.
        _ = connection.release()
        counters.connections.add()
        do throws(SystemError) {
            _ = try WorkerThread("nbd-\(slot)") { self.serve(raw, slot) }
        } catch {
            finish(raw, slot)
            throw error
        }
    }

    /// Names the client of a slot and ends its older connections. What those still carry is done, or dropped,
    /// before this returns true.
    private func fence(_ client: [UInt8], _ slot: Int, deadline: Int64) -> Bool {
        state.withLock { $0.clients[slot] = client }
        while true {
            let older = state.withLock { state -> Bool in
                let others = state.clients.indices.filter {
                    $0 != slot && state.clients[$0] == client && state.connections[$0] >= 0
                }
                for other in others { shutdown(state.connections[other], Int32(SHUT_RDWR)) }
                return !others.isEmpty
            }
            if !older { return true }
            if monotonicNow() > deadline { return false }
            sleepNanoseconds(1_000_000)
        }
    }

    private func finish(_ raw: Int32, _ slot: Int) {
        // The slot is freed before the number can be used again.
        state.withLock {
            $0.connections[slot] = -1
            $0.clients[slot] = []
        }
        close(raw)
    }

    private func serve(_ raw: Int32, _ slot: Int) {
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
        finish(raw, slot)
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
        ) { self.fence($0, slot, deadline: $1) }
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
