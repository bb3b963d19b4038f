import CommandLineKit
import Containers
import FarMemory
import Gateway
import Glibc
import JSONText
import LinuxSystem

let describeCommand = Command(
    name: "describe", summary: "measure what each function's container uses, stage by stage",
    discussion: """
        Starts one container of each function, one after the other, as `run` would, and stops after each stage to read \
        its memory in MiB: RUNTIME is the anonymous memory when the agent answers, INIT what initialization adds, KEPT what \
        the first request leaves, EXECUTION the most that a later request had beside that, and TOUCHED the anonymous memory \
        that the last request used. FILES are the mapped files, which all containers share, PEAK the control group's \
        most, files included. Nothing is offloaded.
        """,
    options: [
        Option(
            "functions", .string, required: true, placeholder: "DIR",
            help: "Directory of the functions and their agent."),
        Option(
            "only", .string, placeholder: "LIST", help: "Some of them, with commas (default all)."),
        Option("requests", .integer(3...1000), default: "10", help: "Requests of each function."),
        .json, .logLevel,
    ],
    examples: [("fngateway describe --functions functions", "The table of docs/functions.md.")],
    run: describe)

private func describe(_ invocation: Invocation) throws -> ExitStatus {
    guard runsAsRoot() else {
        throw CommandFailure(.permission, "runc needs root; run with sudo")
    }
    let directory = absolutePath(invocation.string("functions"))
    let manifests = try chosen(invocation, below: directory)
    guard let groups = try ControlGroups.discover() else {
        throw CommandFailure(.systemError, "no memory controller is mounted")
    }
    let signals = try SignalEvents([SIGINT, SIGTERM, SIGHUP])
    let state = "\(runtimeDirectory())/describe-\(getpid())"
    try makeDirectories(state, mode: 0o700)
    defer { _ = unsafe rmdir(state) }
    let parent = "/farmem-describe-\(getpid())"
    let runtime = try RuncRuntime(directory: state, controlGroupParent: parent)
    defer { runtime.cleanUp() }
    var found: [FunctionDescription] = []
    for (number, manifest) in manifests.enumerated() {
        guard signals.next() == nil else { throw CommandFailure(.tryAgain, "interrupted") }
        let startedAt = monotonicNow()
        let trial = try FunctionTrial(
            manifest, runtime: runtime, agentDirectory: "\(directory)/agent",
            controlGroupParent: parent, number: number)
        defer {
            do throws(RuntimeError) { try trial.remove() } catch {
                printError("fngateway: \(error)")
            }
        }
        found.append(
            try FunctionDescription(
                manifest, trial: trial, group: try groups.open(trial.controlGroup),
                requests: invocation.integer("requests"), startedAt: startedAt))
    }
    if invocation.flag("json") {
        let value: JSONValue = ["schema": 1, "functions": .array(found.map(\.json))]
        printOut(value.rendered(pretty: true))
    } else {
        var table = TextTable(FunctionDescription.columns)
        for description in found { table.append(description.row) }
        printOut(table.rendered())
    }
    return .done
}

private func chosen(
    _ invocation: Invocation, below directory: String
) throws -> [FunctionManifest] {
    let all: [FunctionManifest]
    do throws(ManifestError) {
        all = try FunctionManifest.loadAll(below: directory)
    } catch {
        throw CommandFailure(.usage, error.description)
    }
    guard let list = invocation.stringIfSet("only") else { return all }
    return try list.split(separator: ",").map { name in
        guard let manifest = all.first(where: { $0.name == name }) else {
            throw UsageError(
                "--only: '\(name)' is none of \(all.map(\.name).joined(separator: ", "))")
        }
        return manifest
    }
}
