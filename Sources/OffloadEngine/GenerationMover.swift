import Containers
import FarMemory
import LinuxSystem
import OffloadPolicy
import Synchronization
import Telemetry

// How pages leave by the kernel's generations (MGLRU, lru_gen). At a barrier all lists of the container age: what was used since the
// last time moves up, a new generation is opened, and the number of the one that was youngest is the barrier. At the end of a
// window the lists age again, which takes what the window used out of the generations behind the barrier; what is left there is
// evicted. The lists are read anew before each order; GenerationMarks.swift has the law.

/// Moves pages of containers by generations. Belongs to one thread.
final class GenerationMover: PageEngine {
    /// Evicted between two looks at the halt count.
    private static let piecePages: UInt64 = 512
    /// The kernel evicts only what has two younger generations.
    private static let youngerGenerations: UInt64 = 2

    private let control: GenerationControl
    let reader = PageMapReader()
    private let reclaimer: GroupReclaimer?
    private let isDryRun: Bool
    private let log: Logger

    init(control: GenerationControl, reclaimer: GroupReclaimer?, isDryRun: Bool, log: Logger) {
        self.control = control
        self.reclaimer = reclaimer
        self.isDryRun = isDryRun
        self.log = log
    }

    func perform(_ action: Action, on container: EngineContainer, epoch: UInt64) -> ActionReport {
        var report = ActionReport(action: action)
        if isDryRun {
            if case .drain = action { report.isExhausted = true }
        } else {
            let before = try? container.group.use()
            carryOut(action, Pass(container: container, epoch: epoch), &report)
            account(before, container, action, &report)
        }
        container.finish(&report)
        return report
    }

    private func carryOut(_ action: Action, _ pass: Pass, _ report: inout ActionReport) {
        do throws(GenerationError) {
            switch action {
            case .snapshot(let pucket): try snapshot(pucket, pass)
            case .examine(let scope, let grant): try examine(scope, grant, pass, &report)
            case .release(let scope): try release(scope, pass, &report)
            case .drain(let grant): try drain(grant, pass, &report)
            case .reclaim(let amount):
                guard let reclaimer, pass.container.group.isCurrent else { return }
                _ = reclaimer.reclaim(amount, from: pass.container.group) { pass.isHalted }
                report.wasHalted = pass.isHalted
            case .startColdPageout, .stopColdPageout, .pullBack, .halt, .recall, .forget: break
            }
        } catch {
            // A group that is gone is no trouble: its container has ended.
            if case .groupNotListed = error, !pass.container.group.isCurrent { return }
            pass.container.state.withLock { $0.ledger.generationErrors += 1 }
            log.warn(
                "generations_failed",
                ["container": pass.container.name, "error": error.description])
        }
    }

    /// Takes the figures from the group's own: swap that it got, memory that left, file cache that went with it.
    private func account(
        _ before: MemoryUse?, _ container: EngineContainer, _ action: Action,
        _ report: inout ActionReport
    ) {
        switch action {
        case .release, .drain, .reclaim: break
        case .snapshot, .examine, .startColdPageout, .stopColdPageout, .pullBack, .halt, .recall,
            .forget:
            return
        }
        guard let before, let after = try? container.group.use(), let farBefore = before.far,
            let farAfter = after.far
        else { return }
        let slotsBefore = farBefore.bytes + (before.swapCached ?? .zero).bytes
        let slotsAfter = farAfter.bytes + (after.swapCached ?? .zero).bytes
        report.written = ByteCount(slotsAfter) - ByteCount(slotsBefore)
        report.released = (farAfter - farBefore).pages
        report.fileDropped = before.file - after.file
    }

    // MARK: Aging

    /// Opens a new generation in each list; the youngest there was before, of those that did.
    private func age(
        _ container: EngineContainer
    ) throws(GenerationError) -> [GenerationListName: GenerationMark] {
        var barriers: [GenerationListName: GenerationMark] = [:]
        // The kernel does nothing while it ages by itself.
        for _ in 0..<3 {
            let before = try lists(of: container)
            let open = before.filter { barriers[$0.name] == nil }
            if open.isEmpty { break }
            for list in open { try control.age(list.name, youngest: list.youngest) }
            for list in try lists(of: container) {
                let was = open.first { $0.name == list.name }
                if let was, list.youngest > was.youngest { barriers[list.name] = .at(was.youngest) }
            }
        }
        return barriers
    }

    /// The lists as they are now; barriers that merging has taken are noted.
    private func lists(of container: EngineContainer) throws(GenerationError) -> [GenerationList] {
        let lists = try control.lists(of: container.group)
        container.state.withLock { $0.generations.note(lists) }
        return lists
    }

    // MARK: Puckets

    private func snapshot(_ pucket: Pucket, _ pass: Pass) throws(GenerationError) {
        let barriers = try age(pass.container)
        pass.container.state.withLock { state in
            switch pucket {
            case .runtime: state.generations.runtime = barriers
            case .initialization: state.generations.initialization = barriers
            case .execution: break
            }
        }
    }

    /// Opens a window. Nothing is written yet: what the budget grants is kept for the window's end.
    private func examine(
        _ scope: PageScope, _ grant: ByteCount, _ pass: Pass, _ report: inout ActionReport
    ) throws(GenerationError) {
        let container = pass.container
        var marks = container.state.withLock { $0.generations.runtime }
        if scope != .runtime { marks = try age(container) }
        let lists = try lists(of: container)
        let behind = lists.reduce(UInt64(0)) { sum, list in
            guard case .at(let barrier) = marks[list.name] else { return sum }
            return sum + list.anonymousPages(through: barrier)
        }
        let reserved = min(behind, grant.pages.pages)
        let window = marks
        container.state.withLock { state in
            if scope == .runtime {
                state.generations.runtimeReserved = reserved
            } else {
                state.generations.window = window
                state.generations.windowReserved = reserved
            }
        }
        report.reserved = ByteCount(pages: PageCount(reserved))
    }

