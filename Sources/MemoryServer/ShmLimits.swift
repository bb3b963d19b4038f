// MemoryServer: the listeners of a memory server: shared-memory control and NBD.
//
// Thread model: one thread accepts for each listener, one serves each connection; connections are bounded.
// Invariants: whatever a client sends, others are served on; no wait is without a deadline except the wait
// for the next request of a client that was let in; nothing grows with what a client sends.
// Must not import: Foundation.

package import FarMemory
package import Telemetry

/// Bounds of the shared-memory listener.
package struct ShmLimits: Sendable {
    /// Sessions at a time; more are turned away with an error.
    package var sessions = 64
    /// From accept to an open lease.
    package var handshake = Nanoseconds.seconds(10)
    /// For the rest of a frame once its first byte is there, and for the client to take a reply.
    package var frame = Nanoseconds.seconds(5)

    package init() {}
}

/// Counts of the shared-memory listener. Any thread.
package final class ShmCounters: Sendable {
    package let sessions: Counter
    package let sessionsOpen: Gauge
    /// Turned away, or ended by a deadline or malformed bytes.
    package let sessionsRefused: Counter
    package let authenticationFailures: Counter
    package let requests: Counter
    /// Bytes that clients allocated outside of their grants and that were freed again.
    package let strayBytes: Counter

    package init(_ registry: MetricRegistry) {
        sessions = registry.counter("farmem_shm_sessions_total", help: "Sessions accepted")
        sessionsOpen = registry.gauge("farmem_shm_sessions_open", help: "Sessions open now")
        sessionsRefused = registry.counter(
            "farmem_shm_sessions_refused_total",
            help: "Sessions refused, or ended by a deadline or malformed bytes")
        authenticationFailures = registry.counter(
            "farmem_shm_authentication_failures_total", help: "Wrong keys or answers")
        requests = registry.counter("farmem_shm_requests_total", help: "Control requests answered")
        strayBytes = registry.counter(
            "farmem_shm_stray_bytes_total",
            help: "Bytes that clients allocated outside of their grants, freed again")
    }
}
