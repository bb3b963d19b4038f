// OffloadEngine: carries out what OffloadPolicy decides, measures what came of it, and undoes what it changed.
//
// Thread model: one control thread owns the policy and all bookkeeping (Controller). One mover thread writes
// pages out, two recall threads read them back; they get work through bounded queues and answer through the
// control thread's inbox. HTTP threads only put events into the inbox and read published snapshots.
// Must not import: Foundation, HTTP, command lines.

import LinuxSystem
import Synchronization

/// A bounded queue between threads: many put, one or more take. Never waits to put.
final class WorkQueue<Element: Sendable>: Sendable {
    private struct State {
        var items: [Element] = []
        var head = 0
        var isClosed = false
    }
    private let state = Mutex(State())
    private let signal: EventSignal
    private let capacity: Int

    init(capacity: Int) throws(SystemError) {
        self.capacity = capacity
        signal = try EventSignal()
    }

    /// Adds an element; false when the queue is full or closed.
    func put(_ element: Element) -> Bool {
        let accepted = state.withLock { state in
            guard !state.isClosed, state.items.count - state.head < capacity else { return false }
            state.items.append(element)
            return true
        }
        if accepted { signal.signal() }
        return accepted
    }

    /// Takes all that is there, waiting at most `timeout` nanoseconds for the first.
    func takeAll(timeout: Int64) -> [Element] {
        wait(timeout)
        return state.withLock { state in
            let taken = Array(state.items[state.head...])
            state.items.removeAll(keepingCapacity: true)
            state.head = 0
            return taken
        }
    }

    /// Takes one, waiting at most `timeout` nanoseconds; nil when none came.
    func take(timeout: Int64) -> Element? {
        wait(timeout)
        let (element, more) = state.withLock { state -> (Element?, Bool) in
            guard state.head < state.items.count else { return (nil, false) }
            let element = state.items[state.head]
            state.head += 1
            if state.head == state.items.count {
                state.items.removeAll(keepingCapacity: true)
                state.head = 0
            } else if state.head > 256 {
                state.items.removeFirst(state.head)
                state.head = 0
            }
            return (element, state.head < state.items.count)
        }
        if more { signal.signal() }
        return element
    }

    /// Nothing can be put any more; takers get what is left.
    func close() {
        state.withLock { $0.isClosed = true }
        signal.signal()
    }

    var isFinished: Bool {
        state.withLock { $0.isClosed && $0.head == $0.items.count }
    }

    private func wait(_ timeout: Int64) {
        let isEmpty = state.withLock { $0.head == $0.items.count && !$0.isClosed }
        if isEmpty {
            // A failed wait only makes the caller look again.
            _ = try? waitReady(signal.descriptor.rawValue, .readable, timeout: timeout)
        }
        signal.drain()
    }
}
