import LinuxSystem
import Synchronization

/// The thread that removes containers: those it is given, and, twice a second, those that the round finds itself.
final class Caretaker: Sendable {
    private struct State {
        var given: [String] = []
        var isStopping = false
    }

    private let state = Mutex(State())
    private let wake: EventSignal
    private let thread = Mutex<WorkerThread?>(nil)
    private static let interval: Int64 = 500_000_000

    init() throws(SystemError) { wake = try EventSignal() }

    /// Starts the rounds. `round` gets the ids that were given since the last.
    func start(_ round: @escaping @Sendable ([String]) -> Void) throws(SystemError) {
        let thread = try WorkerThread("caretaker") { [self] in
            while true {
                _ = try? waitReady(wake.descriptor.rawValue, .readable, timeout: Self.interval)
                wake.drain()
                let (given, isStopping) = state.withLock { state in
                    defer { state.given = [] }
                    return (state.given, state.isStopping)
                }
                round(given)
                if isStopping { return }
            }
        }
        self.thread.withLock { $0 = thread }
    }

    /// Gives a container to be removed soon. As many as there are containers: bounded by the pools.
    func remove(_ id: String) {
        state.withLock { $0.given.append(id) }
        wake.signal()
    }

    /// Removes what was given so far and ends. Idempotent.
    func stop() {
        state.withLock { $0.isStopping = true }
        wake.signal()
        thread.withLock { thread in
            thread?.join()
            thread = nil
        }
    }
}
