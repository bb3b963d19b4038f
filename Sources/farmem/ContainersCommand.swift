import CommandLineKit
import JSONText

let containersCommand = Command(
    name: "containers", summary: "list containers with their local and far memory",
    options: [offloaddOption, .json], configurable: false
) { invocation in
    let answer = try OffloadClient(invocation).get("/v1/containers")
    printOut(invocation.flag("json") ? answer.rendered() + "\n" : containersTable(answer))
    return .done
}

/// A segment's local and far memory in MiB.
private func segment(_ container: JSONValue, _ name: String) -> String {
    guard let size = container["segments"]?[name] else { return "-" }
    return "\(size.mebibytes("local_bytes"))+\(size.mebibytes("far_bytes"))"
}

/// One line per container, by name. A segment's size is local + far.
func containersTable(_ answer: JSONValue) -> String {
    var table = TextTable([
        .init("CONTAINER"), .init("FUNCTION"), .init("STATE"), .right("REQS"),
        .right("LOCAL MiB"), .right("FAR MiB"), .right("FILE MiB"), .right("WAITING"),
        .right("RUNTIME"), .right("INIT"), .right("EXEC"), .right("HOT MiB"),
        .right("REFAULTS"), .init("RULE"),
    ])
    for item in answer["containers"]?.array ?? [] {
        table.append([
            item.word("id"), item.word("function"), item.word("state"), item.count("requests"),
            item.mebibytes("local_bytes"), item.mebibytes("far_bytes"),
            item.mebibytes("file_bytes"), item.mebibytes("waiting_bytes"),
            segment(item, "runtime"), segment(item, "init"), segment(item, "execution"),
            item["segments"]?.mebibytes("hot_bytes") ?? "-", item.count("refaults"),
            item.word("last_rule"),
        ])
    }
    return table.rendered()
}
