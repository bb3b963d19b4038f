import FarMemory
import JSONText

/// Why an event was refused: one line for the sender.
package struct EventError: Error, Equatable, CustomStringConvertible {
    package var description: String
    init(_ description: String) { self.description = description }
}

/// Most events in one body.
private let eventsMax = 1024

/// Parses the body of POST /v1/events: one event or an array of them. All are taken or none.
package func parseEvents(_ body: [UInt8]) throws(EventError) -> [LifecycleEvent] {
    let value: JSONValue
    do throws(JSONError) {
        value = try JSONValue.parse(body)
    } catch {
        throw EventError(error.description)
    }
    guard let list = value.array else { return [try parseEvent(value)] }
    guard list.count <= eventsMax else { throw EventError("more than \(eventsMax) events") }
    var events: [LifecycleEvent] = []
    for item in list { events.append(try parseEvent(item)) }
    return events
}

private func parseEvent(_ value: JSONValue) throws(EventError) -> LifecycleEvent {
    guard value.members != nil else { throw EventError("an event is an object") }
    guard let word = value["event"]?.string else { throw EventError("\"event\" is missing") }
    guard let kind = LifecycleEvent.Kind(rawValue: word) else {
        let known = LifecycleEvent.Kind.allCases.map(\.rawValue).joined(separator: ", ")
        throw EventError("unknown event \"\(word)\"; one of \(known)")
    }
    guard let container = value["container"]?.string, !container.isEmpty,
        container.utf8.count <= 256
    else { throw EventError("\"container\" is missing, empty or longer than 256 bytes") }
    var event = LifecycleEvent(kind: kind, container: container)
    event.function = value["function"]?.string
    if let group = value["cgroup"]?.string {
        guard isGroupPath(group) else {
            throw EventError(
                "\"cgroup\" must be a path below the mount, starting with / and without ..")
        }
        event.controlGroup = group
    }
    if kind == .containerStarted && event.controlGroup == nil {
        throw EventError("container_started needs \"cgroup\"")
    }
    if let alive = value["keep_alive_ms"], !alive.isNull {
        guard let milliseconds = alive.integer, milliseconds >= 0, milliseconds < 1 << 40 else {
            throw EventError("\"keep_alive_ms\" must be a whole number, zero or more")
        }
        event.keepAlive = .milliseconds(milliseconds)
    }
    if let latency = value["latency_us"], !latency.isNull {
        guard let microseconds = latency.integer, microseconds >= 0, microseconds < 1 << 50 else {
            throw EventError("\"latency_us\" must be a whole number, zero or more")
        }
        event.latency = .microseconds(microseconds)
    }
    return event
}

private func isGroupPath(_ path: String) -> Bool {
    isAbsolutePath(path) && path.utf8.count < 4096 && !path.utf8.contains(0)
        && !path.utf8.contains(UInt8(ascii: "\n"))
        && !pathComponents(path).contains("..")
}
