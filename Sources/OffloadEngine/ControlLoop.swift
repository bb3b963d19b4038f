import Containers
import FarMemory
import LinuxSystem
import OffloadPolicy
import Synchronization
import Telemetry

/// The control thread's own state: the policy, and the names behind its handles.
struct ControlLoop {
    private let controller: Controller
    private var policy: PolicyMachine
    private var containers: [ContainerHandle: EngineContainer] = [:]
    private var handles: [String: ContainerHandle] = [:]
    private var nextHandle: UInt64 = 1
    private var counters = EngineCounters()
    private var host = HostWatch()
    private var watcher: ContainerWatcher
    private var measuredAt: Int64 = 0
    private var flushedAt: Int64 = 0
    private var censuses = CensusSchedule()
    private var pullBacksLeft = 0
    private var refreshedAt: Int64 = 0
    private var refaultsSeen: [ContainerHandle: UInt64] = [:]
    private let startedAt = wallClockNow()
    private let recorder: PolicyRecorder?
    private var rules: [FunctionRule]

    init(_ controller: Controller, restored: UInt64, recorder: PolicyRecorder? = nil) {
        self.controller = controller
        self.recorder = recorder
        rules = controller.settings.functionRules
        policy = PolicyMachine(
            settings: controller.settings.policy, at: Nanoseconds(monotonicNow()))
        watcher = ContainerWatcher(settings: controller.settings, groups: controller.groups)
        counters.restored = restored
    }

    /// Serves messages and ticks until told to stop.
    mutating func run() {
        let tick = controller.settings.tickInterval.nanoseconds
        var nextTick = monotonicNow()
        publish()
        while true {
            let wait = max(0, nextTick - monotonicNow())
            for message in controller.inbox.takeAll(timeout: wait) {
                if case .stop = message {
                    haltAll()
                    recorder?.flush()
                    return
                }
                take(message)
            }
            let now = monotonicNow()
            if now >= nextTick {
                self.tick(now)
                nextTick = now + tick
            }
        }
    }

    private mutating func take(_ message: Message) {
        switch message {
        case .event(let event, let at):
            let at = Nanoseconds(at)
            if event.kind == .containerStarted, let group = event.controlGroup {
                for yielded in watcher.yield(group) { take(yielded, at: at) }
            }
            take(event, at: at)
        case .found(let container):
            guard !isTaken(container.group) else { break }
            let now = monotonicNow()
            for event in watcher.adopt(container, at: now) { take(event, at: Nanoseconds(now)) }
        case .lost(let name):
            for event in watcher.drop(name) { take(event, at: Nanoseconds(monotonicNow())) }
        case .report(let item, let report, let duration):
            note(item, report, duration)
            feed(.reported(report), item.container.handle, at: Nanoseconds(monotonicNow()))
        case .recalled(let item, let pages, let duration):
            counters.recalled += pages
            if item.decision.action == .pullBack {
                pullBacksLeft -= 1
                // Whoever waits for it looks at what is far now.
                measure(item.container.handle, at: Nanoseconds(monotonicNow()))
                if pullBacksLeft == 0 { publish() }
            }
            var record = record(item.decision, item.container)
            record.recalled = pages
            record.duration = Nanoseconds(duration)
            controller.decisions.append(record)
        case .censused(let duration): censuses.done(at: monotonicNow(), took: duration)
        case .maintenance(let isOn):
            controller.inMaintenance.store(isOn, ordering: .relaxed)
            var decisions: [Decision] = []
            let now = Nanoseconds(monotonicNow())
            policy.setMaintenance(isOn, at: now, into: &decisions)
            recorder?.note(.maintenance(isOn, at: now), decisions)
            for decision in decisions { carryOut(decision) }
            publish()
        case .rules(let rules): change(to: rules)
        case .stop: break
        }
    }

    /// Other rules hold from now on; the labels of containers hold as before.
    private mutating func change(to rules: [FunctionRule]) {
        self.rules = rules
        let now = Nanoseconds(monotonicNow())
        for handle in containers.keys.sorted() {
            guard let container = containers[handle] else { continue }
            let own = rules.containerSettings(container.labels, of: container.function)
            if own != policy.containers[handle]?.settings {
                feed(.configured(own), handle, at: now)
            }
        }
    }

    // MARK: Events

