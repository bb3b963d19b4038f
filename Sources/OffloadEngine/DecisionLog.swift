package import FarMemory
package import OffloadPolicy
import Synchronization

/// One decision as the event log tells it: what, of which container, by which rule and figures, and what came of it.
package struct DecisionRecord: Equatable, Sendable {
    /// Counts up from 1 without gaps.
    package var sequence: UInt64
    /// Nanoseconds since 1970.
    package var time: Int64
    package var container: String
    package var function: String
    package var rule: Rule
    package var action: String
    package var reason: String
    /// Bytes written to far memory, pages that left local memory, that were found hot, that were recalled.
    package var written = ByteCount.zero
    package var released = PageCount.zero
    package var hot = PageCount.zero
    package var recalled = PageCount.zero
    /// Pages read back from far memory since the container's previous decision; nil when unknown.
    package var refaults: UInt64?
    package var wasHalted = false
    package var duration = Nanoseconds.zero
}

/// The last decisions, bounded. Any thread.
package final class DecisionLog: Sendable {
    private struct State {
        var records: [DecisionRecord] = []
        var next: UInt64 = 1
    }
    private let state = Mutex(State())
    private let capacity: Int

    package init(capacity: Int) { self.capacity = capacity }

    /// Adds a record and gives it its number.
    package func append(_ record: DecisionRecord) {
        state.withLock { state in
            var numbered = record
            numbered.sequence = state.next
            state.next += 1
            if state.records.count >= capacity + capacity / 4 {
                state.records.removeFirst(state.records.count - capacity)
            }
            state.records.append(numbered)
        }
    }

    /// Records after `sequence`, oldest first, at most `limit`.
    package func records(after sequence: UInt64, limit: Int = 1000) -> [DecisionRecord] {
        state.withLock { state in
            Array(state.records.drop { $0.sequence <= sequence }.prefix(limit))
        }
    }

    package var last: UInt64 { state.withLock { $0.next - 1 } }
}
