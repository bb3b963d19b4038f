package import FarMemory

// The law of a container's life.
//
// launching --runtime ready--> initializing --init done--> ready --request--> running <--> idle --long idle--> semi-warm.
//
// Runtime Pucket. When the runtime is up its pages are noted and examined: written out and unmapped, but still
// in the swap cache, so that initialization and the first request bring back what they use for the price
// of a minor fault. When the first request ends, what is still unmapped is cold, exactly, and is released.
//
// Init Pucket. The same over a window of requests that opens when the first request ends. What the window touched
// is hot and stays; what it did not touch is released.
//
// Rollback. A container that stays busy is examined again, hot pages included, after the rollback interval and
// a number of requests. An examination costs the next request a fault per hot page, so it must pay: while it
// finds less than a twentieth to be cold the container's interval doubles, up to its maximum, and all containers
// of the function wait for four times as many requests.
//
// Requests find an open window after a pause. What it unmapped may have left the swap cache in the meantime, for
// the kernel may free such pages at any time: after a pause the request reads the working set back at once.
//
// Semi-warm. Idle for longer than the function's reuse percentile: the rest leaves gradually, at the drain rate,
// within the shared budget, down to the floor, and never shortly before recycling.
//
// A request halts whatever is under way and recalls the working set. Guards (Guards.swift) stop new
// offloading; they never stop a halt, a recall or a release of what was already written.

