import HTTPEndpoint
import JSONText
import OffloadEngine

/// Answers the HTTP API: GET /healthz, /metrics, /v1/status, /v1/containers, /v1/events?since=SEQ; POST /v1/events, /v1/maintenance.
/// Any thread; never waits for the control thread.
func answer(
    _ request: HTTPRequest, _ controller: Controller, _ discovery: Discovery
) -> HTTPResponse {
    switch request.path {
    case "/v1/events" where request.method == "POST": return takeEvents(request, controller)
    case "/v1/events": return onlyGet(request) { giveEvents(request, controller) }
    case "/v1/maintenance" where request.method == "POST":
        return takeMaintenance(request, controller)
    case "/healthz": return onlyGet(request) { .text("ok\n") }
    case "/metrics":
        return onlyGet(request) { .metrics(controller.status().metrics + discovery.metrics) }
    case "/v1/status": return onlyGet(request) { .json(controller.status().json) }
    case "/v1/containers": return onlyGet(request) { .json(controller.status().containersJSON) }
    default: return .notFound
    }
}

private func onlyGet(_ request: HTTPRequest, _ body: () -> HTTPResponse) -> HTTPResponse {
    request.method == "GET" ? body() : .methodNotAllowed("GET")
}

private func takeEvents(_ request: HTTPRequest, _ controller: Controller) -> HTTPResponse {
    do throws(EventError) {
        for event in try parseEvents(request.body) {
            guard controller.submit(event) else {
                return .error(503, "too many events wait; send again later")
            }
        }
        return .noContent
    } catch {
        return .error(400, error.description)
    }
}

private func takeMaintenance(_ request: HTTPRequest, _ controller: Controller) -> HTTPResponse {
    guard let isOn = (try? JSONValue.parse(request.body))?["on"]?.bool else {
        return .error(400, "\"on\" must be true or false")
    }
    do throws(MaintenanceError) {
        try controller.setMaintenance(isOn)
        return .noContent
    } catch {
        return .error(503, error.description)
    }
}

private func giveEvents(_ request: HTTPRequest, _ controller: Controller) -> HTTPResponse {
    let since = request.query("since") ?? "0"
    guard let sequence = UInt64(since) else {
        return .error(400, "since=\(since) is not a sequence number")
    }
    let records = controller.decisions.records(after: sequence)
    return .json([
        "schema": 1, "last": JSONValue(controller.decisions.last),
        "events": .array(records.map(\.json)),
    ])
}
