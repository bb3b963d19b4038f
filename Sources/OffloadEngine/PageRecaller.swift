import Containers
import FarMemory
import LinuxSystem
import OffloadPolicy
import Synchronization

/// The way back of one container, shared by the recall threads: whoever is free takes the next piece.
final class RecallJob: Sendable {
    struct Piece: Sendable {
        let process: TargetProcess
        let pages: PageRuns
        /// Those of them that are mapped as soon as they are there.
        var mapped = PageRuns()
    }

    let item: WorkItem
    /// Monotonic nanoseconds.
    let start: Int64
    private let pieces = Mutex<[Piece]?>(nil)
    private let next = Atomic<Int>(0)
    private let asked = Atomic<UInt64>(0)
    private let threadsLeft: Atomic<Int>

    init(_ item: WorkItem, threads: Int, at start: Int64) {
        self.item = item
        self.start = start
        threadsLeft = Atomic(threads)
    }

    /// The next piece; the first caller plans, the others wait for it.
    func take(_ plan: () -> [Piece]) -> Piece? {
        let all = pieces.withLock { known in
            if let known { return known }
            let made = plan()
            known = made
            return made
        }
        let at = next.add(1, ordering: .relaxed).oldValue
        return at < all.count ? all[at] : nil
    }

    func note(_ pages: UInt64) { asked.add(pages, ordering: .relaxed) }

    /// A thread is done: the pages asked for by all of them, for the last one.
    func leave() -> PageCount? {
        guard threadsLeft.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 else {
            return nil
        }
        return PageCount(asked.load(ordering: .relaxed))
    }
}

/// Reads working sets back. Each recall thread has its own.
final class PageRecaller {
    /// 1 MiB: small enough that all threads have work to the end, and far memory sees requests of some length.
    private static let piecePages: UInt64 = 256

    private let reader = PageMapReader()
    private let mode: PrefetchMode

    init(mode: PrefetchMode) { self.mode = mode }

    /// Takes part in a job until nothing is left or `deadline` (monotonic nanoseconds) has come. Returns the pages that all threads
    /// asked for, when this is the last of them.
    func recall(_ job: RecallJob, deadline: Int64) -> PageCount? {
        let container = job.item.container
        // A piece is mapped when the one behind it has been asked for: until then its pages are on their way. That also bounds what is
        // underway, and with it how long a fault of the request waits in the queue of the swap device.
        var underway: RecallJob.Piece?
        while let piece = job.take({ plan(container) }) {
            guard monotonicNow() < deadline else {
                // What came back by then says nothing about what should.
                container.update(piece.process) { $0.isWaking = false }
                break
            }
            noteEarly(piece, container)
            guard let done = try? piece.process.advise(piece.pages, .willNeed) else { continue }
            job.note(done)
            keepWaiting(piece.pages.subtracting(piece.mapped), of: piece, container)
            if let underway { map(underway, container, deadline) }
            underway = piece
        }
        if let underway { map(underway, container, deadline) }
        guard let total = job.leave() else { return nil }
        container.state.withLock { $0.ledger.recalled += total }
        return total
    }

    /// What the request has read back by itself before it was its turn is what the request waits for: next time it comes first.
    private func noteEarly(_ piece: RecallJob.Piece, _ container: EngineContainer) {
        guard mode == .adaptive,
            let early = try? piece.process.census(of: piece.pages, using: reader).present,
            !early.isEmpty
        else { return }
        container.update(piece.process) { if $0.isWaking { $0.early = $0.early.union(early) } }
    }

    /// They are local again, in the swap cache: what requests do not touch of them is to be released like the rest of a window, or it
    /// would stay for good.
    private func keepWaiting(
        _ pages: PageRuns, of piece: RecallJob.Piece, _ container: EngineContainer
    ) {
        guard !pages.isEmpty else { return }
        container.update(piece.process) {
            $0.marked = $0.marked.union(pages)
            $0.recalled = $0.recalled.union(pages)
        }
    }

    private func map(
        _ piece: RecallJob.Piece, _ container: EngineContainer, _ deadline: Int64
    ) {
        guard !piece.mapped.isEmpty else { return }
        // To map a page is nobody's access: it waits no longer for its release, where it would count as one.
        container.update(piece.process) {
            if !$0.marked.isEmpty { $0.marked = $0.marked.subtracting(piece.mapped) }
        }
        guard piece.process.touch(piece.mapped, until: deadline) < piece.mapped.pages else {
            return
        }
        // Some were not reached, and which is not known.
        keepWaiting(piece.mapped, of: piece, container)
    }

    private func plan(_ container: EngineContainer) -> [RecallJob.Piece] {
        // A request in an open window finds most of its pages mapped: it says nothing about a wake-up.
        let (processes, pages, isWaking) = container.state.withLock { state in
            defer { state.wasDrained = false }
            return (state.processes, state.pages, state.wasDrained)
        }
        var pieces: [RecallJob.Piece] = []
        for (identity, process) in processes {
            guard let known = pages[identity],
                let census = try? process.census(using: reader)
            else { continue }
            let batches =
                mode == .adaptive && isWaking
                ? known.wake.batches(local: known.workingSet, isMeasured: known.isSetMeasured)
                : [WakeBatch(pages: known.workingSet, isMapped: false)]
            var sample = PageRuns()
            var wanted = PageRuns()
            for batch in batches {
                let far = census.swapped.intersection(batch.pages)
                wanted = wanted.union(far)
                let unmapped = batch.isMapped ? known.wake.sample(of: far) : far
                if batch.isMapped { sample = sample.union(unmapped) }
                far.forEachPiece(pages: Self.piecePages) { piece in
                    let mapped = batch.isMapped ? piece.subtracting(unmapped) : PageRuns()
                    pieces.append(
                        RecallJob.Piece(process: process, pages: piece, mapped: mapped))
                    return true
                }
            }
            if isWaking {
                let (prefetched, probes) = (wanted, sample)
                let isMapped = batches.contains(where: \.isMapped)
                container.update(process) {
                    $0.isMappedAhead = isMapped
                    $0.isWaking = true
                    $0.farAtWake = census.swapped
                    $0.prefetched = prefetched
                    $0.sample = probes
                    $0.early = PageRuns()
                }
            }
        }
        return pieces
    }
}

extension EngineContainer {
    /// A request that woke the container has ended: what it touched is the record for the next one. Belongs to the mover, before
    /// anything is unmapped again.
    func noteWake(using reader: PageMapReader) {
        let (processes, pages) = state.withLock { ($0.processes, $0.pages) }
        for (identity, process) in processes {
            guard let known = pages[identity], known.isWaking else { continue }
            guard let census = try? process.census(using: reader) else { continue }
            update(process) { pages in
                pages.wake.note(
                    touched: census.present.intersection(pages.farAtWake), early: pages.early,
                    prefetched: pages.prefetched, isMapped: pages.isMappedAhead,
                    sample: pages.sample)
                pages.early = PageRuns()
                pages.farAtWake = PageRuns()
                pages.prefetched = PageRuns()
                pages.sample = PageRuns()
                pages.isWaking = false
            }
        }
    }
}
