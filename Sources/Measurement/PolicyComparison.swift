import FarMemory
package import JSONText

/// What one policy made of one function, or of all, against the reference: over the repetitions, each against its own.
package struct PolicyFigures: Sendable {
    package var function: String
    package var policy: String
    /// All repetitions' requests together.
    package var requests: RequestFigures
    package var majorFaults: Int?
    /// Bytes on average over time.
    package var local: BootstrapMean?
    package var far: BootstrapMean?
    /// Share of the reference's local memory that was saved; nil for the reference, and where a request failed.
    package var saved: BootstrapMean?
    /// How much higher the 95th percentile is: 0.1 is a tenth. Nil as `saved` is.
    package var p95Change: BootstrapMean?

    package var json: JSONValue {
        func interval(_ value: BootstrapMean?) -> JSONValue {
            value.map {
                ["mean": JSONValue($0.mean), "low": JSONValue($0.low), "high": JSONValue($0.high)]
            }
                ?? .null
        }
        return [
            "function": JSONValue(function), "policy": JSONValue(policy),
            "requests": requests.json,
            "major_faults": majorFaults.map { JSONValue($0) } ?? .null,
            "local_bytes": interval(local), "far_bytes": interval(far), "saved": interval(saved),
            "p95_change": interval(p95Change),
        ]
    }
}

/// One replay of one repetition, as the comparison needs it.
package struct PolicyReplay: Sendable {
    package var policy: String
    package var repetition: Int
    package var result: PhaseResult

    package init(policy: String, repetition: Int, result: PhaseResult) {
        self.policy = policy
        self.repetition = repetition
        self.result = result
    }
}

/// Compares policies with the first one. A function of which a request failed or was answered wrong, in a policy's replay or the reference's, has
/// no figures of that policy: what a broken function holds is not what a working one would.
package struct PolicyComparison: Sendable {
    /// By function, then policy in the order of the replays; last "all", which counts whole functions only.
    package var figures: [PolicyFigures] = []

    /// `seed` is the bootstrap's.
    package init(functions: [String], replays: [PolicyReplay], seed: UInt64) {
        var policies: [String] = []
        for replay in replays where !policies.contains(replay.policy) {
            policies.append(replay.policy)
        }
        guard let reference = policies.first else { return }
        let sets =
            functions.enumerated().map { (name: $1, members: [$0]) }
            + [(name: "all", members: Array(functions.indices))]
        for set in sets {
            for policy in policies {
                figures.append(
                    Self.figures(
                        set.name, set.members.map { ($0, functions[$0]) }, policy, reference,
                        replays, seed))
            }
        }
    }

    private static func figures(
        _ name: String, _ members: [(index: Int, name: String)], _ policy: String,
        _ reference: String, _ replays: [PolicyReplay], _ seed: UInt64
    ) -> PolicyFigures {
        let own = replays.filter { $0.policy == policy }
        let others = Dictionary(
            replays.filter { $0.policy == reference }.map { ($0.repetition, $0.result) },
            uniquingKeysWith: { first, _ in first })
        let indices = Set(members.map(\.index))
        var saved: [Double] = []
        var changes: [Double] = []
        var local: [Double] = []
        var far: [Double] = []
        for replay in own {
            local.append(total(members, replay.result, \.local))
            far.append(total(members, replay.result, \.far))
            guard policy != reference, let other = others[replay.repetition] else { continue }
            let whole = members.filter {
                isWhole($0.index, replay.result) && isWhole($0.index, other)
            }
            let before = total(whole, other, \.local)
            if before > 0 { saved.append(1 - total(whole, replay.result, \.local) / before) }
            let kept = Set(whole.map(\.index))
            let slow = RequestFigures(other.results.filter { kept.contains($0.function) }).p95
            let now = RequestFigures(
                replay.result.results.filter { kept.contains($0.function) }
            ).p95
            if slow > .zero { changes.append(now.seconds / slow.seconds - 1) }
        }
        let results = own.flatMap { $0.result.results }.filter { indices.contains($0.function) }
        let faults = results.compactMap(\.majorFaults)
        return PolicyFigures(
            function: name, policy: policy, requests: RequestFigures(results),
            majorFaults: faults.isEmpty ? nil : faults.reduce(0, +),
            local: BootstrapMean(local, seed: seed), far: BootstrapMean(far, seed: seed),
            saved: BootstrapMean(saved, seed: seed), p95Change: BootstrapMean(changes, seed: seed))
    }

    private static func total(
        _ members: [(index: Int, name: String)], _ result: PhaseResult,
        _ part: (MemoryFigures) -> Double
    ) -> Double {
        members.reduce(0) { sum, member in
            sum + part(result.memory[member.name] ?? MemoryFigures())
        }
    }

    private static func isWhole(_ function: Int, _ result: PhaseResult) -> Bool {
        result.results.allSatisfy { $0.function != function || $0.outcome == .right }
    }
}
