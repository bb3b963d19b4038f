import CommandLineKit
import FarMemory
import JSONText
import LinuxSystem

let topCommand = Command(
    name: "top", summary: "show containers live: state, local and far memory, refaults, rule",
    options: [
        offloaddOption,
        Option("interval", .duration, default: "1s", help: "Time between two pictures."),
        Option("once", .flag, configurable: false, help: "Print one picture and exit."),
    ], configurable: false
) { invocation in
    let client = OffloadClient(invocation)
    let interval = invocation.duration("interval")
    guard interval >= .milliseconds(100) else {
        throw UsageError("--interval must be at least 100ms")
    }
    let isLive = isOutputTerminal && !invocation.flag("once")
    while true {
        let picture = topPicture(
            try client.get("/v1/status"), try client.get("/v1/containers"))
        // Home and clear to the end: no flicker, as a full clear would cause.
        printOut(isLive ? "\u{1B}[H\u{1B}[J\(picture)" : picture)
        if invocation.flag("once") { return .done }
        sleepNanoseconds(interval.nanoseconds)
    }
}

func topPicture(_ status: JSONValue, _ containers: JSONValue) -> String {
    let local = status["local_bytes"]?.double ?? 0
    let far = status["far_bytes"]?.double ?? 0
    let share = local + far > 0 ? fixed(far * 100 / (local + far), 0) : "0"
    let paused = status["paused_by"]?.string.map { "; paused by \($0)" } ?? ""
    return
        "\(status.count("containers")) containers, \(status.mebibytes("local_bytes")) MiB local, "
        + "\(status.mebibytes("far_bytes")) MiB far (\(share) %)\(paused)\n\n"
        + containersTable(containers)
}
