import Containers
import FarMemory
import LinuxSystem
import OffloadPolicy
import Synchronization

// How pages leave without any kernel support beyond 5.10, exactly and without a limit (docs/decisions/0002).
//
// process_madvise(PAGEOUT) unmaps private pages and starts writing them to swap. On an asynchronous swap device they then
// wait in the swap cache, still in local memory. What the container touches comes back by a minor
// fault and is present in pagemap again; what is still a swap entry at the end was not touched. To free
// it, a byte of each such page is read, which maps the clean copy, and PAGEOUT is asked for again: now it
// has nothing to write and frees the page at once.

/// Moves pages of containers. Belongs to one thread.
final class PageMover: PageEngine {
    /// Pages between two looks at the halt count: 2 MiB, about 2 ms of work.
    private static let piecePages: UInt64 = 512

    let reader = PageMapReader()
    private let reclaimer: GroupReclaimer?
    private let isDryRun: Bool
    /// Fewer pages than this prove nothing: a processor counts up to 64 in advance.
    private static let countedAside: UInt64 = 128
    /// A process that serves nothing wakes up now and then, and touches a page or two of its own. As long as they were taken for
    /// something to drain, a container was drained for as long as it was idle.
    static let usedWhenIdle: UInt64 = 16

    init(reclaimer: GroupReclaimer?, isDryRun: Bool) {
        self.reclaimer = reclaimer
        self.isDryRun = isDryRun
    }

    /// Carries out one action that was issued at `epoch`.
    func perform(_ action: Action, on container: EngineContainer, epoch: UInt64) -> ActionReport {
        var report = ActionReport(action: action)
        let pass = Pass(container: container, epoch: epoch)
        if !isDryRun {
            switch action {
            case .snapshot(let pucket): snapshot(pucket, pass)
            case .examine(let scope, let grant): examine(scope, grant, pass, &report)
            case .release(let scope): release(scope, pass, &report)
            case .drain(let grant): drain(grant, pass, &report)
            case .reclaim(let amount): reclaim(amount, pass, &report)
            case .startColdPageout, .stopColdPageout, .pullBack: break
            case .halt, .recall, .forget: break
            }
        } else if case .drain = action {
            report.isExhausted = true
        }
        container.finish(&report)
        return report
    }

    // MARK: Puckets

    private func snapshot(_ pucket: Pucket, _ pass: Pass) {
        for process in pass.container.processes() {
            guard let census = try? process.census(using: reader) else { continue }
            let all = census.present.union(census.swapped)
            pass.container.update(process) { pages in
                switch pucket {
                case .runtime: pages.runtime = all
                case .initialization:
                    // Runtime pages that initialization used belong to it from now on.
                    if !pages.marked.isEmpty {
                        pages.runtime = pages.runtime.intersection(census.swapped)
                    }
                    pages.initialization = all.subtracting(pages.runtime)
                    pages.workingSet = all
                case .execution: break
                }
            }
        }
    }

    private func examine(
        _ scope: PageScope, _ grant: ByteCount, _ pass: Pass, _ report: inout ActionReport
    ) {
        if scope == .all { return examineOn(grant, pass, &report) }
        var left = grant.pages.pages
        for process in pass.container.processes() where left > 0 {
            guard let census = try? process.census(using: reader) else { continue }
            let known = pass.container.pages(of: process)
            let segment =
                scope == .runtime ? known.runtime : known.initialization.union(known.runtime)
            let wanted = census.present.intersection(segment)
            let done = pageOut(
                wanted.prefix(pages: left), of: process, pass, &report,
                keepsCopies: scope != .runtime)
            left -= min(left, done)
        }
    }

    /// Examines so much of all pages, from where the last examination ended, and around.
    private func examineOn(_ grant: ByteCount, _ pass: Pass, _ report: inout ActionReport) {
        let container = pass.container
        let processes = container.processes()
        guard !processes.isEmpty else { return }
        let last = container.state.withLock { $0.examined }
        let start = processes.firstIndex { $0.identity.pid >= last.pid } ?? 0
        let isAmid = processes[start].identity.pid == last.pid
        var left = grant.pages.pages
        // Where it starts amid a process, that one comes a second time, with what lies before.
        for step in 0..<(processes.count + (isAmid ? 1 : 0)) where left > 0 && !report.wasHalted {
            let process = processes[(start + step) % processes.count]
            guard let present = try? process.census(using: reader).present else { continue }
            var wanted = present
            if isAmid && step == 0 { wanted = present.suffix(from: last.page) }
            if step == processes.count {
                wanted = present.subtracting(wanted.suffix(from: last.page))
            }
            let part = wanted.prefix(pages: left)
            guard let end = part.runs.last?.end else { continue }
            left -= min(left, pageOut(part, of: process, pass, &report, keepsCopies: true))
            if report.wasHalted { return }
            container.state.withLock { $0.examined = (process.identity.pid, end) }
        }
    }