    // MARK: Release

    private func release(
        _ scope: PageScope, _ pass: Pass, _ report: inout ActionReport
    ) throws(GenerationError) {
        let container = pass.container
        let isRuntime = scope == .runtime
        _ = try lists(of: container)
        let known = container.state.withLock { $0.generations }
        let marks = isRuntime ? known.runtime : known.window
        let reserved = isRuntime ? known.runtimeReserved : known.windowReserved
        var barriers: [GenerationListName: UInt64] = [:]
        for (name, mark) in marks { if case .at(let barrier) = mark { barriers[name] = barrier } }
        // What requests used leaves the generations behind the barrier by aging, and the kernel demands two younger ones.
        for _ in 0..<Self.youngerGenerations {
            let lists = try lists(of: container)
            let needs = lists.contains { list in
                barriers[list.name].map { list.youngest < $0 + Self.youngerGenerations } ?? false
            }
            if !needs { break }
            _ = try age(container)
        }
        var left = reserved
        for (name, barrier) in barriers where !report.wasHalted {
            let used = try evict(name, through: barrier, atMost: left, pass, &report)
            left -= min(left, used)
        }
        if report.wasHalted { return }
        let lists = try lists(of: container)
        container.state.withLock { state in
            for list in lists {
                guard let barrier = barriers[list.name],
                    list.anonymousPages(through: barrier) == 0
                else { continue }
                if isRuntime { state.generations.runtime[list.name] = .released }
                if !isRuntime {
                    state.generations.window[list.name] = .released
                    for name in [list.name] where state.generations.initialization[name] != nil {
                        state.generations.initialization[name] = .released
                    }
                }
            }
        }
        report.hot += PageCount(
            lists.reduce(0) { sum, list in
                sum + (barriers[list.name].map { list.anonymousPages(from: $0 + 1) } ?? 0)
            })
    }

    /// Evicts anonymous pages up to a generation, piece by piece, until none is left there, `limit` is reached, or nothing moves.
    /// Returns the pages that left those generations.
    private func evict(
        _ name: GenerationListName, through last: UInt64, atMost limit: UInt64, _ pass: Pass,
        _ report: inout ActionReport
    ) throws(GenerationError) -> UInt64 {
        var moved: UInt64 = 0
        var there: (anonymous: UInt64, file: UInt64)?
        while moved < limit {
            if pass.isHalted {
                report.wasHalted = true
                return moved
            }
            guard let list = try lists(of: pass.container).first(where: { $0.name == name }),
                list.youngest >= last + Self.youngerGenerations
            else { return moved }
            let now = (list.anonymousPages(through: last), list.filePages(through: last))
            if let before = there {
                // File cache of older generations goes before, and is accounted apart.
                guard now.0 < before.anonymous || now.1 < before.file else { return moved }
                moved += before.anonymous - min(before.anonymous, now.0)
            }
            guard now.0 > 0, moved < limit else { return moved }
            there = now
            try control.evict(
                name, through: last, pages: min(Self.piecePages, limit - moved, now.0))
        }
        return moved
    }

    // MARK: Drain

    private func drain(
        _ grant: ByteCount, _ pass: Pass, _ report: inout ActionReport
    ) throws(GenerationError) {
        let container = pass.container
        container.noteWorkingSetsOnce(pass.epoch, using: reader)
        var left = grant.pages.pages
        var candidates: UInt64 = 0
        // Twice aged, all that an idle container has not used may be evicted.
        for round in 0...Self.youngerGenerations where left > 0 && !report.wasHalted {
            let lists = try lists(of: container)
            candidates = lists.reduce(0) { $0 + $1.anonymousPages() }
            for list in lists where left > 0 && list.youngest >= Self.youngerGenerations {
                let last = list.youngest - Self.youngerGenerations
                let moved = try evict(list.name, through: last, atMost: left, pass, &report)
                left -= min(left, moved)
            }
            let isYoung = lists.contains {
                $0.anonymousPages(from: $0.youngest - min($0.youngest, 1)) > 0
            }
            guard left > 0, isYoung, round < Self.youngerGenerations else { break }
            _ = try age(container)
        }
        report.isExhausted = candidates == 0 || (left == grant.pages.pages && !report.wasHalted)
    }

    // MARK: Sizes

    func segments(of container: EngineContainer) -> SegmentSizes? {
        guard let lists = try? lists(of: container) else { return nil }
        let marks = container.state.withLock { $0.generations }
        let all = lists.reduce(UInt64(0)) { $0 + $1.anonymousPages() }
        let runtime = GenerationMarks.pages(behind: marks.runtime, in: lists)
        let both = GenerationMarks.pages(behind: marks.initialization, in: lists)
        let window = GenerationMarks.pages(behind: marks.window, in: lists)
        func segment(_ pages: UInt64?) -> SegmentSize {
            SegmentSize(local: pages.map { ByteCount(pages: PageCount($0)) }, far: nil)
        }
        func size(_ pages: UInt64?) -> ByteCount? {
            pages.map { ByteCount(pages: PageCount($0)) }
        }
        let initialization: UInt64? = both.flatMap { both in runtime.map { both - min(both, $0) } }
        return SegmentSizes(
            runtime: segment(runtime), initialization: segment(initialization),
            execution: segment(both.map { all - min(all, $0) }), hot: size(window.map { all - $0 }),
            waiting: container.waitingBytes(), measuredAt: Nanoseconds(monotonicNow()))
    }
}
