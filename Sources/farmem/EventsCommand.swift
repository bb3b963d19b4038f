import CommandLineKit
import FarMemory
import JSONText
import LinuxSystem

let eventsCommand = Command(
    name: "events", summary: "tell what was decided, by which rule, and what came of it",
    options: [
        offloaddOption, .json,
        Option("since", .count, default: "0", configurable: false, help: "Only after this number."),
        Option("follow", .flag, configurable: false, help: "Go on with new decisions."),
        Option(
            "container", .string, configurable: false, placeholder: "ID",
            help: "Only of this container."),
    ], configurable: false
) { invocation in
    let client = OffloadClient(invocation)
    var since = invocation.integer("since")
    while true {
        let answer = try client.get("/v1/events?since=\(since)")
        let events = answer["events"]?.array ?? []
        for event in events {
            since = max(since, Int(event["seq"]?.integer ?? 0))
            if let wanted = invocation.stringIfSet("container"), event.word("id") != wanted,
                event.word("container") != wanted
            {
                continue
            }
            printOut(invocation.flag("json") ? event.rendered() + "\n" : eventLine(event))
        }
        if !events.isEmpty && since < Int(answer["last"]?.integer ?? 0) { continue }
        guard invocation.flag("follow") else { return .done }
        sleepNanoseconds(500_000_000)
    }
}

/// One decision in words.
func eventLine(_ event: JSONValue) -> String {
    var line =
        "\(event.count("seq"))  \(event.word("container"))  \(event.word("rule")): "
        + "\(event.word("action"))"
    func add(_ key: String, _ text: String) {
        if let bytes = event[key]?.integer, bytes > 0 {
            line += ", \(event.mebibytes(key)) MiB \(text)"
        }
    }
    add("written_bytes", "written")
    add("released_bytes", "left")
    add("recalled_bytes", "prefetched")
    if let hot = event["hot_pages"]?.integer, hot > 0 { line += ", \(hot) pages hot" }
    if let refaults = event["refaults"]?.integer, refaults > 0 { line += ", \(refaults) refaults" }
    if event["halted"]?.bool == true { line += ", halted by a request" }
    let micros = event["duration_us"]?.integer ?? 0
    return line + "  (\(event.word("reason")); \(fixed(Double(micros) / 1000, 1)) ms)\n"
}
