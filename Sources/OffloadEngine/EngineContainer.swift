import Containers
package import FarMemory
import LinuxSystem
import OffloadPolicy
import Synchronization

/// The pages of one process, as the engine remembers them.
struct ProcessPages: Sendable {
    var runtime = PageRuns()
    var initialization = PageRuns()
    /// Written out and unmapped in an open window or a drain, not yet released.
    var marked = PageRuns()
    /// What the last windows found to be in use.
    var workingSet = PageRuns()
    /// A window of requests has closed: before that the working set is all that was there.
    var hadWindow = false
    /// The working set that a recall brings back is what requests were seen to use.
    var isSetMeasured = false
    /// Read back ahead of a request since the last drain, and so far not touched as far as is known.
    var recalled = PageRuns()
    /// What first requests after a drain need.
    var wake = WakeRecord()
    /// Such a request runs.
    var isWaking = false
    /// Pages are mapped ahead of it.
    var isMappedAhead = false
    /// What was far when it came, what was prefetched for it, and what of that tells for the pages that were mapped ahead of it.
    var farAtWake = PageRuns()
    var prefetched = PageRuns()
    var sample = PageRuns()
    /// What it came to before it was prefetched.
    var early = PageRuns()
}

/// What moved, since the container began.
package struct MovementLedger: Equatable, Sendable {
    package internal(set) var written = PageCount.zero
    package internal(set) var released = PageCount.zero
    package internal(set) var hot = PageCount.zero
    package internal(set) var recalled = PageCount.zero
    package internal(set) var reclaimed = ByteCount.zero
    package internal(set) var fileDropped = ByteCount.zero
    /// Bytes that were far times the seconds for which they were: local memory saved.
    package internal(set) var savedByteSeconds: UInt64 = 0
    /// Orders to the kernel's generations that failed, and Puckets that it merged.
    package internal(set) var generationErrors: UInt64 = 0
    package internal(set) var generationMerges: UInt64 = 0
}

/// A container as the engine holds it. Pages and processes belong to the thread that moves pages (the
/// mover; a recall thread takes only a copy); everything else is the control thread's.
final class EngineContainer: Sendable {
    let handle: ContainerHandle
    /// The name that events and reports use.
    let name: String
    let function: String
    /// What its labels set, before any rule for its function.
    let labels: ContainerSettings
    let group: MemoryGroup
    /// Raised by each halt: work that was issued before stops at its next piece.
    private let haltCount = Atomic<UInt64>(0)
    private let running = Atomic<Int>(0)
    /// Grows with all that may have changed where its pages are: requests and actions.
    private let changes = Atomic<UInt64>(0)

    struct Pages: Sendable {
        var processes: [ProcessIdentity: TargetProcess] = [:]
        var pages: [ProcessIdentity: ProcessPages] = [:]
        /// The halt count at which the working set was last noted.
        var episode: UInt64?
        /// A drain has begun since the last recall.
        var wasDrained = false
        var generations = GenerationMarks()
        /// Where the last examination of a part ended: the process's id, and the page behind it.
        var examined = (pid: Int32(0), page: UInt64(0))
        /// Monotonic time of the last entry in the ledger.
        var ledgerAt: Int64?
        /// As of the last census, and how far `changes` was then.
        var sizes: SegmentSizes?
        var changesAtCensus: UInt64 = 0
        var ledger = MovementLedger()
    }
    let state = Mutex(Pages())

    init(
        handle: ContainerHandle, name: String, function: String, labels: ContainerSettings,
        group: MemoryGroup
    ) {
        self.handle = handle
        self.name = name
        self.function = function
        self.labels = labels
        self.group = group
    }

    var epoch: UInt64 { haltCount.load(ordering: .acquiring) }
    /// Requests run; said by the control thread.
    var isServing: Bool { running.load(ordering: .relaxed) > 0 }
    func noteRequest(begins: Bool) {
        changes.add(1, ordering: .relaxed)
        if begins {
            running.add(1, ordering: .relaxed)
        } else if isServing {
            running.subtract(1, ordering: .relaxed)
        }
    }
    func halt() { haltCount.add(1, ordering: .acquiringAndReleasing) }

