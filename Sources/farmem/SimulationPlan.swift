import CommandLineKit
import FarMemory
import OffloadPolicy
import PolicyOptions
import WorkloadSimulation

/// Policies by the names of `offloadd run --policy`.
let simulatedPolicies = PolicyKind.allCases.map(\.rawValue)

/// The knobs of offloadd's policy; several policies may be compared, so `--policy` takes a list.
let simulatedPolicyOptions = policyOptions.filter { $0.name != "policy" }

/// What the command line asks for.
struct SimulationPlan {
    var policies: [SimulationSettings] = []
    var nodeMemory: ByteCount
    var seed: UInt64

    init(_ invocation: Invocation) throws {
        nodeMemory = invocation.size("node-memory")
        seed = UInt64(invocation.integer("seed"))
        let names = invocation.string("policy").split(separator: ",").map(String.init)
        guard !names.isEmpty, Set(names).count == names.count else {
            throw UsageError("--policy needs different policies, separated by commas")
        }
        for name in names {
            guard let kind = PolicyKind(rawValue: name) else {
                throw UsageError(
                    "--policy: '\(name)' is none of \(simulatedPolicies.joined(separator: ", "))")
            }
            policies.append(try Self.settings(kind, invocation))
        }
    }

    private static func settings(
        _ kind: PolicyKind, _ invocation: Invocation
    ) throws -> SimulationSettings {
        var settings = SimulationSettings(
            name: kind.rawValue,
            policy: kind == .none ? nil : try policySettings(kind, invocation))
        settings.keepAlive = invocation.duration("keep-alive")
        settings.tick = invocation.duration("tick")
        guard settings.keepAlive >= .seconds(1), settings.tick >= .milliseconds(10) else {
            throw UsageError("--keep-alive must be at least 1s and --tick at least 10ms")
        }
        settings.farSpace = invocation.size("far-size")
        settings.seed = UInt64(invocation.integer("seed"))
        settings.callsPerMinuteMax = UInt32(invocation.integer("calls-per-minute-max"))
        settings.isDense = invocation.flag("dense")
        if let file = invocation.stringIfSet("costs") { settings.costs = try CostFile.read(file) }
        if let profile = invocation.stringIfSet("profile") {
            let known = settings.costs.profiles.map(\.name)
            guard known.contains(profile) else {
                throw UsageError(
                    "--profile: '\(profile)' is none of \(known.joined(separator: ", "))")
            }
            settings.profile = profile
        }
        return settings
    }
}
