import Synchronization

/// Why a container that runs is not offloaded.
package enum DiscoveryRefusal: String, CaseIterable, Sendable {
    /// Only those that a label speaks for are taken.
    case unlabelled
    /// It holds its pod's namespaces and runs nothing of the user's.
    case sandbox
    /// A label of it was not understood: it is told of and left alone.
    case label
    /// Its process lies in a group that is not the container's own.
    case foreignGroup = "foreign-group"
    /// There are too many.
    case limit
}

/// What became of a container that was found running.
enum DiscoveryOutcome: Equatable, Sendable {
    case taken
    case optedOut
    case refused(DiscoveryRefusal)
}

/// What one source of containers counts since its start; nothing is ever taken back. `seen` less `optedOut` less all of `refused` were
/// given to the controller to be offloaded.
package struct DiscoveryCounters: Equatable, Sendable {
    /// Containers that were found running, each of their lives once.
    package var seen: UInt64 = 0
    package var optedOut: UInt64 = 0
    package var refused: [DiscoveryRefusal: UInt64] = [:]
    /// Requests to the runtime that failed, answers and events that were not understood; without a runtime, group trees and bundles
    /// that were not.
    package var errors: UInt64 = 0
    /// Times that the controller could not take a change; it is told again.
    package var deferred: UInt64 = 0

    package init() {}

    static func + (a: DiscoveryCounters, b: DiscoveryCounters) -> DiscoveryCounters {
        var sum = a
        sum.seen += b.seen
        sum.optedOut += b.optedOut
        sum.refused.merge(b.refused) { $0 + $1 }
        sum.errors += b.errors
        sum.deferred += b.deferred
        return sum
    }
}

/// The counters of one source, written by the thread that follows it and read by any.
final class DiscoveryTally: Sendable {
    private struct State {
        var counters = DiscoveryCounters()
        /// The lives that were counted, by the container's id: listings come again and again.
        var counted: [String: String] = [:]
    }

    private let state = Mutex(State())

    var counters: DiscoveryCounters { state.withLock { $0.counters } }

    /// Counts what became of a container, once in its life: what it was found to be first.
    func note(_ outcome: DiscoveryOutcome, id: String, life: String) {
        state.withLock { state in
            guard state.counted[id] != life else { return }
            // What events tell of between two listings is bounded here; what does not fit may be counted twice.
            if state.counted[id] != nil || state.counted.count < 2 * AnswerLimits.containers {
                state.counted[id] = life
            }
            state.counters.seen += 1
            switch outcome {
            case .taken: break
            case .optedOut: state.counters.optedOut += 1
            case .refused(let reason): state.counters.refused[reason, default: 0] += 1
            }
        }
    }

    /// Forgets the lives of containers that a listing does not have.
    func keep(_ ids: Set<String>) {
        state.withLock { state in state.counted = state.counted.filter { ids.contains($0.key) } }
    }

    func noteError() { state.withLock { $0.counters.errors += 1 } }
    func noteDeferred() { state.withLock { $0.counters.deferred += 1 } }
}

/// The counters of all sources in the Prometheus text format; those of one name are added up. Empty without sources.
package func discoveryMetrics(_ sources: [(name: String, counters: DiscoveryCounters)]) -> String {
    var byName: [String: DiscoveryCounters] = [:]
    for source in sources {
        byName[source.name] = (byName[source.name] ?? DiscoveryCounters()) + source.counters
    }
    if byName.isEmpty { return "" }
    let names = byName.keys.sorted()
    var text = ""
    func family(
        _ name: String, _ help: String, _ values: (DiscoveryCounters) -> [(String, UInt64)]
    ) {
        let full = "farmem_offload_discovery_\(name)_total"
        text += "# HELP \(full) \(help)\n# TYPE \(full) counter\n"
        for source in names {
            for (labels, value) in values(byName[source] ?? DiscoveryCounters()) {
                text += "\(full){source=\"\(source)\"\(labels)} \(value)\n"
            }
        }
    }
    family("containers", "Containers that were found running.") { [("", $0.seen)] }
    family("opt_outs", "Found containers that a label keeps out.") { [("", $0.optedOut)] }
    family("refused", "Found containers that are left alone for another reason.") { counters in
        DiscoveryRefusal.allCases.map {
            (",reason=\"\($0.rawValue)\"", counters.refused[$0] ?? 0)
        }
    }
    family("errors", "Requests that failed and answers that were not understood.") {
        [("", $0.errors)]
    }
    family("deferred", "Changes that the controller could not take; told again.") {
        [("", $0.deferred)]
    }
    return text
}
