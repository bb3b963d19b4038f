package import FarMemory
import Glibc
package import LinuxSystem
package import MemoryPool
package import PoolProtocol
import Synchronization
package import Telemetry

/// The shared-memory listener: hands leases' files to clients on this machine and grants slabs.
package final class ShmServer: Sendable {
    static let version: UInt16 = 1

    private struct State {
        /// Descriptors of the sessions being served, by their slot; -1 is free.
        var sessions: [Int32]
        var isStopping = false
    }

    let pool: MemoryPool
    /// nil: everyone who can connect is let in.
    let keys: [SharedKey]?
    let autoLease: ByteCount?
    let limits: ShmLimits
    let counters: ShmCounters
    let log: Logger
    private let path: String
    private let listener: FileDescriptor
    private let state: Mutex<State>

    /// Starts listening on a unix socket of mode 0600; `run` accepts.
    package init(
        path: String, pool: MemoryPool, keys: [SharedKey]?, autoLease: ByteCount?,
        limits: ShmLimits, counters: ShmCounters, log: Logger
    ) throws(SystemError) {
        listener = try listenUnix(path)
        self.path = path
        self.pool = pool
        self.keys = keys
        self.autoLease = autoLease
        self.limits = limits
        self.counters = counters
        self.log = log
        state = Mutex(State(sessions: [Int32](repeating: -1, count: limits.sessions)))
    }

    /// Accepts until `stop`. Blocks the calling thread.
    package func run() {
        while true {
            do throws(SystemError) {
                try start(listener.accept())
            } catch {
                if state.withLock({ $0.isStopping }) { return }
                log.warn("shm_accept_failed", ["reason": error.description])
                // Out of descriptors or memory: let others finish before the next try.
                sleepNanoseconds(100_000_000)
            }
        }
    }

    /// Ends accepting and all sessions; a request being answered is finished. Waits at most `timeout`
    /// nanoseconds; true when all have ended. Leases stay for their clients to come back to.
    package func stop(timeout: Int64) -> Bool {
        state.withLock { state in
            state.isStopping = true
            for descriptor in state.sessions where descriptor >= 0 {
                shutdown(descriptor, Int32(SHUT_RD))
            }
        }
        shutdown(listener.rawValue, Int32(SHUT_RDWR))
        unsafe unlink(path)
        let deadline = monotonicNow() + timeout
        while state.withLock({ $0.sessions.contains { $0 >= 0 } }) {
            if monotonicNow() > deadline { return false }
            sleepNanoseconds(5_000_000)
        }
        return true
    }

    private func start(_ connection: consuming FileDescriptor) throws(SystemError) {
        let raw = connection.rawValue
        let slot = state.withLock { state -> Int? in
            guard !state.isStopping, let free = state.sessions.firstIndex(of: -1) else {
                return nil
            }
            state.sessions[free] = raw
            return free
        }
        guard let slot else {
            counters.sessionsRefused.add()
            let channel = FrameChannel(descriptor: raw, frameTime: 0)
            _ = channel.send(.error(.limit, "the server has all sessions it allows"), cookie: 0)
            return
        }
        // From here the thread owns the descriptor.
        _ = connection.release()
        counters.sessions.add()
        do throws(SystemError) {
            _ = try WorkerThread("shm-\(slot)") { self.serve(raw, slot) }
        } catch {
            finish(raw, slot)
            throw error
        }
    }

    private func serve(_ raw: Int32, _ slot: Int) {
        counters.sessionsOpen.add(1)
        var session = ShmSession(
            server: self,
            channel: FrameChannel(descriptor: raw, frameTime: limits.frame.nanoseconds))
        session.run()
        counters.sessionsOpen.add(-1)
        finish(raw, slot)
    }

    private func finish(_ raw: Int32, _ slot: Int) {
        // The slot is freed before the number can be used again.
        state.withLock { $0.sessions[slot] = -1 }
        close(raw)
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
