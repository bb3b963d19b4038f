import FarMemory
package import HTTPEndpoint
package import JSONText
import LinuxSystem
import Synchronization
import Telemetry

extension FunctionGateway {
    /// The gateway's HTTP interface: POST /function/NAME, GET /v1/status, /metrics, /healthz.
    package func handle(_ request: HTTPRequest) -> HTTPResponse {
        let prefix = "/function/"
        if request.path.hasPrefix(prefix) {
            guard request.method == "POST" else { return .methodNotAllowed("POST") }
            return invoke(String(request.path.dropFirst(prefix.count)), body: request.body)
        }
        guard ["/v1/status", "/metrics", "/healthz"].contains(request.path) else {
            return .notFound
        }
        guard request.method == "GET" else { return .methodNotAllowed("GET") }
        switch request.path {
        case "/v1/status": return .json(status())
        case "/metrics": return .metrics(metrics.render())
        default: return .text("ok\n")
        }
    }

    /// Functions and containers as they are now.
    package func status() -> JSONValue {
        let now = monotonicNow()
        let entries = registry.withLock { Array($0.values) }.sorted { $0.id < $1.id }
        return [
            "schema": 1,
            "keep_alive_ms": JSONValue(settings.limits.keepAlive.milliseconds),
            "functions": .array(servedFunctions.map(functionStatus)),
            "containers": .array(entries.map { $0.json(at: now) }),
        ]
    }

    private func functionStatus(_ service: FunctionService) -> JSONValue {
        let census = service.pool.census
        return [
            "name": JSONValue(service.name), "containers": JSONValue(census.living),
            "idle": JSONValue(census.idle), "waiting": JSONValue(census.waiting),
            "requests": JSONValue(service.requests.value),
            "failures": JSONValue(service.failures.value),
            "cold_starts": JSONValue(service.coldStarts.value),
            "recycled": JSONValue(service.recycled.value),
            "refused": JSONValue(service.refused.value),
        ]
    }

    func registerGauges() {
        gauge("farmem_gateway_containers", "Containers now.", \.living)
        gauge("farmem_gateway_idle_containers", "Idle containers now.", \.idle)
        gauge("farmem_gateway_waiting_requests", "Requests in the queue.", \.waiting)
    }

    private func gauge(
        _ name: String, _ help: String, _ part: @escaping @Sendable (ContainerPool.Census) -> Int
    ) {
        metrics.collectGauge(name, help: help) { [weak self] in
            (self?.servedFunctions ?? []).map {
                .init(["function": $0.name], Double(part($0.pool.census)))
            }
        }
    }
}