    private mutating func take(_ event: LifecycleEvent, at now: Nanoseconds) {
        counters.events += 1
        if event.kind == .containerStarted {
            start(event, at: now)
            return
        }
        guard let handle = handles[event.container] else {
            counters.eventsOfUnknown += 1
            return
        }
        let recycledAt = event.keepAlive.map { now + $0 }
        switch event.kind {
        case .containerStarted: break
        case .runtimeReady:
            // What it holds now is what the examination may write.
            measure(handle, at: now)
            feed(.runtimeReady, handle, at: now)
        case .initDone:
            measure(handle, at: now)
            feed(.initDone(recycledAt: recycledAt), handle, at: now)
        case .requestStart:
            containers[handle]?.noteRequest(begins: true)
            feed(.requestStarted, handle, at: now)
        case .requestEnd:
            noteWake(handle)
            measure(handle, at: now)
            feed(.requestEnded(recycledAt: recycledAt, latency: event.latency), handle, at: now)
        case .containerStopped: end(handle, at: now)
        }
    }

    /// What a request that woke the container touched is noted before the end of the request lets anything be unmapped.
    private mutating func noteWake(_ handle: ContainerHandle) {
        guard let container = containers[handle] else { return }
        container.noteRequest(begins: false)
        let isWaking = container.state.withLock { $0.pages.values.contains { $0.isWaking } }
        if isWaking && !controller.actions.put(.noteWake(container)) {
            counters.actionsDropped += 1
        }
    }

    /// Whether a gateway reports on a container in this group.
    private func isTaken(_ group: String) -> Bool {
        !watcher.watches(group) && containers.values.contains { $0.group.path == group }
    }

    private mutating func start(_ event: LifecycleEvent, at now: Nanoseconds) {
        if let old = handles[event.container] { end(old, at: now) }
        guard containers.count < Limits.containers else {
            controller.log.warn("container_refused", ["container": event.container])
            return
        }
        let path = event.controlGroup ?? ""
        do throws(SystemError) {
            let group = try controller.groups.open(path)
            let handle = ContainerHandle(nextHandle)
            nextHandle += 1
            let container = EngineContainer(
                handle: handle, name: event.container, function: event.function ?? event.container,
                labels: event.settings, group: group)
            handles[event.container] = handle
            containers[handle] = container
            censuses.add(handle)
            feed(.started(function: container.function), handle, at: now)
            let own = rules.containerSettings(event.settings, of: container.function)
            if own != ContainerSettings() { feed(.configured(own), handle, at: now) }
            measure(handle, at: now)
        } catch {
            controller.log.warn(
                "container_without_group",
                ["container": event.container, "group": path, "error": error.description])
        }
    }

    private mutating func end(_ handle: ContainerHandle, at now: Nanoseconds) {
        feed(.stopped, handle, at: now)
    }

    /// Asks the policy and has its decisions carried out.
    private mutating func feed(
        _ event: ContainerEvent, _ handle: ContainerHandle, at now: Nanoseconds
    ) {
        var decisions: [Decision] = []
        policy.handle(event, of: handle, at: now, into: &decisions)
        recorder?.note(.event(event, handle, at: now), decisions)
        for decision in decisions { carryOut(decision) }
    }

    // MARK: Decisions

    private mutating func carryOut(_ decision: Decision) {
        guard let container = containers[decision.container] else { return }
        counters.actions += 1
        counters.byRule[decision.rule, default: 0] += 1
        switch decision.action {
        case .halt:
            container.halt()
            counters.halts += 1
        case .forget:
            containers[decision.container] = nil
            if handles[container.name] == decision.container { handles[container.name] = nil }
            refaultsSeen[decision.container] = nil
            controller.decisions.append(record(decision, container))
        case .recall:
            let item = WorkItem(container: container, decision: decision, epoch: container.epoch)
            let threads = Limits.recallStreams
            let job = RecallJob(item, threads: threads, at: monotonicNow())
            for _ in 0..<threads where !controller.recalls.put(job) {
                counters.actionsDropped += 1
                _ = job.leave()
            }
        case .snapshot, .examine, .release, .drain, .reclaim, .startColdPageout, .stopColdPageout,
            .pullBack:
            let item = WorkItem(container: container, decision: decision, epoch: container.epoch)
            guard !controller.actions.put(.decision(item)) else {
                if decision.action == .pullBack { pullBacksLeft += 1 }
                return
            }
            counters.actionsDropped += 1
            var report = ActionReport(action: decision.action)
            report.wasHalted = true
            feed(.reported(report), decision.container, at: Nanoseconds(monotonicNow()))
        }
    }

    private mutating func note(_ item: WorkItem, _ report: ActionReport, _ duration: Int64) {
        counters.written += report.written.pages
        counters.released += report.released
        counters.hot += report.hot
        counters.fileDropped += report.fileDropped
        var record = record(item.decision, item.container)
        record.written = report.written
        record.released = report.released
        record.hot = report.hot
        record.wasHalted = report.wasHalted
        record.duration = Nanoseconds(duration)
        if let refaults = report.measure?.refaults {
            let before = refaultsSeen[item.container.handle] ?? 0
            record.refaults = refaults >= before ? refaults - before : 0
            if containers[item.container.handle] != nil {
                refaultsSeen[item.container.handle] = refaults
            }
        }
        controller.decisions.append(record)
        controller.log.debug(
            "decision",
            [
                "container": record.container, "rule": record.rule.rawValue,
                "action": record.action, "written": record.written,
                "released_pages": record.released.pages, "hot_pages": record.hot.pages,
                "duration": record.duration,
            ])
    }

