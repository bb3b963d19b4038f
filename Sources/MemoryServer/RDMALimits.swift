package import FarMemory
package import Telemetry

/// Bounds of the RDMA listener.
package struct RDMALimits: Sendable {
    /// Sessions with an open lease.
    package var sessions = 64
    /// Sessions that have none yet. Another one ends the oldest of them: whoever is let in needs milliseconds.
    package var negotiating = 16
    /// Data queues of one session.
    package var queues: UInt16 = 64
    /// Control requests of one session that may wait for their replies.
    package var credits: UInt16 = 16
    /// READs that one data queue may have under way, where the device allows it.
    package var reads = 64
    /// From the connection to an open lease.
    package var handshake = Nanoseconds.seconds(10)
    /// For the client's device to take a reply.
    package var reply = Nanoseconds.seconds(5)
    /// A session that says nothing for so long is ended: nothing tells that a client's host is gone.
    package var silence = Nanoseconds.seconds(15)
    /// For the session that a RESUME ends.
    package var succession = Nanoseconds.seconds(10)

    package init() {}
}

/// Counts of the RDMA listener. Any thread.
package final class RDMACounters: Sendable {
    package let sessions: Counter
    package let sessionsOpen: Gauge
    /// Sessions ended for what they sent, or for being too slow to open a lease or to take a reply.
    package let sessionsRefused: Counter
    package let sessionsSilent: Counter
    package let connectionsRefused: Counter
    package let authenticationFailures: Counter
    package let requests: Counter
    package let queuesOpen: Gauge
    package let regions: Gauge

    package init(_ registry: MetricRegistry) {
        sessions = registry.counter("farmem_rdma_sessions_total", help: "Sessions accepted")
        sessionsOpen = registry.gauge("farmem_rdma_sessions_open", help: "Sessions open now")
        sessionsRefused = registry.counter(
            "farmem_rdma_sessions_refused_total",
            help: "Sessions refused, or ended by a deadline or malformed bytes")
        sessionsSilent = registry.counter(
            "farmem_rdma_sessions_silent_total", help: "Sessions ended because nothing was heard")
        connectionsRefused = registry.counter(
            "farmem_rdma_connections_refused_total", help: "Connection requests refused")
        authenticationFailures = registry.counter(
            "farmem_rdma_authentication_failures_total", help: "Wrong keys or answers")
        requests = registry.counter(
            "farmem_rdma_requests_total", help: "Control requests answered")
        queuesOpen = registry.gauge("farmem_rdma_queues_open", help: "Data queues open now")
        regions = registry.gauge(
            "farmem_rdma_regions", help: "Slabs registered with a device now")
    }
}
