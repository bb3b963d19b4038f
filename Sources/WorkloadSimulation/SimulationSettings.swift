package import FarMemory
package import OffloadPolicy
import WorkloadTrace

/// What is simulated beside the trace.
package struct SimulationSettings: Sendable {
    /// Its name in reports.
    package var name: String
    /// Nil: nothing is ever offloaded; what all the others are compared with.
    package var policy: PolicySettings?
    package var keepAlive = Nanoseconds.seconds(600)
    /// How often the policy would look at idle containers if it were not for those ticks that change nothing.
    package var tick = Nanoseconds.seconds(1)
    /// Far memory altogether.
    package var farSpace = ByteCount.gib(1024)
    package var costs = CostModel.standard
    /// All trace functions have this profile; nil: by their durations.
    package var profile: String?
    package var seed: UInt64 = 1
    /// Calls of a function in a minute that are simulated one by one; more are run back to back on as many containers.
    package var callsPerMinuteMax: UInt32 = 4
    /// Tick at each multiple and serve all: slow, for tests.
    package var isDense = false
    /// Note each pause that ended in reuse, for the oracle.
    package var collectsReuse = false

    package init(name: String, policy: PolicySettings?) {
        self.name = name
        self.policy = policy
    }
}

/// How often a function is called, in FaaSMem's classes.
package enum LoadClass: Int, CaseIterable, Sendable {
    case high, middle, low

    /// 512 requests a day or more, 64 or more, less.
    package init(requestsPerDay: Double) {
        self = requestsPerDay >= 512 ? .high : requestsPerDay >= 64 ? .middle : .low
    }

    package var word: String {
        switch self {
        case .high: "high"
        case .middle: "middle"
        case .low: "low"
        }
    }
}

/// The trace's functions as containers.
struct FunctionShapes {
    /// Per function: its profile's index and its shape.
    let profiles: [Int]
    let shapes: [ContainerShape]
    let classes: [LoadClass]
    private let spreads: [(Percentiles, Double)?]

    init(_ trace: WholeTrace, _ settings: SimulationSettings) {
        let days = max(trace.length.seconds / 86_400, 1e-9)
        classes = trace.functions.map { LoadClass(requestsPerDay: Double($0.calls) / days) }
        let known = settings.costs.profiles
        precondition(!known.isEmpty, "a cost model without functions")
        let order = known.indices.sorted { known[$0].requestTime < known[$1].requestTime }
        var profiles = Array(repeating: order[0], count: trace.functions.count)
        if let name = settings.profile, let only = known.firstIndex(where: { $0.name == name }) {
            profiles = Array(repeating: only, count: trace.functions.count)
        } else {
            // Short ones onto short ones, as many each; ties by place.
            let ranked = trace.functions.indices.sorted {
                (trace.functions[$0].duration ?? .zero, $0)
                    < (trace.functions[$1].duration ?? .zero, $1)
            }
            for (rank, function) in ranked.enumerated() {
                profiles[function] = order[rank * known.count / ranked.count]
            }
        }
        self.profiles = profiles
        shapes = trace.functions.indices.map { index in
            let profile = known[profiles[index]]
            let memory = trace.functions[index].memory
            return ContainerShape(memory.map { profile.scaled(to: $0) } ?? profile)
        }
        spreads = trace.functions.map { function in
            guard let spread = function.memories, let mean = function.memory, mean > .zero else {
                return nil
            }
            return (spread, mean.mebibytes)
        }
    }

    /// One container's shape: where the trace has a distribution of memory, a draw from it.
    func shape(of function: Int, _ random: inout SeededRandom) -> ContainerShape {
        guard let (spread, mean) = spreads[function] else { return shapes[function] }
        return shapes[function].scaled(spread.value(at: random.unit()) / mean)
    }
}
