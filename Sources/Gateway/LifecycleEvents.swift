import FarMemory
import HTTPEndpoint
import JSONText
import LinuxSystem
import Synchronization
import Telemetry

/// One step in a container's life, as the offload controller takes it at POST /v1/events.
struct LifecycleEvent: Equatable, Sendable {
    enum Kind: String, Sendable {
        case containerStarted = "container_started"
        case runtimeReady = "runtime_ready"
        case initDone = "init_done"
        case requestStart = "request_start"
        case requestEnd = "request_end"
        case containerStopped = "container_stopped"
    }

    var kind: Kind
    var container: String
    var function: String
    var controlGroup: String?
    var pid: Int32?
    /// When it will be recycled if no request comes, from the event on.
    var keepAlive: Nanoseconds?
    var latency: Nanoseconds?

    var json: JSONValue {
        var members: [JSONValue.Member] = [
            .init("event", JSONValue(kind.rawValue)), .init("container", JSONValue(container)),
            .init("function", JSONValue(function)),
        ]
        if let controlGroup { members.append(.init("cgroup", JSONValue(controlGroup))) }
        if let pid { members.append(.init("pid", JSONValue(pid))) }
        if let keepAlive {
            members.append(.init("keep_alive_ms", JSONValue(keepAlive.milliseconds)))
        }
        if let latency { members.append(.init("latency_us", JSONValue(latency.microseconds))) }
        return .object(members)
    }
}

/// Sends lifecycle events to the offload controller from a thread of its own. `post` never waits: when the queue is full or the
/// controller is away, events are dropped and counted. When it comes back it is told again what runs.
package final class LifecycleEvents: Sendable {
    private struct State {
        var queue: [LifecycleEvent] = []
        var isStopping = false
        var isConnected = true
    }

    private let target: Endpoint
    private let capacity: Int
    private let logger: Logger
    private let state = Mutex(State())
    private let wake: EventSignal
    private let thread = Mutex<WorkerThread?>(nil)
    /// What runs now, for a controller that was away.
    private let living: @Sendable () -> [LifecycleEvent]
    let sent = Counter()
    let dropped = Counter()

    private static let batchMax = 256
    private static let timeout = Nanoseconds.seconds(2)
    private static let retryPause: Int64 = 500_000_000

    init(
        target: Endpoint, capacity: Int, logger: Logger,
        living: @escaping @Sendable () -> [LifecycleEvent]
    ) throws(SystemError) {
        self.target = target
        self.capacity = capacity
        self.logger = logger
        self.living = living
        wake = try EventSignal()
        let thread = try WorkerThread("events") { [self] in run() }
        self.thread.withLock { $0 = thread }
    }

    func post(_ event: LifecycleEvent) {
        let isTaken = state.withLock { state in
            guard state.queue.count < capacity, !state.isStopping else { return false }
            state.queue.append(event)
            return true
        }
        if isTaken { wake.signal() } else { dropped.add() }
    }

    /// Sends what is queued, as far as the controller takes it at once, and ends the thread. Idempotent.
    func stop() {
        state.withLock { $0.isStopping = true }
        wake.signal()
        thread.withLock { thread in
            thread?.join()
            thread = nil
        }
    }

    private func run() {
        let client = HTTPClient(target: target)
        while true {
            _ = try? waitReady(wake.descriptor.rawValue, .readable, timeout: 1_000_000_000)
            wake.drain()
            while send(with: client) {}
            let isStopping = state.withLock { $0.isStopping }
            if isStopping { return }
        }
    }

    /// Sends one batch; false when nothing is left or the controller did not take it.
    private func send(with client: HTTPClient) -> Bool {
        let (batch, wasConnected, isStopping) = state.withLock { state in
            let batch = Array(state.queue.prefix(Self.batchMax))
            state.queue.removeFirst(batch.count)
            return (batch, state.isConnected, state.isStopping)
        }
        if batch.isEmpty && wasConnected { return false }
        // After an absence the controller knows nothing: what runs comes first, and stale events are dropped.
        let events = wasConnected ? batch : living()
        if events.isEmpty && !wasConnected && batch.isEmpty && isStopping { return false }
        if post(events, with: client) {
            state.withLock { $0.isConnected = true }
            sent.add(UInt64(events.count))
            if !wasConnected { logger.info("controller_connected", ["target": target]) }
            return true
        }
        dropped.add(UInt64(batch.count))
        state.withLock { $0.isConnected = false }
        if !isStopping { sleepNanoseconds(Self.retryPause) }
        return false
    }

    private func post(_ events: [LifecycleEvent], with client: HTTPClient) -> Bool {
        do throws(HTTPClientError) {
            let body = JSONValue.array(events.map(\.json)).renderedBytes()
            let response = try client.request(
                "POST", "/v1/events", headers: [("Content-Type", "application/json")], body: body,
                timeout: Self.timeout)
            guard response.status == 204 else {
                logger.warn(
                    "events_refused", ["status": response.status, "reason": response.text])
                return response.status == 400
            }
            return true
        } catch {
            logger.debug("controller_away", ["reason": error.description])
            return false
        }
    }
}
