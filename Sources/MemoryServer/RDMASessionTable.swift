import LinuxSystem
import PoolProtocol
import Synchronization
import Verbs

/// What the listener's thread tells a session's.
enum RDMANotice {
    /// A data queue wants to be connected; the session's to accept, or to refuse and end.
    case queue(UInt16, RDMAConnection, readsIn: Int)
    /// A data queue's peer is gone.
    case queueClosed(UInt16)
    /// The session is over.
    case end(RDMASessionEnd)
}

/// Why a session ended.
enum RDMASessionEnd: Error, Equatable {
    /// The client said so, or its connection is gone.
    case closed
    case malformed(String)
    /// Too slow to open its lease, or to take a reply.
    case tooSlow
    /// Nothing was heard of it.
    case silent
    /// Its client has another session now, or somebody else came while it still had no lease.
    case replaced
    case shuttingDown
    case failed(SystemError)
    case refused
}

/// A session as the other threads know it.
final class RDMASessionEntry: Sendable {
    struct State {
        var notices: [RDMANotice] = []
        /// Nobody reads the notices any more.
        var isEnded = false
        var number: UInt64 = 0
        var token: [UInt8] = []
        var leaseName = ""
        var isOpen: Bool { number != 0 }
    }

    /// In the events of its connections: which session, and which of its queues.
    let context: UInt64
    let since: Int64
    let wake: EventSignal
    let state: Mutex<State>

    init(context: UInt64) throws(SystemError) {
        self.context = context
        since = monotonicNow()
        wake = try EventSignal()
        state = Mutex(State())
    }

    /// False when the session has ended, or has more queue requests waiting than it may have queues: the notice was not taken.
    func post(_ notice: RDMANotice, limit: Int) -> Bool {
        let isTaken = state.withLock { state -> Bool in
            guard !state.isEnded, state.notices.count < limit else { return false }
            state.notices.append(notice)
            return true
        }
        if isTaken { wake.signal() }
        return isTaken
    }

    /// Ends the session soon, whatever waits.
    func end(_ reason: RDMASessionEnd) { _ = post(.end(reason), limit: .max) }
}

/// The sessions of one listener. Any thread.
final class RDMASessionTable: Sendable {
    private struct State {
        var entries: [RDMASessionEntry?]
        var generation: UInt64 = 0
        var isStopping = false
    }

    private let limits: RDMALimits
    private let state: Mutex<State>

    init(_ limits: RDMALimits) {
        self.limits = limits
        // Some of those that were told to end may still be at it.
        let slots = limits.sessions + 2 * limits.negotiating
        state = Mutex(State(entries: [RDMASessionEntry?](repeating: nil, count: slots)))
    }

    /// A place for a new session, at the cost of the oldest that has no lease when there are too many of those.
    /// nil when all places are taken or the server is going down.
    func add() throws(SystemError) -> RDMASessionEntry? {
        let (slot, generation) = state.withLock { state -> (Int?, UInt64) in
            guard !state.isStopping else { return (nil, 0) }
            let waiting = state.entries.compactMap { $0 }.filter { entry in
                entry.state.withLock { !$0.isOpen && !$0.isEnded }
            }
            if waiting.count >= limits.negotiating {
                waiting.min { $0.since < $1.since }?.end(.replaced)
            }
            state.generation += 1
            return (state.entries.firstIndex { $0 == nil }, state.generation)
        }
        guard let slot else { return nil }
        // Only the listener's thread adds, so the place is still free.
        let entry = try RDMASessionEntry(context: generation << 32 | UInt64(slot) << 16)
        state.withLock { $0.entries[slot] = entry }
        return entry
    }

    /// Who an event is for, and which of its queues; nil when it has ended.
    func find(context: UInt64) -> (entry: RDMASessionEntry, queue: UInt16)? {
        let slot = Int(context >> 16 & 0xFFFF)
        let queue = UInt16(truncatingIfNeeded: context)
        return state.withLock { state in
            guard state.entries.indices.contains(slot), let entry = state.entries[slot],
                entry.context == context & ~0xFFFF
            else { return nil }
            return (entry, queue)
        }
    }

    /// The session that has this number and token.
    func find(number: UInt64, token: [UInt8]) -> RDMASessionEntry? {
        let entries = state.withLock { $0.entries }
        return entries.compactMap { $0 }.first { entry in
            entry.state.withLock {
                $0.isOpen && $0.number == number && equalInConstantTime($0.token, token)
            }
        }
    }

    /// Gives a session its number and token; false when there are too many with a lease.
    func open(
        _ entry: RDMASessionEntry, number: UInt64, token: [UInt8], leaseName: String
    ) -> Bool {
        state.withLock { state in
            let open = state.entries.compactMap { $0 }.filter { other in
                other.state.withLock { $0.isOpen }
            }
            guard open.count < limits.sessions else { return false }
            entry.state.withLock {
                $0.number = number
                $0.token = token
                $0.leaseName = leaseName
            }
            return true
        }
    }

    /// Takes an ended session out. What was posted and not read is returned, for connections to be refused.
    func remove(_ entry: RDMASessionEntry) -> [RDMANotice] {
        let left = entry.state.withLock { state -> [RDMANotice] in
            state.isEnded = true
            defer { state.notices = [] }
            return state.notices
        }
        state.withLock { state in
            let slot = Int(entry.context >> 16 & 0xFFFF)
            if state.entries[slot] === entry { state.entries[slot] = nil }
        }
        return left
    }

    /// Ends all sessions and lets no more in.
    func stop() {
        let entries = state.withLock { state -> [RDMASessionEntry?] in
            state.isStopping = true
            return state.entries
        }
        for entry in entries { entry?.end(.shuttingDown) }
    }

    var isStopping: Bool { state.withLock { $0.isStopping } }
    var isEmpty: Bool { state.withLock { $0.entries.allSatisfy { $0 == nil } } }
}
