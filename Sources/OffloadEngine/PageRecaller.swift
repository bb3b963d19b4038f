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
    /// 2 MiB: small enough that all threads have work to the end, and far memory sees requests of some length.
    private static let piecePages: UInt64 = 512
    /// The request's first steps are looked at after so long, then after twice as long, and so on.
    private static let firstLook: Int64 = 2_000_000
    private static let looks = 7

    private let reader = PageMapReader()
    private let mode: PrefetchMode

    init(mode: PrefetchMode) { self.mode = mode }

    /// Takes part in a job until nothing is left or `deadline` (monotonic nanoseconds) has come. Returns the pages that all threads
    /// asked for, when this is the last of them.
    func recall(_ job: RecallJob, deadline: Int64) -> PageCount? {
        let container = job.item.container
        while let piece = job.take({ plan(container) }), monotonicNow() < deadline {
            guard let done = try? piece.process.advise(piece.pages, .willNeed) else { continue }
            job.note(done)
            // They are local again, in the swap cache: what requests do not touch of them is to be released like
            // the rest of a window, or it would stay for good.
            container.update(piece.process) {
                $0.marked = $0.marked.union(piece.pages)
                $0.recalled = $0.recalled.union(piece.pages)
            }
        }
        guard let total = job.leave() else { return nil }
        container.state.withLock { $0.ledger.recalled += total }
        return total
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
                ? known.wake.batches(local: known.workingSet) : [known.workingSet]
            if isWaking {
                container.update(process) {
                    $0.isWaking = true
                    $0.farAtWake = census.swapped
                }
            }
            for batch in batches {
                let far = census.swapped.intersection(batch)
                far.forEachPiece(pages: Self.piecePages) { piece in
                    pieces.append(RecallJob.Piece(process: process, pages: piece))
                    return true
                }
            }
        }
        return pieces
    }

    /// Looks which of the prefetched pages the request comes to first, until it has ended or was looked at often enough. Once an order
    /// is known it is kept for as long as the record matches.
    func watchOrder(_ container: EngineContainer) {
        guard mode == .adaptive else { return }
        let (processes, pages) = container.state.withLock { ($0.processes, $0.pages) }
        var unseen: [ProcessIdentity: PageRuns] = [:]
        for (identity, known) in pages where known.isWaking && known.wake.waves.count < 2 {
            unseen[identity] = known.recalled
        }
        var pause = Self.firstLook
        for _ in 0..<Self.looks where !unseen.isEmpty && container.isServing {
            for (identity, left) in unseen {
                guard let process = processes[identity],
                    let census = try? process.census(of: left, using: reader)
                else { continue }
                let touched = census.present
                if touched.isEmpty { continue }
                unseen[identity] = left.subtracting(touched)
                container.update(process) { if $0.isWaking { $0.order.append(touched) } }
            }
            sleepNanoseconds(pause)
            pause *= 2
        }
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
                    touched: census.present.intersection(pages.farAtWake), order: pages.order,
                    prefetched: pages.recalled)
                pages.order = []
                pages.farAtWake = PageRuns()
                pages.isWaking = false
            }
        }
    }
}
