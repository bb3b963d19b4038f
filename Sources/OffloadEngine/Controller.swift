package import Containers
import FarMemory
package import LinuxSystem
import OffloadPolicy
import Synchronization
package import Telemetry

/// What reaches the control thread.
enum Message: Sendable {
    case event(LifecycleEvent, at: Int64)
    case found(DiscoveredContainer)
    case lost(String)
    case report(WorkItem, ActionReport, duration: Int64)
    case recalled(WorkItem, PageCount, duration: Int64)
    case censused(duration: Int64)
    case maintenance(Bool)
    case rules([FunctionRule])
    case stop
}

/// A decision on its way through a worker thread.
struct WorkItem: Sendable {
    let container: EngineContainer
    let decision: Decision
    /// The halt count at which it was decided.
    let epoch: UInt64
}

/// What the mover is to do.
enum Work: Sendable {
    case decision(WorkItem)
    /// Measure the segments.
    case census(EngineContainer)
    /// See which processes DAMON is to watch now.
    case refreshColdPageout
    /// The request that woke it has ended: note what it touched.
    case noteWake(EngineContainer)
}

/// The offload controller: takes events, asks the policy, has pages moved, and publishes what it knows.
/// `submit`, `status` and `decisions` may be used by any thread; `run` is the control thread.
package final class Controller: Sendable {
    let settings: EngineSettings
    let groups: ControlGroups
    let log: Logger
    let inbox: WorkQueue<Message>
    let actions: WorkQueue<Work>
    let recalls: WorkQueue<RecallJob>
    let published = Mutex<EngineStatus?>(nil)
    private let dropped = Atomic<UInt64>(0)
    private let working = Atomic<Int>(0)
    private let ownership: StateOwnership
    let choice: EngineSelection
    /// The mover's, when MGLRU was chosen.
    private let generations: GenerationControl?
    /// Everything is to be local; said by the control thread.
    let inMaintenance = Atomic<Bool>(false)
    let farState: @Sendable () -> FarState?
    private let restored: UInt64
    package let decisions = DecisionLog(capacity: Limits.decisions)

    /// Takes the state directory (another controller there is `ControllerError.alreadyRuns`) and undoes
    /// what a former run left changed.
    package init(
        settings: EngineSettings, groups: ControlGroups, log: Logger,
        openGenerations: GenerationOpener = { () throws(GenerationError) in
            try GenerationControl()
        },
        farState: @escaping @Sendable () -> FarState? = { nil }
    ) throws(ControllerError) {
        self.farState = farState
        self.settings = settings
        self.groups = groups
        self.log = log
        (choice, generations) = try EngineSelection.probe(
            settings.engine, openGenerations: openGenerations)
        ownership = try StateOwnership(directory: settings.stateDirectory)
        let damon = ColdPageout(stateDirectory: settings.stateDirectory)
        if damon.recover() { log.warn("damon_stopped", ["reason": "left by an earlier run"]) }
        if settings.policy.kind == .damon {
            do throws(ColdPageoutError) { try damon.check() } catch { throw .damon(error) }
        }
        do throws(SystemError) {
            restored = try ownership.restore(groups: groups, log: log)
            inbox = try WorkQueue(capacity: Limits.inbox)
            actions = try WorkQueue(capacity: Limits.actions)
            recalls = try WorkQueue(capacity: Limits.recalls)
        } catch {
            throw .system(error)
        }
    }

    /// Takes an event; false when too many wait. Never waits itself.
    package func submit(_ event: LifecycleEvent) -> Bool {
        if inbox.put(.event(event, at: monotonicNow())) { return true }
        dropped.add(1, ordering: .relaxed)
        return false
    }

    /// Takes a container that discovery found; false when too many messages wait. Never waits itself.
    package func adopt(_ container: DiscoveredContainer) -> Bool { inbox.put(.found(container)) }

    /// Takes it that a container that was adopted ended.
    package func drop(_ name: String) -> Bool { inbox.put(.lost(name)) }

    /// Takes other rules for functions, for the containers that there are and those that come; false when too many messages wait.
    package func setRules(_ rules: [FunctionRule]) -> Bool { inbox.put(.rules(rules)) }

    /// Makes `run` return.
    package func stop() { _ = inbox.put(.stop) }

    /// The state as of the last tick.
    package func status() -> EngineStatus {
        var status = published.withLock { $0 } ?? EngineStatus()
        status.counters.eventsDropped = dropped.load(ordering: .relaxed)
        return status
    }

    /// Waits until `run` has published its first status, at most until `deadline` (monotonic nanoseconds): before that a daemon
    /// is not ready, for it would report settings that are not its own.
    package func waitUntilRunning(deadline: Int64) -> Bool {
        while published.withLock({ $0 == nil }) {
            guard monotonicNow() < deadline else { return false }
            sleepNanoseconds(1_000_000)
        }
        return true
    }

    /// Runs until `stop`. Then nothing is under way any more and every knob is as it was.
    package func run() throws(SystemError) {
        let journal = try KnobJournal(path: ownership.journalPath)
        var recorder: PolicyRecorder?
        if let path = settings.recordPath {
            recorder = try PolicyRecorder(path: path, settings: settings.policy, log: log)
        }
        var threads = [try WorkerThread("fm-mover") { [self] in movePages(engine(journal)) }]
        for number in 0..<Limits.recallThreads {
            threads.append(
                try WorkerThread("fm-recall-\(number)") { [self] in
                    recallPages(PageRecaller(mode: settings.policy.prefetch))
                })
        }
        var control = ControlLoop(self, restored: restored, recorder: recorder)
        control.run()
        actions.close()
        recalls.close()
        waitForWorkers(threads)
    }

    /// Joins the workers; gives up on those that hang in the kernel, as behind a dead swap device.
    private func waitForWorkers(_ threads: [WorkerThread]) {
        let deadline = monotonicNow() + Limits.stopDeadline.nanoseconds
        while working.load(ordering: .acquiring) > 0 && monotonicNow() < deadline {
            sleepNanoseconds(5_000_000)
        }
        let stuck = working.load(ordering: .acquiring)
        if stuck > 0 {
            log.error("workers_stuck", ["threads": stuck])
            return
        }
        for thread in threads { thread.join() }
    }

    /// The engine that was chosen.
    private func engine(_ journal: KnobJournal) -> any PageEngine {
        let reclaimer =
            settings.policy.reclaimsShared
            ? GroupReclaimer(journal: journal, log: log, hold: settings.limitHold) : nil
        guard let generations else {
            return PageMover(reclaimer: reclaimer, isDryRun: settings.isDryRun)
        }
        return GenerationMover(
            control: generations, reclaimer: reclaimer, isDryRun: settings.isDryRun, log: log)
    }

    private func movePages(_ mover: any PageEngine) {
        working.add(1, ordering: .acquiringAndReleasing)
        defer { working.subtract(1, ordering: .acquiringAndReleasing) }
        setMoverNiceness(Limits.moverNiceness)
        let damon = ColdPageout(stateDirectory: settings.stateDirectory)
        defer { damon.end() }
        let returner = PageReturner(rate: settings.policy.bandwidth)
        while !actions.isFinished {
            guard let work = actions.take(timeout: 1_000_000_000) else { continue }
            let start = monotonicNow()
            let item: WorkItem
            switch work {
            case .decision(let decided): item = decided
            case .census(let container):
                container.noteSizes { mover.segments(of: container) }
                _ = inbox.put(.censused(duration: monotonicNow() - start))
                continue
            case .refreshColdPageout:
                try? damon.refresh()
                continue
            case .noteWake(let container):
                container.noteWake(using: mover.reader)
                continue
            }
            if case .pullBack = item.decision.action {
                // Somebody waits for this.
                setMoverNiceness(0)
                defer { setMoverNiceness(Limits.moverNiceness) }
                let pages = returner.pullBack(item.container) {
                    inMaintenance.load(ordering: .relaxed)
                }
                _ = inbox.put(.recalled(item, pages, duration: monotonicNow() - start))
                continue
            }
            if !settings.isDryRun { watchCold(item, damon) }
            let before = HostMemory.swappedOut()
            var report = mover.perform(
                item.decision.action, on: item.container, epoch: item.epoch)
            if let before, let after = HostMemory.swappedOut() {
                report.sweptOut = ByteCount(pages: after - before)
            }
            _ = inbox.put(.report(item, report, duration: monotonicNow() - start))
        }
    }

    private func setMoverNiceness(_ nice: Int32) {
        do throws(SystemError) {
            try setThreadNiceness(nice)
        } catch {
            log.warn("mover_priority", ["error": error.description])
        }
    }

    private func watchCold(_ item: WorkItem, _ damon: ColdPageout) {
        switch item.decision.action {
        case .startColdPageout(let regions):
            do throws(ColdPageoutError) {
                try damon.start(item.container, regions)
            } catch {
                log.error(
                    "damon_failed",
                    ["container": item.container.name, "error": error.description])
            }
        case .stopColdPageout: damon.stop(item.container)
        default: break
        }
    }

    private func recallPages(_ recaller: PageRecaller) {
        working.add(1, ordering: .acquiringAndReleasing)
        defer { working.subtract(1, ordering: .acquiringAndReleasing) }
        while !recalls.isFinished {
            guard let job = recalls.take(timeout: 1_000_000_000) else { continue }
            guard !settings.isDryRun else {
                if let none = job.leave() { _ = inbox.put(.recalled(job.item, none, duration: 0)) }
                continue
            }
            let asked = recaller.recall(
                job, deadline: job.start + settings.recallDeadline.nanoseconds)
            guard let asked else { continue }
            _ = inbox.put(.recalled(job.item, asked, duration: monotonicNow() - job.start))
        }
    }
}