    /// Writes out and unmaps; notes what was marked. Returns the pages that the kernel accepted.
    ///
    /// What had been far before and was not changed since has nothing to write, so the kernel frees it at once. With `keepsCopies`
    /// it is read back into the swap cache, while nobody waits for it: a request of the window would pay many times the price of the
    /// minor fault that it is examined for.
    private func pageOut(
        _ runs: PageRuns, of process: TargetProcess, _ pass: Pass, _ report: inout ActionReport,
        keepsCopies: Bool = false
    ) -> UInt64 {
        var marked = PageRuns()
        var accepted: UInt64 = 0
        var halted = false
        runs.forEachPiece(pages: Self.piecePages) { piece in
            if pass.isHalted {
                halted = true
                return false
            }
            guard let done = try? process.advise(piece, .pageOut) else { return false }
            if keepsCopies { _ = try? process.advise(piece, .willNeed) }
            accepted += done
            marked = marked.union(piece)
            return true
        }
        if halted { report.wasHalted = true }
        let newlyMarked = marked
        pass.container.update(process) {
            $0.marked = $0.marked.union(newlyMarked)
            $0.recalled = $0.recalled.subtracting(newlyMarked)
        }
        report.written += ByteCount(pages: PageCount(accepted))
        return accepted
    }

    // MARK: Release

    private func release(_ scope: PageScope, _ start: Pass, _ report: inout ActionReport) {
        let processes = start.container.processes()
        settle(processes, start, &report) { known in
            scope == .runtime ? known.marked.intersection(known.runtime) : known.marked
        }
        guard scope != .runtime, !report.wasHalted else { return }
        for process in processes {
            guard let census = try? process.census(using: reader) else { continue }
            // What is present now is what requests use.
            start.container.update(process) {
                $0.workingSet = census.present
                $0.hadWindow = true
            }
        }
    }

    /// Frees what waits in the swap cache of the pages that `targets` picks, and measures whether it went.
    private func settle(
        _ processes: [TargetProcess], _ start: Pass, _ report: inout ActionReport,
        _ targets: (ProcessPages) -> PageRuns
    ) {
        let wanted = processes.map { targets(start.container.pages(of: $0)) }
        // Nothing waits: then nothing need be counted, which takes a census of every process.
        guard wanted.contains(where: { !$0.isEmpty }) else { return }
        var pass = start
        let before = waitingPages(processes, start)
        pass.waiting = before?.pages
        // When swap is more than half full the kernel gives a touched page's slot back, and the page must be written again instead of
        // being freed: let it reclaim from the group.
        pass.mustNotTouch = HostMemory.swapIsMoreThanHalfFull()
        var touched: UInt64 = 0
        for (process, pages) in zip(processes, wanted) where !report.wasHalted {
            touched += release(pages, of: process, pass, &report)
        }
        guard !report.wasHalted, report.released > .zero,
            let after = waitingPages(processes, start), after.pages * 4 >= report.released.pages
        else { return }
        var left = after.pages
        if touched > 0 {
            // Still being written, most likely: they are mapped again, and the next pass finds them. The kernel's statistics lag,
            // its count of local memory does not.
            if let before {
                left = min(left, touched - min(touched, (before.local - after.local).pages.pages))
            }
            report.released -= PageCount(min(left, report.released.pages))
            return
        }
        if let reclaimer, start.container.group.isCurrent {
            let amount = ByteCount(pages: PageCount(min(left, report.released.pages)))
            let moved = reclaimer.reclaim(amount, from: start.container.group) { start.isHalted }
            start.container.state.withLock { $0.ledger.reclaimed += moved }
        }
        let stuck = waitingPages(processes, start)?.pages ?? 0
        report.released -= PageCount(min(stuck, report.released.pages))
    }

