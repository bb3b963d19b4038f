// Measurement: replays a schedule of requests against the gateway, and measures what it cost.
//
// Purpose: the figures of `farmem bench functions`: latency of every request from the moment it was due (open loop, so a slow
// answer delays nobody's clock), memory of every container at fixed intervals, every response verified.
// Thread model: the replay's workers and the sampler are threads of their own; results are merged under mutexes.
// Invariants: a request that got no answer or a wrong one is counted, never left out of the figures.
// Must not import: Foundation.

import FarMemory
import Synchronization

/// Tells long work to end early. Any thread.
package final class Cancellation: Sendable {
    private let flag = Atomic<Bool>(false)
    package init() {}
    package func cancel() { flag.store(true, ordering: .releasing) }
    package var isCancelled: Bool { flag.load(ordering: .acquiring) }
}
