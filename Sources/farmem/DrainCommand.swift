import CommandLineKit
import FarMemory
import HTTPEndpoint
import JSONText
import LinuxSystem

let drainCommand = Command(
    name: "drain",
    summary: "bring all far memory of the containers back, and offload nothing: before maintenance",
    discussion: """
        Offloading stops and what is far of the containers is read back at the controller's --bandwidth. It is refused when local memory would \
        not suffice. `farmem drain --off` lets offloading go on. The controller forgets it when it is started again. What is still far at the end \
        belongs to no container's process (files on tmpfs, other programs): farswap detach brings it back.
        """,
    options: [
        offloaddOption,
        Option("off", .flag, configurable: false, help: "Offload again."),
        Option("timeout", .duration, default: "10m", help: "How long to wait for the last page."),
    ], configurable: false
) { invocation in
    let client = OffloadClient(invocation)
    let isOn = !invocation.flag("off")
    try client.post("/v1/maintenance", ["on": JSONValue(isOn)])
    guard isOn else {
        printOut("offloading goes on\n")
        return .done
    }
    let deadline = monotonicNow() + invocation.duration("timeout").nanoseconds
    let shows = isOutputTerminal
    var status = try client.get("/v1/status")
    let all = max(1, status["far_bytes"]?.double ?? 0)
    // The order is carried out at the controller's next look at its messages.
    while status["maintenance"]?.bool != true || (status["pull_backs_left"]?.integer ?? 1) > 0 {
        guard monotonicNow() < deadline else {
            throw CommandFailure(
                .tryAgain,
                "\(status.mebibytes("far_bytes")) MiB are still far; run farmem drain again to wait on"
            )
        }
        let share = max(0, 1 - (status["far_bytes"]?.double ?? 0) / all)
        if shows {
            printOut("\r\(fixed(share * 100, 0)) %, \(status.mebibytes("far_bytes")) MiB left ")
        }
        sleepNanoseconds(200_000_000)
        status = try client.get("/v1/status")
    }
    if shows { printOut("\r") }
    printOut(
        "everything is local but \(status.mebibytes("far_bytes")) MiB; offloading rests until: farmem drain --off\n"
    )
    return .done
}
