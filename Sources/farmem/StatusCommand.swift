import CommandLineKit
import JSONText

let statusCommand = Command(
    name: "status", summary: "show what the offload controller does and how much memory is far",
    options: [offloaddOption, .json], configurable: false
) { invocation in
    let status = try OffloadClient(invocation).get("/v1/status")
    if invocation.flag("json") {
        printOut(status.rendered() + "\n")
        return .done
    }
    printOut(statusText(status))
    return .done
}

/// The status for people, one fact a line.
func statusText(_ status: JSONValue) -> String {
    let paused = status["paused_by"]?.string
    let state =
        status["dry_run"]?.bool == true
        ? "dry run: decides, moves nothing" : paused.map { "paused by \($0)" } ?? "offloading"
    var lines = [
        ("state", state),
        ("engine", "\(status.word("engine")) (\(status.word("engine_reason")))"),
        ("control groups", status.word("cgroup")),
        (
            "containers",
            "\(status.count("containers")): \(status.mebibytes("local_bytes")) MiB local, "
                + "\(status.mebibytes("far_bytes")) MiB far"
        ),
        (
            "swap",
            "\(status.mebibytes("far_free_bytes")) MiB free of \(status.mebibytes("far_total_bytes")) MiB"
        ),
        (
            "moved",
            "\(status.mebibytes("written_bytes")) MiB written, "
                + "\(status.mebibytes("released_bytes")) MiB left local memory, "
                + "\(status.mebibytes("recalled_bytes")) MiB prefetched"
        ),
        ("pressure", status["pressure_permille"]?.integer.map { "\($0)/1000" } ?? "unknown"),
        (
            "events",
            "\(status.count("events")), \(status.count("events_dropped")) dropped, "
                + "\(status.count("events_of_unknown_containers")) of unknown containers"
        ),
    ]
    if let restored = status["knobs_restored_at_start"]?.integer, restored > 0 {
        lines.append(("restored", "\(restored) limits of an earlier run"))
    }
    let width = (lines.map(\.0.count).max() ?? 0) + 2
    return lines.map { name, value in
        name + String(repeating: " ", count: width - name.count) + value + "\n"
    }.joined()
}
