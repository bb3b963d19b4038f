import Containers
package import FarMemory
import HTTPEndpoint
package import JSONText
package import LinuxSystem
import Synchronization

/// Memory of one function's containers, as means over the samples.
package struct MemoryFigures: Equatable, Sendable {
    package var samples = 0
    /// Sums over samples of the sums over containers, in bytes.
    var localSum = 0.0
    var idleLocalSum = 0.0
    var farSum = 0.0
    var containerSum = 0
    var idleSum = 0
    /// Since the phase began.
    package var pagesOut: UInt64 = 0
    package var pagesIn: UInt64 = 0
    /// Pages that came back one fault at a time, not by prefetch.
    package var refaults: UInt64 = 0

    private func mean(_ sum: Double) -> Double { samples > 0 ? sum / Double(samples) : 0 }

    package init() {}

    /// Bytes of all containers together, on average over time.
    package var local: Double { mean(localSum) }
    /// Bytes of the idle ones together, on average over time.
    package var idleLocal: Double { mean(idleLocalSum) }
    package var far: Double { mean(farSum) }
    package var containers: Double { mean(Double(containerSum)) }
    package var idleContainers: Double { mean(Double(idleSum)) }
    /// Bytes of one idle container, on average.
    package var localPerIdleContainer: Double { idleSum > 0 ? idleLocalSum / Double(idleSum) : 0 }
}

