import FarMemory
import HTTPEndpoint
import JSONText
import LinuxSystem
import Synchronization
import Telemetry

/// One function: its pool, its counts.
final class FunctionService: Sendable {
    let name: String
    private let state: Mutex<(manifest: FunctionManifest, isServed: Bool)>
    let pool: ContainerPool
    let requests: Counter
    let failures: Counter
    let coldStarts: Counter
    let recycled: Counter
    let refused: Counter
    let latencies: Histogram

    init(_ manifest: FunctionManifest, limits: GatewayLimits, metrics: MetricRegistry) {
        name = manifest.name
        state = Mutex((manifest, true))
        pool = ContainerPool(
            containersMax: limits.containersPerFunction, waitersMax: limits.waitersPerFunction)
        requests = metrics.counter(
            "farmem_gateway_requests_total", help: "Requests that reached a container.",
            labels: ["function": name])
        failures = metrics.counter(
            "farmem_gateway_failures_total", help: "Requests that a container did not answer.",
            labels: ["function": name])
        coldStarts = metrics.counter(
            "farmem_gateway_cold_starts_total", help: "Containers started for a request.",
            labels: ["function": name])
        recycled = metrics.counter(
            "farmem_gateway_recycled_total",
            help: "Containers removed after their keep-alive time.",
            labels: ["function": name])
        refused = metrics.counter(
            "farmem_gateway_refused_total",
            help: "Requests refused because all containers were busy.",
            labels: ["function": name])
        latencies = metrics.latencies(
            "farmem_gateway_request_seconds", help: "Time from arrival to answer.",
            labels: ["function": name])
    }

    /// What containers are started by.
    var manifest: FunctionManifest { state.withLock { $0.manifest } }
    /// Whether there still is such a function.
    var isServed: Bool { state.withLock { $0.isServed } }

    func set(_ manifest: FunctionManifest, isServed: Bool) {
        state.withLock { $0 = (manifest, isServed) }
    }
}

/// Where a living container is.
enum ContainerState: String, Sendable {
    case starting, idle, busy, stopping
}

/// What is known of a living container without holding it.
struct ContainerEntry: Sendable {
    let id: String
    let function: String
    let controlGroup: String
    var pid: Int32
    var state: ContainerState
    /// Of `state`, on the monotonic clock.
    var since: Int64
    var requests = 0

    func json(at now: Int64) -> JSONValue {
        [
            "id": JSONValue(id), "function": JSONValue(function),
            "cgroup": JSONValue(controlGroup), "pid": JSONValue(pid),
            "state": JSONValue(state.rawValue), "state_ms": JSONValue((now - since) / 1_000_000),
            "requests": JSONValue(requests),
        ]
    }
}