    /// The processes that run now. Those that ended, or run another program since, are forgotten with their pages; new ones are
    /// opened. A process that ends meanwhile is simply not there.
    func processes() -> [TargetProcess] {
        guard group.isCurrent, let pids = try? group.processes() else { return [] }
        let known = state.withLock { $0.processes }
        var current: [ProcessIdentity: TargetProcess] = [:]
        for pid in pids {
            guard let identity = try? ProcessIdentity(pid: pid) else { continue }
            if let process = known[identity] ?? (try? TargetProcess(pid: pid)) {
                current[process.identity] = process
            }
        }
        let found = current
        state.withLock { state in
            state.processes = found
            state.pages = state.pages.filter { found[$0.key] != nil }
        }
        return found.values.sorted { $0.identity.pid < $1.identity.pid }
    }

    func pages(of process: TargetProcess) -> ProcessPages {
        state.withLock { $0.pages[process.identity] ?? ProcessPages() }
    }

    func update(_ process: TargetProcess, _ body: (inout ProcessPages) -> Void) {
        state.withLock { body(&$0.pages[process.identity, default: ProcessPages()]) }
    }

    /// Takes a census of the segments.
    func noteSizes(_ measure: () -> SegmentSizes?) {
        let before = changes.load(ordering: .relaxed)
        let sizes = measure()
        state.withLock { state in
            state.sizes = sizes
            state.changesAtCensus = before
        }
    }

    /// How old the figures of the last census are, as far as they may be wrong. Nothing moves pages of a container that is left alone but
    /// the kernel by itself, and a census is in the way of a request: both can wait, but not for ever.
    func censusAge(at now: Int64) -> Int64 {
        let (measured, known) = state.withLock { ($0.sizes?.measuredAt, $0.changesAtCensus) }
        guard let measured else { return .max }
        let age = now - measured.nanoseconds
        let canWait = isServing || changes.load(ordering: .relaxed) == known
        return canWait && age < Self.censusPatience ? 0 : age
    }
    private static let censusPatience: Int64 = 60_000_000_000

    /// Ends an action's report: what the group uses now, and the ledger.
    func finish(_ report: inout ActionReport) {
        changes.add(1, ordering: .relaxed)
        report.measure = measure()
        let done = report
        state.withLock { state in
            state.ledger.released += done.released
            state.ledger.hot += done.hot
            state.ledger.written += done.written.pages
            state.ledger.fileDropped += done.fileDropped
            state.ledger.generationMerges = state.generations.merges
        }
    }

    /// What a recall brings back, noted once for each drain (`epoch` is its halt count): what is local when it begins. A window that is
    /// open then has not told the hot pages, so all of it may be needed. What was read back for the last requests and is still not
    /// mapped was not needed: it leaves the working set.
    func noteWorkingSetsOnce(_ epoch: UInt64, using reader: PageMapReader) {
        let isNew = state.withLock { state in
            defer { state.episode = epoch }
            state.wasDrained = true
            return state.episode != epoch
        }
        guard isNew else { return }
        for process in processes() {
            guard let census = try? process.census(using: reader) else { continue }
            update(process) { pages in
                let unknown = pages.marked.intersection(census.swapped)
                pages.workingSet = census.present.union(unknown.subtracting(pages.recalled))
                pages.isSetMeasured = pages.hadWindow && unknown.isEmpty
                pages.recalled = PageRuns()
            }
        }
    }

    /// Swap cache: written out, and still in local memory; nil when the kernel does not say.
    func waitingBytes() -> ByteCount? { (try? group.use())?.swapCached }

    /// What the group uses now; nil when it is gone.
    func measure() -> ContainerMeasure? {
        guard let use = try? group.use() else { return nil }
        noteSaved(use.far)
        return ContainerMeasure(
            local: use.local, far: use.far, anonymous: use.anonymous, refaults: use.refaults,
            file: use.file, stall: group.pressureTotal(), segments: state.withLock { $0.sizes })
    }

    /// Enters into the ledger what was far since the last measure. Unknown is not entered.
    private func noteSaved(_ far: ByteCount?) {
        let now = monotonicNow()
        state.withLock { state in
            defer { state.ledgerAt = now }
            guard let far, let since = state.ledgerAt, now > since else { return }
            state.ledger.savedByteSeconds += far.bytes / 1000 * UInt64((now - since) / 1_000_000)
        }
    }
}
