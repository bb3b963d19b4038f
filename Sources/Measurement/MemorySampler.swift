import Containers
package import FarMemory
import HTTPEndpoint
import JSONText
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

    private struct State {
        var figures: [String: MemoryFigures] = [:]
        var moved: [String: Moved] = [:]
        var missed = 0
    }

    private let gateway: Endpoint
    private let controller: Endpoint?
    private let interval: Nanoseconds
    /// On the monotonic clock: samples before it count what moved, not what is held.
    private let measuredFrom: Int64
    private let groups: ControlGroups
    private let state = Mutex(State())
    private let isStopping = Atomic<Bool>(false)
    private let thread = Mutex<WorkerThread?>(nil)

    /// Starts sampling. `controller` is offloadd, where it runs. What containers hold is averaged from the end of the warm-up.
    package init(
        gateway: Endpoint, controller: Endpoint?, functions: [String], warmUp: Nanoseconds = .zero,
        interval: Nanoseconds = .milliseconds(250)
    ) throws(SystemError) {
        self.gateway = gateway
        self.controller = controller
        self.interval = interval
        measuredFrom = monotonicNow() + warmUp.nanoseconds
        guard let groups = try ControlGroups.discover() else {
            throw SystemError(call: "find the memory controller", code: 19)
        }
        self.groups = groups
        state.withLock { state in
            for function in functions { state.figures[function] = MemoryFigures() }
        }
        let thread = try WorkerThread("sampler") { [self] in run() }
        self.thread.withLock { $0 = thread }
    }

    /// Ends sampling and gives the figures by function, and how many samples could not be taken.
    package func stop() -> (figures: [String: MemoryFigures], missed: Int) {
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
            return (figures, state.missed)
        }
    }

    private func run() {
        let gateway = HTTPClient(target: gateway)
        let controller = controller.map { HTTPClient(target: $0) }
        var next = monotonicNow()
        while !isStopping.load(ordering: .acquiring) {
            if let containers = list(gateway, "/v1/status") {
                take(containers)
                if let controller, let known = list(controller, "/v1/containers") {
                    note(known)
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

    private func take(_ containers: [JSONValue]) {
        var uses: [(id: String, function: String, isIdle: Bool, use: MemoryUse)] = []
        for container in containers {
            guard let path = container["cgroup"]?.string, let id = container["id"]?.string,
                let function = container["function"]?.string,
                let phase = container["state"]?.string,
                // A container that starts or goes has no group yet, or no more.
                let use = try? groups.open(path).use()
            else { continue }
            uses.append((id, function, phase == "idle", use))
        }
        state.withLock { state in
            for (id, function, _, use) in uses {
                state.moved[id, default: Moved(function: function)].back = use.refaults ?? 0
            }
            guard monotonicNow() >= measuredFrom else { return }
            for name in state.figures.keys { state.figures[name]?.samples += 1 }
            for (_, function, isIdle, use) in uses {
                state.figures[function]?.localSum += Double(use.local.bytes)
                state.figures[function]?.farSum += Double(use.far?.bytes ?? 0)
                state.figures[function]?.containerSum += 1
                if isIdle {
                    state.figures[function]?.idleLocalSum += Double(use.local.bytes)
                    state.figures[function]?.idleSum += 1
                }
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
