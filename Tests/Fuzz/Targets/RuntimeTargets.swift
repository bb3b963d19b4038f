import ContainerDiscovery
import Containers
import FarMemory
import OffloadPolicy

/// Answers of container runtimes: lists, inspections, bundles and the labels in them.
@Sendable func fuzzRuntimeAnswers(_ bytes: [UInt8]) {
    if let ids = try? parseContainerList(bytes) {
        precondition(ids.count <= AnswerLimits.containers)
        // They become part of a path of the API.
        precondition(ids.allSatisfy { !$0.isEmpty && !$0.contains("/") && !$0.contains("?") })
    }
    if let container = try? parseInspection(bytes) {
        precondition(!container.id.contains("/") && !container.name.isEmpty)
        precondition(container.pid.map { $0 > 1 } ?? true)
        checkLabels(container.labels, container.environment)
    }
    if let (annotations, environment) = try? parseBundle(bytes) {
        checkLabels(annotations, environment)
    }
}

/// A label of ours that is not understood must leave the container alone.
private func checkLabels(_ labels: [String: String], _ environment: [String: String]) {
    let read = ContainerLabels(labels, environment: environment)
    precondition(read.problems.isEmpty || read.settings.offloads == false)
    precondition(read.function.map { !$0.isEmpty && $0.utf8.count <= 128 } ?? true)
}

/// An event feed cut at the places that the first byte tells; the same lines whatever the pieces are.
@Sendable func fuzzRuntimeEvents(_ bytes: [UInt8]) {
    guard let first = bytes.first else { return }
    let feed = Array(bytes.dropFirst())
    var whole = EventLines(bytesMax: 256)
    let expected = whole.take(feed)
    var cut = EventLines(bytesMax: 256)
    var lines: [[UInt8]] = []
    let step = Int(first) + 1
    for start in stride(from: 0, to: feed.count, by: step) {
        lines += cut.take(Array(feed[start..<min(start + step, feed.count)]))
    }
    precondition(lines == expected && cut.dropped == whole.dropped)
    for line in lines {
        precondition(line.count <= 256)
        if let event = try? parseRuntimeEvent(line) { precondition(!event.id.contains("/")) }
    }
}

/// A path of a control group: what is found in it is a part of it.
@Sendable func fuzzContainerNames(_ bytes: [UInt8]) {
    let path = String(decoding: bytes, as: UTF8.self)
    if let identity = containerIdentity(ofGroup: path) {
        precondition(isAbsolutePath(identity.group) && !identity.id.isEmpty)
        precondition(identity.group.utf8.firstRange(of: identity.id.utf8) != nil)
        precondition(containerIdentity(ofGroup: identity.group) == identity)
    }
    let id = String(repeating: "a", count: 64)
    if let group = containerGroup(path, id: id) {
        precondition(group.utf8.firstRange(of: id.utf8) != nil)
        precondition(
            !group.utf8.split(separator: UInt8(ascii: "/")).contains { $0.elementsEqual("..".utf8) }
        )
    }
}
