package import Telemetry

/// Counts of the NBD listeners. Any thread.
package final class NBDCounters: Sendable {
    package let requests: ShardedCounter
    /// Requests answered with an error before anything was done.
    package let refused: ShardedCounter
    package let connections: Counter
    package let connectionsOpen: Gauge
    /// Connections that were turned away or ended by a deadline or malformed bytes.
    package let connectionsRefused: Counter

    package init(_ registry: MetricRegistry) {
        requests = registry.shardedCounter(
            "farmem_nbd_requests_total", help: "NBD requests carried out")
        refused = registry.shardedCounter(
            "farmem_nbd_requests_refused_total", help: "NBD requests answered with an error")
        connections = registry.counter(
            "farmem_nbd_connections_total", help: "NBD connections accepted")
        connectionsOpen = registry.gauge(
            "farmem_nbd_connections_open", help: "NBD connections open now")
        connectionsRefused = registry.counter(
            "farmem_nbd_connections_refused_total",
            help: "NBD connections refused, or ended by a deadline or malformed bytes")
    }
}
