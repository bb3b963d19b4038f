package import FarMemory
package import LinuxSystem
package import MemoryPool
package import PoolProtocol
package import Telemetry

/// The shared-memory listener: hands leases' files to clients on this machine and grants slabs.
package final class ShmServer: Sendable {
    static let version: UInt16 = 1

    let pool: MemoryPool
    /// nil: everyone who can connect is let in.
    let keys: [SharedKey]?
    let autoLease: ByteCount?
    let limits: ShmLimits
    let counters: ShmCounters
    let log: Logger
    private let table: ConnectionTable

    /// Starts listening on a unix socket of mode 0600; `run` accepts.
    package init(
        path: String, pool: MemoryPool, keys: [SharedKey]?, autoLease: ByteCount?,
        limits: ShmLimits, counters: ShmCounters, log: Logger
    ) throws(SystemError) {
        table = ConnectionTable(
            try listenUnix(path), socketPath: path, name: "shm", limit: limits.sessions, log: log)
        self.pool = pool
        self.keys = keys
        self.autoLease = autoLease
        self.limits = limits
        self.counters = counters
        self.log = log
    }

    /// Accepts until `stop`. Blocks the calling thread.
    package func run() {
        table.run { raw in
            counters.sessionsRefused.add()
            let channel = FrameChannel(descriptor: raw, frameTime: 0)
            _ = channel.send(.error(.limit, "the server has all sessions it allows"), cookie: 0)
        } serve: { raw, _ in
            self.serve(raw)
        }
    }

    /// Ends accepting and all sessions; a request being answered is finished. Waits at most `timeout`
    /// nanoseconds; true when all have ended. Leases stay for their clients to come back to.
    package func stop(timeout: Int64) -> Bool { table.stop(timeout: timeout) }

    private func serve(_ raw: Int32) {
        counters.sessions.add()
        counters.sessionsOpen.add(1)
        var session = ShmSession(
            server: self,
            channel: FrameChannel(descriptor: raw, frameTime: limits.frame.nanoseconds))
        session.run()
        counters.sessionsOpen.add(-1)
    }

    /// Frees what a client allocated outside of its grants, and says so.
    func audit(_ lease: Lease) {
        do throws(PoolError) {
            let freed = try lease.audit()
            guard freed.bytes > 0 else { return }
            counters.strayBytes.add(freed.bytes)
            log.warn("lease_stray_memory", ["lease": lease.name, "freed": freed])
        } catch {
            log.error("lease_audit_failed", ["lease": lease.name, "reason": error.description])
        }
    }

    /// Audits every lease that a client has mapped. From a housekeeping thread.
    package func auditOpenLeases() {
        for status in pool.leases() where status.isExclusive { audit(status.lease) }
    }
}
