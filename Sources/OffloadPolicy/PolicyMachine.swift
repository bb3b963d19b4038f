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
// Rollback. A container that stays busy is examined again, hot pages included, when that is due (RollbackLaw.swift).
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
    /// Whether drains say why, in words. Where nobody reads them they cost more than the decision.
    package var explainsDrains = true
    package internal(set) var containers = ContainerTable()
    package internal(set) var functions = FunctionTable()
    var budget: BandwidthBudget
    var host = HostMeasure(pressurePermille: nil, farFree: nil)
    var pressedUntil: Nanoseconds?
    var inMaintenance = false
    /// Who is served first when the budget is too small for all, and who asked at this tick.
    var nextServed = 0
    var asking: [BudgetRequest] = []
    /// How many asked when somebody last did, and when that was.
    var rivals: (count: Int, at: Nanoseconds) = (0, .zero)

    package init(settings: PolicySettings, at now: Nanoseconds) {
        self.settings = settings
        budget = BandwidthBudget(
            rate: settings.usesBudget ? settings.bandwidth : nil, burst: settings.burst, at: now)
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
        guard let place = containers.placeNoted(of: id) else { return }
        switch event {
        case .measured(let measure)
        where measure.stall == nil && !containers.records[place].isWatched:
            // Nothing follows from it: half of all events.
            containers.records[place].stallSeen = nil
            containers.records[place].measure = measure
            return
        case .stopped:
            stop(id, at: place, now, into: &decisions)
            return
        default: break
        }
        change(place, at: now, into: &decisions) { machine, container, output in
            switch event {
            case .measured, .reported: break
            default: container.heardAt = now
            }
            machine.apply(event, to: &container, at: now, into: &output)
        }
    }

    /// Changes a container's record where it lies, and appends what is decided.
    mutating func change(
        _ place: Int, at now: Nanoseconds, into decisions: inout [Decision],
        _ body: (inout PolicyMachine, inout ContainerRecord, inout Output) -> Void
    ) {
        var output = Output(id: containers.handles[place], now: now, taking: &decisions)
        var records = containers.lend()
        body(&self, &records[place], &output)
        containers.takeBack(&records)
        output.give(back: &decisions)
    }

    private mutating func stop(
        _ id: ContainerHandle, at place: Int, _ now: Nanoseconds,
        into decisions: inout [Decision]
    ) {
        var container = containers.records[place]
        for action in container.givePendingUp() { settle(action, at: now) }
        endWatch(&container)
        containers.remove(at: place)
        decisions.append(
            Decision(container: id, action: .halt, rule: .stopped, reason: "container stopped"))
        if container.hasColdPageout {
            decisions.append(
                Decision(container: id, action: .stopColdPageout, rule: .stopped, reason: "gone"))
        }
        decisions.append(
            Decision(container: id, action: .forget, rule: .stopped, reason: "gone"))
    }

    private mutating func start(_ id: ContainerHandle, function: String) {
        guard containers.place(of: id) == nil else { return }
        let place = functions.place(of: function) {
            FunctionRecord(
                window: max(1, settings.requestWindows[function] ?? settings.requestWindow ?? 1),
                wait: settings.semiWarmWait(of: function, ReuseIntervals()))
        }
        containers.insert(
            ContainerRecord(
                function: function, functionPlace: place,
                rollbackInterval: settings.rollbackInterval),
            for: id)
    }

    private mutating func apply(
        _ event: ContainerEvent, to container: inout ContainerRecord, at now: Nanoseconds,
        into output: inout Output
    ) {
        switch event {
        case .started, .stopped: break
        case .configured(let own):
            container.settings = own
            if own.offloads == false { container.lastRule = .optedOut }
        case .runtimeReady: runtimeReady(&container, at: now, into: &output)
        case .initDone(let recycledAt):
            guard container.phase == .launching || container.phase == .initializing else { break }
            container.phase = .ready
            container.idleSince = now
            container.idleLocal = container.measure?.local
            container.recycledAt = recycledAt
            initDone(&container, at: now, into: &output)
        case .requestStarted: requestStarted(&container, at: now, into: &output)
        case .requestEnded(let recycledAt, let latency):
            // An end without a beginning says nothing.
            guard container.running > 0 else { break }
            container.recycledAt = recycledAt
            noteLatency(latency, &container, at: now)
            requestEnded(&container, at: now, into: &output)
        case .measured(let measure):
            noteStall(measure, &container, at: now)
            container.measure = measure
            noteRefaults(&container, at: now)
        case .reported(let report): reported(report, &container, at: now)
        }
    }

    // MARK: Barriers

    private mutating func runtimeReady(
        _ container: inout ContainerRecord, at now: Nanoseconds, into output: inout Output
    ) {
        guard container.phase == .launching else { return }
        container.phase = .initializing
        startColdPageout(&container, into: &output)
        guard settings.kind.hasPuckets else { return }
        output.add(.snapshot(.runtime), .runtimePucket, "runtime ready", &container)
        guard settings.offloadsRuntime, mayWrite(container, at: now) == nil else { return }
        container.runtimeExamined = examine(
            .runtime, .runtimePucket, "runtime ready", &container, at: now, into: &output)
    }

    private mutating func initDone(
        _ container: inout ContainerRecord, at now: Nanoseconds, into output: inout Output
    ) {
        startColdPageout(&container, into: &output)
        guard settings.kind.hasPuckets else { return }
        output.add(.snapshot(.initialization), .initPucket, "init done", &container)
        if settings.windowLaw == .continuous {
            openWindow(.initialization, "init done", &container, at: now, into: &output)
        }
    }

    // MARK: Requests

    private mutating func requestStarted(
        _ container: inout ContainerRecord, at now: Nanoseconds, into output: inout Output
    ) {
        if container.phase == .launching || container.phase == .initializing {
            // Its init_done was lost; the request proves it.
            container.phase = .ready
            startColdPageout(&container, into: &output)
        }
        container.running += 1
        guard container.running == 1 else { return }
        if let idleSince = container.idleSince, container.requests > 0 {
            functions.records[container.functionPlace].noteReuse(
                after: now - idleSince, of: container.function, settings)
        }
        let wasDrained = container.phase == .semiWarm || container.phase == .drained
        container.isWoken = wasDrained
        container.isDisturbed =
            wasDrained || container.isBusyMoving || container.windowLeft != nil
            || container.unfinishedRelease != nil || container.requests == 0
        if settings.kind != .tmo && (container.isBusyMoving || wasDrained) {
            output.add(.halt, .request, "request", &container)
        }
        let hasPaused = container.idleSince.map { now - $0 >= settings.recallAfter } ?? false
        let mayHaveLeft =
            container.unfinishedRelease != nil
            || (container.windowLeft != nil && hasPaused && !container.windowIsSlice)
        if settings.prefetch != .off && (wasDrained || mayHaveLeft) {
            // The recall reads far memory on purpose: watching for refaults ends here.
            endWatch(&container)
            output.add(
                .recall, .prefetch,
                wasDrained
                    ? "request to a \(container.phase.rawValue) container"
                    : "request within a window, after a pause", &container)
        }
        container.phase = .running
        container.idleSince = nil
        // What it touches now would be examined over and over.
        container.examineOwed = 0
        container.isExhausted = false
        container.reclaimedShared = false
    }

    private mutating func requestEnded(
        _ container: inout ContainerRecord, at now: Nanoseconds, into output: inout Output
    ) {
        container.running -= 1
        container.requests += 1
        container.requestsSinceExamined += 1
        functions.records[container.functionPlace].rollback.noteRequest()
        noteRequestForWatch(&container)
        guard container.running == 0 else { return }
        container.phase = .idle
        container.idleSince = now
        container.idleLocal = container.measure?.local
        let hadWindow = container.windowLeft != nil
        closeWindow(&container, at: now, into: &output)
        // A request in between shows what of the released pages comes back.
        if hadWindow && settings.windowLaw == .spaced { return }
        if container.windowLeft == nil { nextWindow(&container, at: now, into: &output) }
    }

    /// Counts the request against the open window; at its end the untouched pages leave.
    private mutating func closeWindow(
        _ container: inout ContainerRecord, at now: Nanoseconds, into output: inout Output
    ) {
        if container.requests == 1 && container.runtimeExamined {
            output.addPageAction(
                .release(.runtime), .runtimePucket, "first request ended", &container)
        }
        if let scope = container.unfinishedRelease {
            container.unfinishedRelease = nil
            container.repeatsRelease = true
            output.addPageAction(
                .release(scope), .rollback, "again after a request stopped it", &container)
        }
        guard var left = container.windowLeft else { return }
        left -= min(left, 1)
        container.windowLeft = left
        guard left == 0, mayClose(container, at: now) else { return }
        container.windowLeft = nil
        container.windowClosedAt = now
        let rule = container.windowScope == .all ? Rule.rollback : .initPucket
        output.addPageAction(
            .release(container.windowScope), rule,
            "window of \(container.windowLength) requests ended",
            &container)
    }

    private func mayClose(_ container: ContainerRecord, at now: Nanoseconds) -> Bool {
        guard settings.windowLaw == .continuous, let last = container.windowClosedAt else {
            return true
        }
        return now - last >= settings.rollbackInterval
    }

    /// Opens the next window when it is due.
    private mutating func nextWindow(
        _ container: inout ContainerRecord, at now: Nanoseconds, into output: inout Output
    ) {
        guard let last = container.examinedAt else {
            openWindow(
                .initialization, "first request ended", &container, at: now, into: &output)
            return
        }
        guard mayRollBack(container, since: last, at: now) else { return }
        openWindow(
            .all, "rollback after \(container.rollbackInterval)", &container, at: now, into: &output
        )
    }

    private mutating func openWindow(
        _ scope: PageScope, _ reason: String, _ container: inout ContainerRecord,
        at now: Nanoseconds, into output: inout Output
    ) {
        guard settings.offloadsInitialization else { return }
        if let reason = mayWrite(container, at: now) {
            container.lastRule = reason
            return
        }
        let rule = scope == .all ? Rule.rollback : .initPucket
        let slice = scope == .all ? self.slice(of: container) : nil
        guard examine(scope, atMost: slice, rule, reason, &container, at: now, into: &output) else {
            return
        }
        // The examination reads back what it must not free.
        endWatch(&container)
        container.windowLength = window(container)
        container.windowLeft = container.windowLength
        container.windowScope = scope
        container.windowIsSlice = slice != nil
        container.examinedAt = now
        container.requestsSinceExamined = 0
        if scope == .all && slice == nil {
            functions.records[container.functionPlace].rollback.noteWindow(
                of: container.windowLength)
        }
    }

    /// Takes what the container holds out of the budget, or an equal share while others want it too; the ticks bring the
    /// rest (IdleLaw.swift). False when nothing is left of it.
    private mutating func examine(
        _ scope: PageScope, atMost slice: ByteCount? = nil, _ rule: Rule, _ reason: String,
        _ container: inout ContainerRecord,
        at now: Nanoseconds, into output: inout Output
    ) -> Bool {
        let all = max(container.measure?.anonymous ?? settings.burst, .mib(1))
        let wanted = min(all, slice ?? all)
        let grant = budget.take(upTo: min(wanted, equalShare(at: now)), at: now)
        guard grant > .zero else {
            container.lastRule = .budget
            return false
        }
        container.examineOwed =
            scope == .runtime || slice != nil ? 0 : (wanted - grant).bytes
        output.addPageAction(.examine(scope, grant: grant), rule, reason, &container)
        return true
    }

    func window(_ container: ContainerRecord) -> UInt32 {
        if let own = container.settings.requestWindow, own > 0 { return own }
        return functions.records[container.functionPlace].window
    }

    // MARK: Reports

    private mutating func reported(
        _ report: ActionReport, _ container: inout ContainerRecord, at now: Nanoseconds
    ) {
        if let measure = report.measure { container.measure = measure }
        // What was given up, or comes twice, was settled.
        guard container.wasReported(report.action, at: now) else { return }
        settle(
            report.action, written: max(report.written, report.reserved, report.sweptOut), at: now)
        switch report.action {
        case .drain:
            if report.isExhausted && !report.wasHalted { container.isExhausted = true }
        case .release(let scope):
            if report.wasHalted { container.unfinishedRelease = scope }
            if container.phase == .idle { container.idleLocal = container.measure?.local }
            noteRelease(report, scope, &container)
        case .examine(let scope, let grant):
            // The kernel found no more: the rest of the estimate is not there.
            if report.wasHalted || max(report.written, report.reserved) < grant {
                container.examineOwed = 0
            }
            if report.wasHalted { noteHaltedExamination(report, scope, of: grant, &container) }
        case .reclaim, .snapshot, .halt, .recall, .forget, .pullBack,
            .startColdPageout, .stopColdPageout:
            break
        }
    }

    /// Ends a grant; without a report all of it counts as written.
    mutating func settle(_ action: Action, written: ByteCount? = nil, at now: Nanoseconds) {
        switch action {
        case .examine(_, let grant), .drain(let grant), .reclaim(let grant):
            budget.settle(grant, written: written ?? grant, at: now)
        case .release:
            // No grant: its pages were written before. What the kernel wrote all the same counts.
            budget.settle(.zero, written: written ?? .zero, at: now)
        case .snapshot, .halt, .recall, .forget, .pullBack, .startColdPageout, .stopColdPageout:
            break
        }
    }

    /// Learns from a closed window: how often to look again, and what to watch for refaults.
    private mutating func noteRelease(
        _ report: ActionReport, _ scope: PageScope, _ container: inout ContainerRecord
    ) {
        watchRefaults(of: report, scope: scope, &container)
        let isRepetition = container.repeatsRelease
        container.repeatsRelease = false
        // A release that a request halted says nothing, and what its repetition finds little.
        guard settings.windowLaw == .spaced, scope == .all, !isRepetition, !report.wasHalted else {
            return
        }
        noteRollback(report, &container)
    }

    func floor(of container: ContainerRecord) -> ByteCount {
        container.settings.floor ?? settings.floor
    }
}

/// Collects the decisions of one event, behind those that were there.
struct Output {
    let id: ContainerHandle
    let now: Nanoseconds
    private var decisions: [Decision] = []

    /// Takes the list over until `give(back:)`.
    init(id: ContainerHandle, now: Nanoseconds, taking list: inout [Decision]) {
        self.id = id
        self.now = now
        swap(&decisions, &list)
    }

    mutating func give(back list: inout [Decision]) { swap(&decisions, &list) }

    mutating func add(
        _ action: Action, _ rule: Rule, _ reason: String, _ container: inout ContainerRecord
    ) {
        container.lastRule = container.settings.offloads == false ? .optedOut : rule
        decisions.append(Decision(container: id, action: action, rule: rule, reason: reason))
    }

    /// An action that the engine will report on.
    mutating func addPageAction(
        _ action: Action, _ rule: Rule, _ reason: String, _ container: inout ContainerRecord
    ) {
        container.issued(action, at: now)
        add(action, rule, reason, &container)
    }
}
