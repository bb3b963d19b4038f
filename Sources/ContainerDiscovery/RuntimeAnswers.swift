// ContainerDiscovery: finds the containers of this host, and what is set for each by its labels.
//
// Purpose: follows container runtimes with Docker's API (Docker, podman), and control groups by their names
// (ContainerNames), and tells whoever asks which containers there are. Thread model: parsers are pure; a follower or
// scanner is one thread of its own that calls its receiver. Invariants: answers of runtimes are foreign input: bounded,
// and what cannot be understood is left alone; a list makes good what events missed; nothing is changed anywhere.
// Must not import: Foundation, OffloadEngine.

import JSONText

/// Why an answer of a runtime was not taken.
package struct AnswerError: Error, Equatable, CustomStringConvertible {
    package var description: String
    init(_ description: String) { self.description = description }
}

/// What a runtime says about one container (GET /containers/ID/json).
package struct InspectedContainer: Equatable, Sendable {
    package var id: String
    /// Without the slash in front.
    package var name: String
    package var labels: [String: String]
    /// Variables of its processes that name a function (`K_SERVICE`).
    package var environment: [String: String]
    /// Of its first process; nil when it does not run.
    package var pid: Int32?
    /// As the runtime writes it: tells one start from the next.
    package var startedAt: String
}

/// One line of a runtime's event feed (GET /events), as far as it is of use.
package struct RuntimeEvent: Equatable, Sendable {
    package var action: String
    package var id: String
    /// Seconds since 1970; nil when it does not say.
    package var time: Int64?

    /// Whether the container may have begun, ended or changed its name: everything else is of no interest.
    package var isRelevant: Bool { Self.relevant.contains(action) }

    private static let relevant: Set<String> = [
        "start", "restart", "die", "died", "stop", "destroy", "remove", "rename",
    ]
}

/// Bounds of what runtimes may answer.
package enum AnswerLimits {
    package static let listBytes = 16 << 20
    package static let inspectBytes = 1 << 20
    package static let eventBytes = 64 << 10
    package static let containers = 4096
    static let labels = 512
    static let labelBytes = 4096
    static let depth = 24
}

/// Ids of the running containers in GET /containers/json.
package func parseContainerList(_ body: [UInt8]) throws(AnswerError) -> [String] {
    guard let list = try parse(body, AnswerLimits.listBytes).array else {
        throw AnswerError("the list of containers is no array")
    }
    guard list.count <= AnswerLimits.containers else {
        throw AnswerError("more than \(AnswerLimits.containers) containers")
    }
    var ids: [String] = []
    for item in list {
        guard let id = item["Id"]?.string, isPlainID(id) else {
            throw AnswerError("a container in the list has no id")
        }
        if item["State"]?.string.map({ $0 == "running" || $0 == "paused" }) ?? true {
            ids.append(id)
        }
    }
    return ids
}

/// GET /containers/ID/json.
package func parseInspection(_ body: [UInt8]) throws(AnswerError) -> InspectedContainer {
    let value = try parse(body, AnswerLimits.inspectBytes)
    guard let id = value["Id"]?.string, isPlainID(id) else {
        throw AnswerError("the container has no id")
    }
    guard let state = value["State"], let isRunning = state["Running"]?.bool else {
        throw AnswerError("container \(id.prefix(12)) has no state")
    }
    var name = value["Name"]?.string ?? ""
    if name.hasPrefix("/") { name.removeFirst() }
    guard isPrintable(name, 1...200) else {
        throw AnswerError("container \(id.prefix(12)) has no name that can be shown")
    }
    let pid = state["Pid"]?.integer ?? 0
    guard pid >= 0, pid <= Int64(Int32.max) else {
        throw AnswerError("container \(id.prefix(12)) has pid \(pid)")
    }
    return InspectedContainer(
        id: id, name: name, labels: parseLabels(value["Config"]?["Labels"]),
        environment: parseEnvironment(value["Config"]?["Env"]),
        pid: isRunning && pid > 1 ? Int32(pid) : nil,
        startedAt: String((state["StartedAt"]?.string ?? "").prefix(64)))
}

/// One line of GET /events; nil for what is no container's.
package func parseRuntimeEvent(_ line: [UInt8]) throws(AnswerError) -> RuntimeEvent? {
    let value = try parse(line, AnswerLimits.eventBytes)
    if let type = value["Type"]?.string, type != "container" { return nil }
    guard let action = value["Action"]?.string ?? value["status"]?.string,
        let id = value["Actor"]?["ID"]?.string ?? value["id"]?.string
    else { return nil }
    guard isPlainID(id) else { throw AnswerError("an event has no id") }
    // "exec_start: /bin/sh" and the like: only the word counts.
    let word = action.split(separator: ":", maxSplits: 1).first.map(String.init) ?? action
    let time = value["time"]?.integer
    return RuntimeEvent(action: word, id: id, time: time.flatMap { $0 >= 0 ? $0 : nil })
}

/// What an OCI bundle's config.json says of a container: annotations, and variables that name a function.
package func parseBundle(
    _ body: [UInt8]
) throws(AnswerError) -> (annotations: [String: String], environment: [String: String]) {
    let value = try parse(body, AnswerLimits.inspectBytes)
    var annotations = parseLabels(value["annotations"])
    // CRI-O keeps the pod's own as JSON inside; those of the container win.
    for key in ["io.kubernetes.cri-o.Labels", "io.kubernetes.cri-o.Annotations"] {
        guard let text = annotations[key], let inner = try? parse(Array(text.utf8), 1 << 16) else {
            continue
        }
        for (name, value) in parseLabels(inner) where annotations[name] == nil {
            annotations[name] = value
        }
    }
    return (annotations, parseEnvironment(value["process"]?["env"]))
}

private func parse(_ body: [UInt8], _ bytesMax: Int) throws(AnswerError) -> JSONValue {
    do throws(JSONError) {
        return try JSONValue.parse(
            body, limits: JSONLimits(bytesMax: bytesMax, depthMax: AnswerLimits.depth))
    } catch {
        throw AnswerError(error.description)
    }
}

/// Labels or annotations; what is no text, or longer than anyone writes, is left out.
private func parseLabels(_ value: JSONValue?) -> [String: String] {
    var labels: [String: String] = [:]
    for member in (value?.members ?? []).prefix(AnswerLimits.labels) {
        guard let text = member.value.string, text.utf8.count <= AnswerLimits.labelBytes else {
            // One of ours must not get lost: its reader will refuse what this stands for.
            if member.key.hasPrefix(labelPrefix) { labels[member.key] = "" }
            continue
        }
        labels[member.key] = text
    }
    return labels
}

private func parseEnvironment(_ value: JSONValue?) -> [String: String] {
    var found: [String: String] = [:]
    for item in (value?.array ?? []).prefix(4096) {
        guard let text = item.string, let equals = text.firstIndex(of: "=") else { continue }
        let name = String(text[..<equals])
        if functionVariables.contains(name) {
            found[name] = String(text[text.index(after: equals)...].prefix(256))
        }
    }
    return found
}

/// What may stand in a path of the API and in a log.
func isPlainID(_ id: String) -> Bool {
    (1...128).contains(id.utf8.count)
        && id.utf8.allSatisfy {
            (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0)
                || $0 == 0x2D || $0 == 0x5F || $0 == 0x2E
        }
}

func isPrintable(_ text: String, _ lengths: ClosedRange<Int>) -> Bool {
    lengths.contains(text.utf8.count) && text.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F }
}