/// Samples the memory of every container that the gateway has, from a thread of its own.
package final class MemorySampler: Sendable {
    /// What the controller and the kernel counted of one container so far.
    private struct Moved {
        var function: String
        var out: UInt64 = 0
        var back: UInt64 = 0
        var recalled: UInt64 = 0
    }

    /// One container now.
    private struct Sample {
        var id: String
        var function: String
        var isIdle: Bool
        var use: MemoryUse
    }

    private struct State {
        var figures: [String: MemoryFigures] = [:]
        var moved: [String: Moved] = [:]
        var missed = 0
        var timeline = MemoryTimeline()
        var decisions: [JSONValue] = []
        var lastDecision: Int64 = 0
    }

    private let gateway: Endpoint
    private let controller: Endpoint?
    private let interval: Nanoseconds
    private let timelineInterval: Nanoseconds
    private let started = monotonicNow()
    /// On the monotonic clock: samples before it count what moved, not what is held.
    private let measuredFrom: Int64
    private let groups: ControlGroups
    private let state = Mutex(State())
    private let isStopping = Atomic<Bool>(false)
    private let thread = Mutex<WorkerThread?>(nil)

    /// Starts sampling. `controller` is offloadd, where it runs. What containers hold is averaged from the end of the warm-up.
    package init(
        gateway: Endpoint, controller: Endpoint?, functions: [String], warmUp: Nanoseconds = .zero,
        interval: Nanoseconds = .milliseconds(250), timelineInterval: Nanoseconds = .seconds(1)
    ) throws(SystemError) {
        self.gateway = gateway
        self.controller = controller
        self.interval = min(interval, timelineInterval)
        self.timelineInterval = timelineInterval
        measuredFrom = monotonicNow() + warmUp.nanoseconds
        guard let groups = try ControlGroups.discover() else {
            throw SystemError(call: "find the memory controller", code: 19)
        }
        self.groups = groups
        state.withLock { state in
            for function in functions { state.figures[function] = MemoryFigures() }
            state.timeline.startedAtUnix = wallClockNow() / 1_000_000
        }
        let thread = try WorkerThread("sampler") { [self] in run() }
        self.thread.withLock { $0 = thread }
    }

    /// What was sampled of a phase.
    package struct Findings: Sendable {
        package var figures: [String: MemoryFigures]
        /// Samples that could not be taken.
        package var missed: Int
        package var timeline: MemoryTimeline
        /// The controller's decisions, as it tells them.
        package var decisions: [JSONValue]
    }

    /// Ends sampling and gives what was found.
    package func stop() -> Findings {
        isStopping.store(true, ordering: .releasing)
        thread.withLock { thread in
            thread?.join()
            thread = nil
        }
        return state.withLock { state in
            var figures = state.figures
            for moved in state.moved.values {
                figures[moved.function]?.pagesOut += moved.out
                figures[moved.function]?.pagesIn += moved.back
                figures[moved.function]?.refaults +=
                    moved.back > moved.recalled ? moved.back - moved.recalled : 0
            }
            return Findings(
                figures: figures, missed: state.missed, timeline: state.timeline,
                decisions: state.decisions)
        }
    }

    private func run() {
        let gateway = HTTPClient(target: gateway)
        let controller = controller.map { HTTPClient(target: $0) }
        var next = monotonicNow()
        var nextPoint = next
        while !isStopping.load(ordering: .acquiring) {
            if let containers = list(gateway, "/v1/status") {
                let isPoint = monotonicNow() >= nextPoint
                take(containers, forTimeline: isPoint)
                if isPoint { nextPoint = max(nextPoint, next) + timelineInterval.nanoseconds }
                if let controller, let known = list(controller, "/v1/containers") {
                    note(known)
                    noteDecisions(controller)
                }
            } else {
                state.withLock { $0.missed += 1 }
            }
            next = max(next + interval.nanoseconds, monotonicNow())
            sleepNanoseconds(next - monotonicNow())
        }
    }

    private func list(_ client: HTTPClient, _ path: String) -> [JSONValue]? {
        guard let response = try? client.request("GET", path, timeout: .seconds(2)),
            response.status == 200
        else { return nil }
        return (try? JSONValue.parse(response.body))?["containers"]?.array
    }

    private func take(_ containers: [JSONValue], forTimeline: Bool) {
        var uses: [Sample] = []
        for container in containers {
            guard let path = container["cgroup"]?.string, let id = container["id"]?.string,
                let function = container["function"]?.string,
                let phase = container["state"]?.string,
                // A container that starts or goes has no group yet, or no more.
                let use = try? groups.open(path).use()
            else { continue }
            uses.append(
                Sample(id: id, function: function, isIdle: phase == "idle", use: use))
        }
        let point = forTimeline ? timelinePoint(uses) : nil
        state.withLock { state in
            if let point { state.timeline.points.append(point) }
            for one in uses {
                state.moved[one.id, default: Moved(function: one.function)].back =
                    one.use.refaults ?? 0
            }
            guard monotonicNow() >= measuredFrom else { return }
            for name in state.figures.keys { state.figures[name]?.samples += 1 }
            for one in uses {
                state.figures[one.function]?.localSum += Double(one.use.local.bytes)
                state.figures[one.function]?.farSum += Double(one.use.far?.bytes ?? 0)
                state.figures[one.function]?.containerSum += 1
                if one.isIdle {
                    state.figures[one.function]?.idleLocalSum += Double(one.use.local.bytes)
                    state.figures[one.function]?.idleSum += 1
                }
            }
        }
    }

    private func timelinePoint(_ uses: [Sample]) -> TimelinePoint {
        var point = TimelinePoint(milliseconds: (monotonicNow() - started) / 1_000_000)
        for one in uses {
            var holding = point.functions[one.function] ?? TimelinePoint.Holding()
            holding.local += one.use.local.bytes
            holding.far += one.use.far?.bytes ?? 0
            holding.containers += 1
            holding.idle += one.isIdle ? 1 : 0
            point.functions[one.function] = holding
        }
        let counts = HostMemory.swapCounts()
        point.swappedOut = counts.out
        point.swappedIn = counts.in
        return point
    }

    /// What the controller decided since the last time. It keeps the last few thousand.
    private func noteDecisions(_ client: HTTPClient) {
        let last = state.withLock { $0.lastDecision }
        guard
            let response = try? client.request(
                "GET", "/v1/events?since=\(last)", timeout: .seconds(2)),
            response.status == 200,
            let events = (try? JSONValue.parse(response.body))?["events"]?.array
        else { return }
        state.withLock { state in
            for event in events {
                guard let sequence = event["seq"]?.integer, sequence > state.lastDecision else {
                    continue
                }
                state.lastDecision = sequence
                state.decisions.append(event)
            }
        }
    }

    private func note(_ containers: [JSONValue]) {
        state.withLock { state in
            for container in containers {
                guard let id = container["id"]?.string, let function = container["function"]?.string
                else { continue }
                func pages(_ key: String) -> UInt64 {
                    UInt64(max(0, container[key]?.integer ?? 0)) / UInt64(pageBytes)
                }
                state.moved[id, default: Moved(function: function)].out = pages("written_bytes")
                state.moved[id, default: Moved(function: function)].recalled = pages(
                    "recalled_bytes")
            }
        }
    }
}