    private func record(_ decision: Decision, _ container: EngineContainer) -> DecisionRecord {
        DecisionRecord(
            sequence: 0, time: wallClockNow(), container: container.name,
            function: container.function, rule: decision.rule, action: decision.action.word,
            reason: decision.reason)
    }

    // MARK: Time

    private mutating func tick(_ now: Int64) {
        let moment = Nanoseconds(now)
        let known = containers
        let isTaken = { (group: String) in known.values.contains { $0.group.path == group } }
        for event in watcher.look(at: now, isTaken: isTaken) { take(event, at: moment) }
        if now - measuredAt >= controller.settings.measureInterval.nanoseconds {
            measuredAt = now
            for handle in containers.keys.sorted() { measure(handle, at: moment) }
        }
        takeCensus(now)
        if policy.settings.kind == .damon, now - refreshedAt >= 1_000_000_000 {
            refreshedAt = now
            _ = controller.actions.put(.refreshColdPageout)
        }
        var decisions: [Decision] = []
        let figures = host.look(at: now, far: controller.farState)
        policy.tick(host: figures, at: moment, into: &decisions)
        recorder?.note(.tick(figures, at: moment), decisions)
        for decision in decisions { carryOut(decision) }
        if now - flushedAt >= 1_000_000_000 {
            flushedAt = now
            recorder?.flush()
        }
        publish()
    }

    /// Measures a container; one whose group is gone has stopped, whether or not anyone says so.
    private mutating func measure(_ handle: ContainerHandle, at now: Nanoseconds) {
        guard let container = containers[handle] else { return }
        guard container.group.isCurrent else {
            controller.log.info(
                "container_gone", ["container": container.name, "group": container.group.path])
            end(handle, at: now)
            return
        }
        guard var measure = container.measure() else { return }
        if policy.settings.kind == .tmo {
            measure.pressureMillionths = container.group.pressureMillionths()
        }
        feed(.measured(measure), handle, at: now)
    }

    /// Has the segments of one container measured whose figures are old.
    private mutating func takeCensus(_ now: Int64) {
        let due = censuses.due(at: now) { [containers] handle in
            containers[handle].map { $0.censusAge(at: now) }
        }
        guard let due, let container = containers[due] else { return }
        if !controller.actions.put(.census(container)) { censuses.done(at: now, took: 0) }
    }

    private func haltAll() {
        for container in containers.values { container.halt() }
    }

    private func publish() {
        var status = EngineStatus()
        status.engine = controller.choice
        status.controlGroups =
            "\(controller.groups.version.rawValue) at \(controller.groups.memoryMount)"
        status.policy = policy.settings.kind
        status.isDryRun = controller.settings.isDryRun
        status.startedAt = startedAt
        status.pausedBy = policy.hostForbids(at: Nanoseconds(monotonicNow()))
        status.pressurePermille = host.measure.pressurePermille
        status.farFree = host.measure.farFree
        status.farTotal = host.farTotal
        status.counters = counters
        status.inMaintenance = controller.inMaintenance.load(ordering: .relaxed)
        status.pullBacksLeft = pullBacksLeft
        status.farIsConnected = host.measure.farIsConnected
        status.farLatency = host.measure.farLatency
        status.containers = containers.values.compactMap(containerStatus)
            .sorted { $0.name < $1.name }
        let complete = status
        controller.published.withLock { $0 = complete }
    }

    private func containerStatus(_ container: EngineContainer) -> ContainerStatus? {
        guard let record = policy.containers[container.handle] else { return nil }
        let (ledger, pages) = container.state.withLock { ($0.ledger, $0.pages) }
        func size(_ part: (ProcessPages) -> PageRuns) -> ByteCount {
            ByteCount(pages: PageCount(pages.values.reduce(0) { $0 + part($1).pages }))
        }
        return ContainerStatus(
            name: container.name, function: container.function, group: container.group.path,
            phase: record.phase, rule: record.lastRule, requests: record.requests,
            measure: record.measure, ledger: ledger, runtime: size { $0.runtime },
            initialization: size { $0.initialization }, waiting: size { $0.marked },
            hot: size { $0.workingSet }, windowIsOpen: record.windowIsOpen,
            semiWarmDelay: policy.semiWarmDelay(of: record).delay,
            reportedAt: Nanoseconds(monotonicNow()))
    }
}
