import Glibc
import LinuxSystem
import Synchronization
import Telemetry

/// The connections of one listener: one thread accepts, each connection has a slot and a thread of its own, and
/// there are never more than the limit. Any thread.
final class ConnectionTable: Sendable {
    private struct Slot {
        /// -1 is free.
        var descriptor: Int32 = -1
        /// What the connection's client calls itself; empty when it has not said.
        var client: [UInt8] = []
        var isOpen: Bool { descriptor >= 0 }
    }

    private struct State {
        var slots: [Slot]
        var isStopping = false
    }

    private let listener: FileDescriptor
    private let socketPath: String?
    private let name: String
    private let log: Logger
    private let state: Mutex<State>

    /// - Parameters:
    ///   - socketPath: the listener's file, removed by `stop`; nil for TCP.
    ///   - name: begins the names of threads and of events in the log.
    init(
        _ listener: consuming FileDescriptor, socketPath: String?, name: String, limit: Int,
        log: Logger
    ) {
        self.listener = listener
        self.socketPath = socketPath
        self.name = name
        self.log = log
        state = Mutex(State(slots: [Slot](repeating: Slot(), count: limit)))
    }

    /// Accepts until `stop`. Blocks the calling thread.
    /// - Parameters:
    ///   - serve: converses on a thread of its own; the descriptor is closed when it returns.
    ///   - refuse: tells a client for whom there is no slot, on the accepting thread: it must not wait.
    func run(
        refuse: (_ descriptor: Int32) -> Void,
        serve: @escaping @Sendable (_ descriptor: Int32, _ slot: Int) -> Void
    ) {
        while true {
            do throws(SystemError) {
                try start(listener.accept(), refuse, serve)
            } catch {
                if state.withLock({ $0.isStopping }) { return }
                log.warn("\(name)_accept_failed", ["reason": error.description])
                // Out of descriptors or memory: let others finish before the next try.
                sleepNanoseconds(100_000_000)
            }
        }
    }

    /// Ends accepting and all connections: what they have in flight is answered first. Waits at most
    /// `timeout` nanoseconds for them; true when all have ended.
    func stop(timeout: Int64) -> Bool {
        state.withLock { state in
            state.isStopping = true
            for slot in state.slots where slot.isOpen {
                shutdown(slot.descriptor, Int32(SHUT_RD))
            }
        }
        shutdown(listener.rawValue, Int32(SHUT_RDWR))
        if let socketPath { unsafe unlink(socketPath) }
        let deadline = monotonicNow() + timeout
        while state.withLock({ $0.slots.contains { $0.isOpen } }) {
            if monotonicNow() > deadline { return false }
            sleepNanoseconds(5_000_000)
        }
        return true
    }

    /// Names the client of a slot and ends its older connections. What those still carry is done, or dropped,
    /// before this returns true; false when one has not ended by the deadline (monotonic).
    func fence(_ client: [UInt8], _ slot: Int, deadline: Int64) -> Bool {
        state.withLock { $0.slots[slot].client = client }
        while true {
            let older = state.withLock { state -> Bool in
                let others = state.slots.indices.filter {
                    $0 != slot && state.slots[$0].client == client && state.slots[$0].isOpen
                }
                for other in others { shutdown(state.slots[other].descriptor, Int32(SHUT_RDWR)) }
                return !others.isEmpty
            }
            if !older { return true }
            if monotonicNow() > deadline { return false }
            sleepNanoseconds(1_000_000)
        }
    }

    private func start(
        _ connection: consuming FileDescriptor, _ refuse: (Int32) -> Void,
        _ serve: @escaping @Sendable (Int32, Int) -> Void
    ) throws(SystemError) {
        let raw = connection.rawValue
        let slot = state.withLock { state -> Int? in
            guard !state.isStopping, let free = state.slots.firstIndex(where: { !$0.isOpen })
            else { return nil }
            state.slots[free].descriptor = raw
            return free
        }
        guard let slot else { return refuse(raw) }
        // From here the thread owns the descriptor.
        _ = connection.release()
        do throws(SystemError) {
            _ = try WorkerThread("\(name)-\(slot)") {
                serve(raw, slot)
                self.finish(raw, slot)
            }
        } catch {
            finish(raw, slot)
            throw error
        }
    }

    private func finish(_ raw: Int32, _ slot: Int) {
        // The slot is freed before the number can be used again.
        state.withLock { $0.slots[slot] = Slot() }
        close(raw)
    }
}
