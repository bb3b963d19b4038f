package import FarMemory
package import LinuxSystem
package import MemoryPool
package import PoolProtocol
package import Telemetry
import Verbs

/// The RDMA listener: control queues, each served by a thread, and data queues that need nobody.
///
/// One thread takes the connection manager's events and passes them on; whatever belongs to a session belongs to that
/// session's thread. A client's READs and WRITEs meet no code of this process.
package final class RDMAServer: Sendable {
    static let version: UInt16 = 1

    let pool: MemoryPool
    /// nil: everyone who can connect is let in.
    let keys: [SharedKey]?
    let autoLease: ByteCount?
    let limits: RDMALimits
    let counters: RDMACounters
    let log: Logger
    let table: RDMASessionTable
    /// Where it listens, with the port that the kernel chose.
    package let endpoint: Endpoint
    private let channel: RDMAChannel
    private let listener: RDMAConnection
    private let wake: EventSignal

    /// Starts listening; `run` accepts.
    /// - Throws: `ENODEV` where the kernel has no RDMA device, or none with that address.
    package init(
        host: String, port: UInt16, pool: MemoryPool, keys: [SharedKey]?, autoLease: ByteCount?,
        limits: RDMALimits, counters: RDMACounters, log: Logger
    ) throws(SystemError) {
        wake = try EventSignal()
        channel = try RDMAChannel()
        listener = try RDMAConnection(
            listeningOn: host, port: port, channel, backlog: 128, context: 0)
        endpoint = .tcp(host: host, port: listener.localPort)
        table = RDMASessionTable(limits)
        self.pool = pool
        self.keys = keys
        self.autoLease = autoLease
        self.limits = limits
        self.counters = counters
        self.log = log
    }

    /// Accepts until `stop`. Blocks the calling thread.
    package func run() {
        do throws(SystemError) {
            let poller = try Poller()
            try poller.add(channel.descriptor, .readable, token: 0)
            try poller.add(wake.descriptor.rawValue, .readable, token: 1)
            while !table.isStopping {
                try poller.wait(timeoutMilliseconds: -1) { _, _ in }
                // A bounded number at a time, so that a flood does not keep `stop` out.
                for _ in 0..<256 {
                    guard let event = try channel.next() else { break }
                    handle(event)
                }
            }
        } catch {
            log.error("rdma_listener_failed", ["reason": error.description])
        }
    }

    /// Ends accepting and all sessions; a request being answered is finished. Waits at most `timeout`
    /// nanoseconds; true when all have ended. Leases stay for their clients to come back to.
    package func stop(timeout: Int64) -> Bool {
        table.stop()
        wake.signal()
        let deadline = monotonicNow() + timeout
        while !table.isEmpty {
            if monotonicNow() > deadline { return false }
            sleepNanoseconds(2_000_000)
        }
        return true
    }

    private func handle(_ event: RDMAEvent) {
        switch event.kind {
        case .connectRequest:
            guard let connection = event.connection else { return }
            request(connection, event)
        case .disconnected, .unreachable, .rejected, .deviceRemoved:
            if event.context == 0 {
                log.error("rdma_listener_failed", ["reason": "its device was removed"])
            } else if let (entry, queue) = table.find(context: event.context) {
                // At most one such notice for each queue, so no limit of its own.
                _ = entry.post(queue == 0 ? .end(.closed) : .queueClosed(queue), limit: .max)
            }
        default: break
        }
    }

    private func request(_ connection: RDMAConnection, _ event: RDMAEvent) {
        let wanted: RDMAConnectRequest
        do throws(ControlDecodeError) {
            wanted = try RDMAConnectRequest.decode(event.privateData)
        } catch {
            return refuse(
                connection, .badRequest, "this is a memserver; the request is not for one")
        }
        guard wanted.versions.contains(Self.version) else {
            return refuse(connection, .version, "this server speaks version \(Self.version)")
        }
        if wanted.queue > 0 { return requestData(connection, wanted, readsIn: Int(event.readsIn)) }
        do throws(SystemError) {
            guard let entry = try table.add() else {
                return refuse(connection, .limit, "the server has all sessions it allows")
            }
            connection.setContext(entry.context)
            do throws(SystemError) {
                _ = try WorkerThread("rdma-session") {
                    self.serve(entry, connection)
                }
            } catch {
                _ = table.remove(entry)
                throw error
            }
        } catch {
            log.warn("rdma_accept_failed", ["reason": error.description])
            refuse(connection, .internal, "the server has no room for another session")
        }
    }

    private func requestData(
        _ connection: RDMAConnection, _ wanted: RDMAConnectRequest, readsIn: Int
    ) {
        guard let entry = table.find(number: wanted.session, token: wanted.token) else {
            return refuseData(connection)
        }
        connection.setContext(entry.context | UInt64(wanted.queue))
        let notice = RDMANotice.queue(wanted.queue, connection, readsIn: readsIn)
        if !entry.post(notice, limit: Int(limits.queues)) { refuseData(connection) }
    }

    private func refuse(_ connection: RDMAConnection, _ code: ControlErrorCode, _ text: String) {
        counters.connectionsRefused.add()
        log.warn("rdma_connection_refused", ["reason": text])
        connection.reject(RDMAReject(code, text).encoded())
        connection.end()
    }

    /// Taken numbers, unknown sessions and wrong tokens are told apart in no way.
    func refuseData(_ connection: RDMAConnection) {
        refuse(connection, .unauthorized, "no such session, token or free queue")
    }

    private func serve(_ entry: RDMASessionEntry, _ connection: RDMAConnection) {
        counters.sessions.add()
        counters.sessionsOpen.add(1)
        let session = RDMASession(self, entry)
        let end = session.run(connection)
        connection.end()
        for notice in table.remove(entry) {
            if case .queue(_, let connection, _) = notice { refuseData(connection) }
        }
        counters.sessionsOpen.add(-1)
        report(end, session)
    }

    private func report(_ end: RDMASessionEnd, _ session: RDMASession) {
        let lease = session.leaseName ?? "-"
        switch end {
        case .closed, .shuttingDown:
            log.info("rdma_session_end", ["client": session.clientName, "lease": lease])
            return
        case .silent: counters.sessionsSilent.add()
        default: counters.sessionsRefused.add()
        }
        log.warn(
            "rdma_session_end",
            ["client": session.clientName, "lease": lease, "reason": end.description])
    }
}

extension RDMASessionEnd: CustomStringConvertible {
    var description: String {
        switch self {
        case .closed: "closed"
        case .malformed(let what): "malformed: \(what)"
        case .tooSlow: "too slow"
        case .silent: "nothing was heard of it"
        case .replaced: "another session has taken its place"
        case .shuttingDown: "the server is going down"
        case .failed(let error): "\(error)"
        case .refused: "refused"
        }
    }
}