    /// Returns how many pages it touched to free them.
    private func release(
        _ targets: PageRuns, of process: TargetProcess, _ pass: Pass, _ report: inout ActionReport
    ) -> UInt64 {
        guard !targets.isEmpty, let census = try? process.census(of: targets, using: reader) else {
            return 0
        }
        var touched: UInt64 = 0
        report.hot += PageCount(census.present.pages)
        var released = PageRuns()
        var halted = false
        // Pages that the kernel already took out of the swap cache must not be read back in.
        let mustTouch =
            !pass.mustNotTouch && (pass.waiting.map { $0 * 4 >= census.swapped.pages } ?? true)
        census.swapped.forEachPiece(pages: Self.piecePages) { piece in
            if pass.isHalted {
                halted = true
                return false
            }
            if mustTouch {
                // Some have left by themselves. A fault would read their neighbours back, too, and those would stay in the swap cache,
                // unmapped, where no examination finds them: read these alone.
                _ = try? process.advise(piece, .willNeed)
                touched += process.touch(piece)
                guard (try? process.advise(piece, .pageOut)) != nil else { return false }
            }
            released = released.union(piece)
            return true
        }
        if halted { report.wasHalted = true }
        let remaining = census.swapped.subtracting(released)
        let settled = targets.subtracting(remaining)
        pass.container.update(process) { $0.marked = $0.marked.subtracting(settled) }
        report.released += PageCount(released.pages)
        return touched
    }

    /// How many swap entries of the processes still have their page in the swap cache: all entries, less
    /// what the group accounts as far; and its local memory at that moment. The kernel may free such pages at any time by itself.
    private func waitingPages(
        _ processes: [TargetProcess], _ pass: Pass
    ) -> (pages: UInt64, local: ByteCount)? {
        guard let use = try? pass.container.group.use(), let far = use.far else { return nil }
        let entries = processes.reduce(UInt64(0)) { sum, process in
            sum + ((try? process.census(using: reader))?.swapped.pages ?? 0)
        }
        return (entries - min(entries, far.pages.pages), use.local)
    }

    // MARK: Drain

    private func drain(_ grant: ByteCount, _ pass: Pass, _ report: inout ActionReport) {
        let container = pass.container
        let processes = container.processes()
        let before = processes.map { container.pages(of: $0) }
        container.noteWorkingSetsOnce(pass.epoch, using: reader)
        var candidates = before.reduce(UInt64(0)) { $0 + $1.marked.pages }
        settle(processes, pass, &report) { $0.marked }
        if report.wasHalted { return }
        var left = grant.pages.pages
        for (process, known) in zip(processes, before) where left > 0 {
            guard let census = try? process.census(using: reader) else { continue }
            candidates += census.present.pages
            // Pages outside of the working set that was remembered before first.
            let cold = census.present.subtracting(known.workingSet).prefix(pages: left)
            var done = pageOut(cold, of: process, pass, &report)
            if done < left && !report.wasHalted {
                let rest = census.present.subtracting(cold).prefix(pages: left - done)
                done += pageOut(rest, of: process, pass, &report)
            }
            left -= min(left, done)
            if report.wasHalted { return }
        }
        report.isExhausted = candidates <= Self.usedWhenIdle
        if report.isExhausted { reclaimWaiting(processes, pass) }
    }

    /// Pages that were still being written when they were to be freed wait in the swap cache: too few to touch all for them. In a
    /// container of which everything is to leave the kernel cannot reclaim the wrong ones.
    private func reclaimWaiting(_ processes: [TargetProcess], _ pass: Pass) {
        guard let reclaimer, pass.container.group.isCurrent,
            let waiting = waitingPages(processes, pass)?.pages, waiting >= Self.countedAside
        else { return }
        let amount = ByteCount(pages: PageCount(waiting))
        let moved = reclaimer.reclaim(amount, from: pass.container.group) { pass.isHalted }
        pass.container.state.withLock { $0.ledger.reclaimed += moved }
    }

    private func reclaim(_ amount: ByteCount, _ pass: Pass, _ report: inout ActionReport) {
        guard let reclaimer, pass.container.group.isCurrent else { return }
        let moved = reclaimer.reclaim(amount, from: pass.container.group) { pass.isHalted }
        report.wasHalted = pass.isHalted
        report.written = moved
        report.released = moved.pages
        pass.container.state.withLock { $0.ledger.reclaimed += moved }
    }
}