/// The policy: a pure state machine. Actions of one container are to be carried out in order.
package struct PolicyMachine: Sendable {
    package let settings: PolicySettings
    package internal(set) var containers: [ContainerHandle: ContainerRecord] = [:]
    package internal(set) var functions: [String: FunctionRecord] = [:]
    var budget: BandwidthBudget
    var host = HostMeasure(pressurePermille: nil, farFree: nil)
    var pressedUntil: Nanoseconds?
    /// Who is served first at the next tick, so that a small budget is shared.
    var nextServed = ContainerHandle(0)

    package init(settings: PolicySettings, at now: Nanoseconds) {
        self.settings = settings
        budget = BandwidthBudget(rate: settings.bandwidth, burst: settings.burst, at: now)
    }

    /// Takes in what happened to a container and appends what is to be done. Events of unknown
    /// containers change nothing: they may arrive late.
    package mutating func handle(
        _ event: ContainerEvent, of id: ContainerHandle, at now: Nanoseconds,
        into decisions: inout [Decision]
    ) {
        if case .started(let function) = event {
            start(id, function: function)
            return
        }
        guard var container = containers[id] else { return }
        if case .stopped = event {
            containers[id] = nil
            decisions.append(
                Decision(container: id, action: .halt, rule: .stopped, reason: "container stopped"))
            decisions.append(
                Decision(container: id, action: .forget, rule: .stopped, reason: "gone"))
            return
        }
        var output = Output(id: id)
        apply(event, to: &container, at: now, into: &output)
        containers[id] = container
        decisions += output.decisions
    }

    private mutating func start(_ id: ContainerHandle, function: String) {
        guard containers[id] == nil else { return }
        containers[id] = ContainerRecord(
            function: function, rollbackInterval: settings.rollbackInterval)
        if functions[function] == nil {
            let window = settings.requestWindows[function] ?? settings.requestWindow ?? 1
            functions[function] = FunctionRecord(window: max(1, window))
        }
    }

    private mutating func apply(
        _ event: ContainerEvent, to container: inout ContainerRecord, at now: Nanoseconds,
        into output: inout Output
    ) {
        switch event {
        case .started, .stopped: break
        case .runtimeReady: runtimeReady(&container, at: now, into: &output)
        case .initDone(let recycledAt):
            guard container.phase == .launching || container.phase == .initializing else { break }
            container.phase = .ready
            container.idleSince = now
            container.recycledAt = recycledAt
            output.add(
                .snapshot(.initialization), .initPucket, "init done", &container)
        case .requestStarted: requestStarted(&container, at: now, into: &output)
        case .requestEnded(let recycledAt, _):
            // An end without a beginning says nothing.
            guard container.running > 0 else { break }
            container.recycledAt = recycledAt
            requestEnded(&container, at: now, into: &output)
        case .measured(let measure): container.measure = measure
        case .reported(let report): reported(report, &container, at: now)
        }
    }

    // MARK: Barriers

    private mutating func runtimeReady(
        _ container: inout ContainerRecord, at now: Nanoseconds, into output: inout Output
    ) {
        guard container.phase == .launching else { return }
        container.phase = .initializing
        output.add(.snapshot(.runtime), .runtimePucket, "runtime ready", &container)
        guard settings.offloadsRuntime, mayWrite(container, at: now) == nil else { return }
        examine(.runtime, .runtimePucket, "runtime ready", &container, at: now, into: &output)
        container.runtimeExamined = container.outstanding > 0
    }

    // MARK: Requests

    private mutating func requestStarted(
        _ container: inout ContainerRecord, at now: Nanoseconds, into output: inout Output
    ) {
        if container.phase == .launching || container.phase == .initializing {
            // Its init_done was lost; the request proves it.
            container.phase = .ready
        }
        container.running += 1
        guard container.running == 1 else { return }
        if let idleSince = container.idleSince, container.requests > 0 {
            functions[container.function]?.reuse.record(now - idleSince)
        }
        let wasDrained = container.phase == .semiWarm || container.phase == .drained
        if container.outstanding > 0 || wasDrained {
            output.add(.halt, .request, "request", &container)
        }
        let hasPaused = container.idleSince.map { now - $0 >= settings.recallAfter } ?? false
        let mayHaveLeft =
            container.unfinishedRelease != nil || (container.windowLeft != nil && hasPaused)
        if settings.prefetch != .off && (wasDrained || mayHaveLeft) {
            // The recall reads far memory on purpose: watching for refaults ends here.
            container.refaultsAtRelease = nil
            output.add(
                .recall, .prefetch,
                wasDrained
                    ? "request to a \(container.phase.rawValue) container"
                    : "request within a window, after a pause", &container)
        }
        container.phase = .running
        container.idleSince = nil
        container.isExhausted = false
        container.reclaimedShared = false
    }

    private mutating func requestEnded(
        _ container: inout ContainerRecord, at now: Nanoseconds, into output: inout Output
    ) {
        container.running -= 1
        container.requests += 1
        container.requestsSinceExamined += 1
        guard container.running == 0 else { return }
        container.phase = .idle
        container.idleSince = now
        closeWindow(&container, into: &output)
        openWindow(&container, at: now, into: &output)
    }

    /// Counts the request against the open window; at its end the untouched pages leave.
    private mutating func closeWindow(_ container: inout ContainerRecord, into output: inout Output)
    {
        if container.requests == 1 && container.runtimeExamined {
            output.addPageAction(
                .release(.runtime), .runtimePucket, "first request ended", &container)
        }
        if let scope = container.unfinishedRelease {
            container.unfinishedRelease = nil
            output.addPageAction(
                .release(scope), .rollback, "again after a request stopped it", &container)
        }
        guard let left = container.windowLeft else { return }
        if left > 1 {
            container.windowLeft = left - 1
            return
        }
        container.windowLeft = nil
        let rule = container.windowScope == .all ? Rule.rollback : .initPucket
        output.addPageAction(
            .release(container.windowScope), rule, "window of \(window(container)) requests ended",
            &container)
    }

    /// Opens the first window after the first request, later ones after the rollback interval.
    private mutating func openWindow(
        _ container: inout ContainerRecord, at now: Nanoseconds, into output: inout Output
    ) {
        guard settings.offloadsInitialization, container.windowLeft == nil else { return }
        let isFirst = container.examinedAt == nil
        if let last = container.examinedAt {
            let requests = functions[container.function]?.rollbackRequests ?? 1
            guard now - last >= container.rollbackInterval,
                container.requestsSinceExamined >= requests
            else { return }
        }
        if let reason = mayWrite(container, at: now) {
            container.lastRule = reason
            return
        }
        let scope = isFirst ? PageScope.initialization : .all
        let opened = examine(
            scope, isFirst ? .initPucket : .rollback,
            isFirst ? "first request ended" : "rollback after \(container.rollbackInterval)",
            &container, at: now, into: &output)
        guard opened else { return }
        container.windowLeft = window(container)
        container.windowScope = scope
        container.examinedAt = now
        container.requestsSinceExamined = 0
    }

    /// Takes what the container holds out of the budget; false when nothing is left of it.
    @discardableResult
    private mutating func examine(
        _ scope: PageScope, _ rule: Rule, _ reason: String, _ container: inout ContainerRecord,
        at now: Nanoseconds, into output: inout Output
    ) -> Bool {
        let wanted = container.measure?.anonymous ?? settings.burst
        let grant = budget.take(upTo: max(wanted, .mib(1)), at: now)
        guard grant > .zero else {
            container.lastRule = .budget
            return false
        }
        output.addPageAction(.examine(scope, grant: grant), rule, reason, &container)
        return true
    }

    private func window(_ container: ContainerRecord) -> UInt32 {
        functions[container.function]?.window ?? 1
    }

    // MARK: Reports

    private mutating func reported(
        _ report: ActionReport, _ container: inout ContainerRecord, at now: Nanoseconds
    ) {
        if container.outstanding > 0 { container.outstanding -= 1 }
        if let measure = report.measure { container.measure = measure }
        switch report.action {
        case .examine(_, let grant): budget.putBack(grant - report.written)
        case .drain(let grant):
            budget.putBack(grant - report.written)
            if report.isExhausted && !report.wasHalted { container.isExhausted = true }
        case .release(let scope):
            if report.wasHalted { container.unfinishedRelease = scope }
            noteRelease(report, &container, at: now)
        case .reclaim(let grant): budget.putBack(grant - report.written)
        case .snapshot, .halt, .recall, .forget: break
        }
    }

    /// Learns from a closed window: how often to look again, and what to watch for refaults.
    private mutating func noteRelease(
        _ report: ActionReport, _ container: inout ContainerRecord, at now: Nanoseconds
    ) {
        container.releasedPages = report.released.pages
        container.refaultsAtRelease = report.measure?.refaults
        let examined = report.released.pages + report.hot.pages
        guard case .release(.all) = report.action, examined > 0 else { return }
        let paid = report.released.pages * 20 >= examined
        functions[container.function]?.noteRollback(paid: paid)
        if !paid {
            container.rollbackInterval = min(
                container.rollbackInterval + container.rollbackInterval,
                settings.rollbackIntervalMaximum)
        } else {
            container.rollbackInterval = settings.rollbackInterval
        }
    }

    /// When a container of this function may be drained, and by what: idle time, and its origin.
    package func semiWarmDelay(of function: String) -> (delay: Nanoseconds, origin: String) {
        let wait = semiWarmWait(of: function)
        if settings.semiWarmDelays[function] != nil { return (wait, "given") }
        let samples = functions[function]?.reuse.samples ?? 0
        guard samples >= settings.reuseSamplesMinimum else { return (wait, "prior") }
        return (wait, "p\(settings.reusePermille)/1000 of \(samples) reuses")
    }

    /// The same without its origin: cheap enough for each request.
    package func semiWarmWait(of function: String) -> Nanoseconds {
        if let given = settings.semiWarmDelays[function] { return given }
        guard let reuse = functions[function]?.reuse,
            reuse.samples >= settings.reuseSamplesMinimum,
            let quantile = reuse.quantile(permille: settings.reusePermille)
        else { return max(settings.semiWarmPrior, settings.semiWarmMinimum) }
        return max(quantile, settings.semiWarmMinimum)
    }
}

/// Collects the decisions of one event.
struct Output {
    let id: ContainerHandle
    var decisions: [Decision] = []

    init(id: ContainerHandle) { self.id = id }

    mutating func add(
        _ action: Action, _ rule: Rule, _ reason: String, _ container: inout ContainerRecord
    ) {
        container.lastRule = rule
        decisions.append(Decision(container: id, action: action, rule: rule, reason: reason))
    }

    /// An action that the engine will report on.
    mutating func addPageAction(
        _ action: Action, _ rule: Rule, _ reason: String, _ container: inout ContainerRecord
    ) {
        container.outstanding += 1
        add(action, rule, reason, &container)
    }
}
