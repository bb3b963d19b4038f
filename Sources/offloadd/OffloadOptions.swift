import CommandLineKit
import FarMemory
import LinuxSystem
import OffloadEngine
import OffloadPolicy
import PolicyOptions

/// The knobs of `offloadd run`, as flags, FARMEM_OFFLOADD_ variables and configuration keys.
let runOptions: [Option] =
    Option.daemon + [
        Option(
            "listen", .endpoint, placeholder: "ENDPOINT",
            help: "Serve the API here (default unix:/run/farmem/offloadd.sock)."),
        Option(
            "state-dir", .string, placeholder: "DIR",
            help: "Journal and lock (default /run/farmem/offloadd)."),
        Option(
            "record", .string, placeholder: "FILE",
            help: "Record what the policy is told and decides, for `farmem replay`."),
        Option("dry-run", .flag, help: "Decide and log, and move nothing."),
        Option(
            "watch", .string, repeatable: true, placeholder: "PATTERN",
            help: "Watch groups whose path matches, e.g. '/docker/*', without events."),
        Option(
            "discover", .string, repeatable: true, placeholder: "SOURCE",
            help: "Find containers: docker, podman, unix:PATH of such an API, or cgroups by name."),
        Option(
            "unlabelled", .flag, default: "true",
            help: "Offload found containers without farmem.offload=true too."),
        Option(
            "busy-share", .ratio, default: "0.02",
            help: "A watched container is busy above this share of one processor."),
        Option(
            "quiet-time", .duration, default: "1s",
            help: "A watched container is idle when it was not busy for this long."),
        Option(
            "tick", .duration, default: "100ms", help: "How often idle containers are looked at."),
        Option(
            "engine", .choice(EngineChoice.allCases.map(\.rawValue)), default: "auto",
            help: "What finds and moves pages; auto takes the best that the kernel offers."),
    ] + policyOptions + [
        Option(
            "fault-hold-limit", .duration, default: "0s", hidden: true,
            help: "For tests: hold each lowered limit this long.")
    ]

/// Where the API is served.
func listenEndpoint(_ invocation: Invocation) -> Endpoint {
    invocation.endpointIfSet("listen") ?? .unix(path: "\(runtimeDirectory())/offloadd.sock")
}

/// The settings that a command line describes.
func engineSettings(_ invocation: Invocation) throws -> EngineSettings {
    var settings = EngineSettings()
    settings.stateDirectory =
        invocation.stringIfSet("state-dir") ?? "\(runtimeDirectory())/offloadd"
    settings.recordPath = invocation.stringIfSet("record")
    settings.isDryRun = invocation.flag("dry-run")
    settings.watchPatterns = invocation.strings("watch")
    settings.busyPermille = share(invocation.ratio("busy-share"), of: 1000)
    settings.quietTime = invocation.duration("quiet-time")
    settings.tickInterval = invocation.duration("tick")
    settings.limitHold = invocation.duration("fault-hold-limit")
    settings.engine = EngineChoice(rawValue: invocation.string("engine")) ?? .auto
    settings.policy = try policySettings(invocation)
    // A watched container may be busy for ever.
    if !settings.watchPatterns.isEmpty || !invocation.strings("discover").isEmpty {
        settings.policy.requestPatience = nil
    }
    settings.functionRules = functionRules(invocation)
    guard settings.tickInterval >= .milliseconds(10) else {
        throw UsageError("--tick must be at least 10ms")
    }
    guard settings.policy.bandwidth > .zero, settings.policy.burst >= .mib(1) else {
        throw UsageError("--bandwidth must be more than zero and --burst at least 1MiB")
    }
    return settings
}
