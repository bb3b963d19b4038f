package import FarMemory
package import HTTPEndpoint
import JSONText
package import LinuxSystem
import Synchronization
package import Telemetry

/// Routes requests to containers, and starts, keeps and removes them.
package final class FunctionGateway: Sendable {
    package struct Settings: Sendable {
        package var limits = GatewayLimits()
        /// Directory of agent.py.
        package var agentDirectory: String
        /// Below the mount of each controller.
        package var controlGroupParent = "/farmem"
        /// Where lifecycle events go; nil: nowhere.
        package var controller: Endpoint?

        package init(agentDirectory: String) { self.agentDirectory = agentDirectory }
    }

    let settings: Settings
    /// Those that are not served any more too.
    private let services = Mutex<[String: FunctionService]>([:])
    let registry = Mutex<[String: ContainerEntry]>([:])
    let metrics = MetricRegistry()
    private let runtime: any ContainerRuntime
    private let logger: Logger
    private let nextNumber = Atomic<UInt64>(1)
    private let caretaker: Caretaker
    private let events = Mutex<LifecycleEvents?>(nil)

    /// Removes what an earlier run left behind, and is ready for requests then.
    package init(
        manifests: [FunctionManifest], runtime: any ContainerRuntime, settings: Settings,
        logger: Logger
    ) throws(SystemError) {
        self.settings = settings
        self.runtime = runtime
        self.logger = logger
        caretaker = try Caretaker()
        for manifest in manifests { add(manifest) }
        for id in runtime.leftovers() {
            logger.warn("leftover_removed", ["container": id])
            do throws(RuntimeError) { try runtime.remove(id) } catch {
                logger.error("remove_failed", ["container": id, "reason": error.description])
            }
        }
        if let controller = settings.controller {
            let events = try LifecycleEvents(
                target: controller, capacity: settings.limits.eventsMax, logger: logger
            ) { [weak self] in self?.livingEvents() ?? [] }
            metrics.collectCounter(
                "farmem_gateway_events_sent_total",
                help: "Lifecycle events taken by the controller."
            ) { [.init([:], Double(events.sent.value))] }
            metrics.collectCounter(
                "farmem_gateway_events_dropped_total",
                help: "Lifecycle events dropped, the controller being slow or away."
            ) { [.init([:], Double(events.dropped.value))] }
            self.events.withLock { $0 = events }
        }
        registerGauges()
        try caretaker.start { [self] in attend($0) }
    }

    // MARK: functions

    func service(_ name: String) -> FunctionService? { services.withLock { $0[name] } }

    private var allServices: [FunctionService] { services.withLock { Array($0.values) } }

    /// Sorted by name.
    var servedFunctions: [FunctionService] {
        allServices.filter(\.isServed).sorted { $0.name < $1.name }
    }

    func add(_ manifest: FunctionManifest) {
        let service = FunctionService(manifest, limits: settings.limits, metrics: metrics)
        services.withLock { $0[manifest.name] = service }
    }

    /// Ends everything: waiting requests are refused, containers removed. Call after the HTTP server has stopped. Idempotent.
    package func stop() {
        var idle: [FunctionContainer] = []
        for service in allServices { idle += service.pool.close() }
        for container in idle { retire(container) }
        caretaker.stop()
        // Whatever is still registered: a request gave it up after the caretaker had gone.
        for id in registry.withLock({ Array($0.keys) }) { removeNow(id) }
        events.withLock { events in
            events?.stop()
            events = nil
        }
        runtime.cleanUp()
    }

    /// Runs one request of a function.
    package func invoke(_ function: String, body: [UInt8]) -> HTTPResponse {
        guard let service = service(function), service.isServed else {
            return .error(404, "no function \(function)")
        }
        let began = monotonicNow()
        var response = serve(service, body: body, began: began)
        let taken = monotonicNow() - began
        service.latencies.record(UInt64(max(0, taken)))
        response.headers.append(("X-Farmem-Duration-Us", "\(taken / 1000)"))
        return response
    }

    private func serve(
        _ service: FunctionService, body: [UInt8], began: Int64
    ) -> HTTPResponse {
        let deadline = began + settings.limits.waitTimeout.nanoseconds
        // Each round but the last meets a container that has ended; there are no more of those than containers.
        for _ in 0...settings.limits.containersPerFunction {
            let grant: PoolWaiter.Grant
            do throws(SystemError) {
                switch try service.pool.acquire() {
                case .container(let container): grant = .container(container)
                case .start: grant = .start
                case .closed: grant = .closed
                case .full: return refuse(service, "the queue of \(service.name) is full")
                case .wait(let waiter):
                    let left = Nanoseconds(deadline - monotonicNow())
                    guard let got = try waiter.wait(left) ?? service.pool.withdraw(waiter) else {
                        return refuse(
                            service, "no container of \(service.name) became free")
                    }
                    grant = got
                }
            } catch {
                return .error(500, error.description)
            }
            switch grant {
            case .closed where !service.isServed:
                return .error(404, "no function \(service.name)")
            case .closed: return .error(503, "the gateway is shutting down")
            case .start: return serveCold(service, body: body)
            case .container(let container) where container.hasEnded: retire(container)
            case .container(let container):
                return run(container, of: service, body: body, isCold: false)
            }
        }
        return .error(502, "the containers of \(service.name) keep ending")
    }

    private func refuse(_ service: FunctionService, _ reason: String) -> HTTPResponse {
        service.refused.add()
        var response = HTTPResponse.error(503, reason)
        response.headers.append(("Retry-After", "1"))
        return response
    }

    private func serveCold(_ service: FunctionService, body: [UInt8]) -> HTTPResponse {
        service.coldStarts.add()
        do throws(ContainerFailure) {
            let container = try startContainer(service)
            return run(container, of: service, body: body, isCold: true)
        } catch {
            service.failures.add()
            logger.warn(
                "start_failed", ["function": service.name, "reason": error.message])
            return failure(error)
        }
    }

    private func failure(_ error: ContainerFailure) -> HTTPResponse {
        switch error {
        case .deadline(let what): .error(504, what)
        case .broken(let what): .error(502, what)
        }
    }

    /// Starts a container and takes it through its barriers. The caller holds a place of the pool, which is given back on failure.
    private func startContainer(
        _ service: FunctionService
    ) throws(ContainerFailure) -> FunctionContainer {
        let manifest = service.manifest
        let id = "\(manifest.name)-\(nextNumber.wrappingAdd(1, ordering: .relaxed).oldValue)"
        let spec = ContainerSpec(
            id: id, manifest: manifest, agentDirectory: settings.agentDirectory,
            controlGroup: "\(settings.controlGroupParent)/\(id)")
        registry.withLock {
            $0[id] = ContainerEntry(
                id: id, function: manifest.name, controlGroup: spec.controlGroup, pid: 0,
                state: .starting, since: monotonicNow())
        }
        do {
            let started = try runtime.start(spec)
            let container = try FunctionContainer(spec, started)
            registry.withLock { $0[id]?.pid = started.pid }
            post(.containerStarted, container)
            let deadline = monotonicNow() + manifest.initTimeout.nanoseconds
            try container.waitForRuntime(until: deadline)
            post(.runtimeReady, container)
            try container.initialize(until: deadline)
            post(.initDone, container)
            return container
        } catch {
            mark(id, .stopping)
            caretaker.remove(id)
            throw (error as? ContainerFailure) ?? .broken("\(error)")
        }
    }

    private func run(
        _ container: FunctionContainer, of service: FunctionService, body: [UInt8], isCold: Bool
    ) -> HTTPResponse {
        service.requests.add()
        mark(container.id, .busy)
        post(.requestStart, container)
        let began = monotonicNow()
        var response: HTTPResponse
        do throws(ContainerFailure) {
            let deadline = began + service.manifest.runTimeout.nanoseconds
            let answer = try container.run(body, until: deadline)
            response = HTTPResponse(
                status: answer.status, headers: [("Content-Type", "application/json")],
                body: answer.body)
            if let faults = answer.header("X-Farmem-Major-Faults") {
                response.headers.append(("X-Farmem-Major-Faults", faults))
            }
            let now = monotonicNow()
            mark(container.id, .idle, requests: container.requests)
            post(.requestEnd, container, latency: Nanoseconds(now - began))
            let isCurrent = container.manifest == service.manifest
            if !isCurrent || !service.pool.release(container, at: now) { retire(container) }
        } catch {
            service.failures.add()
            logger.warn("request_failed", ["container": container.id, "reason": error.message])
            response = failure(error)
            retire(container)
        }
        response.headers.append(("X-Farmem-Container", container.id))
        response.headers.append(("X-Farmem-Cold", isCold ? "1" : "0"))
        return response
    }

    // MARK: removal

    /// Gives a container to the caretaker. Its place is free when it is gone.
    func retire(_ container: FunctionContainer) {
        mark(container.id, .stopping)
        caretaker.remove(container.id)
    }

    /// The caretaker's round: expired and dead containers, then those it was given.
    private func attend(_ given: [String]) {
        let now = monotonicNow()
        var ids = given
        for service in allServices {
            let expired = service.pool.takeExpired(keepAlive: settings.limits.keepAlive, at: now)
            for container in expired {
                mark(container.id, .stopping)
                service.recycled.add()
                ids.append(container.id)
            }
        }
        for id in ids { removeNow(id) }
    }

    private func removeNow(_ id: String) {
        guard let entry = registry.withLock({ $0[id] }) else { return }
        events.withLock { $0 }?.post(
            LifecycleEvent(kind: .containerStopped, container: id, function: entry.function))
        do throws(RuntimeError) {
            try runtime.remove(id)
        } catch {
            logger.error("remove_failed", ["container": id, "reason": error.description])
        }
        registry.withLock { _ = $0.removeValue(forKey: id) }
        service(entry.function)?.pool.forget()
        logger.debug("container_removed", ["container": id])
    }

    // MARK: bookkeeping

    private func mark(_ id: String, _ state: ContainerState, requests: Int? = nil) {
        registry.withLock { registry in
            registry[id]?.state = state
            registry[id]?.since = monotonicNow()
            if let requests { registry[id]?.requests = requests }
        }
    }

    private func post(
        _ kind: LifecycleEvent.Kind, _ container: FunctionContainer, latency: Nanoseconds? = nil
    ) {
        guard let events = events.withLock({ $0 }) else { return }
        var event = LifecycleEvent(
            kind: kind, container: container.id, function: container.function)
        if kind == .containerStarted {
            event.controlGroup = container.controlGroup
            event.pid = container.pid
        }
        if kind == .initDone || kind == .requestEnd {
            event.keepAlive = settings.limits.keepAlive
        }
        event.latency = latency
        events.post(event)
    }

    /// What a controller that was away needs to know.
    private func livingEvents() -> [LifecycleEvent] {
        let now = monotonicNow()
        return registry.withLock { Array($0.values) }.flatMap { entry -> [LifecycleEvent] in
            guard entry.pid > 0, entry.state != .stopping else { return [] }
            func event(_ kind: LifecycleEvent.Kind) -> LifecycleEvent {
                LifecycleEvent(kind: kind, container: entry.id, function: entry.function)
            }
            var started = event(.containerStarted)
            started.controlGroup = entry.controlGroup
            started.pid = entry.pid
            guard entry.state != .starting else { return [started] }
            var ready = event(.initDone)
            ready.keepAlive = Nanoseconds(
                max(0, settings.limits.keepAlive.nanoseconds - (now - entry.since)))
            let busy = entry.state == .busy ? [event(.requestStart)] : []
            return [started, event(.runtimeReady), ready] + busy
        }
    }
}
