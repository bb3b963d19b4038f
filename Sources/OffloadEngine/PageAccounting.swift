import Containers
import FarMemory
import LinuxSystem
import OffloadPolicy
import Synchronization

extension PageMover {
    /// Exact to the page, for pages that one process alone maps. Those that forks share are in no segment: reports give them as what
    /// the group's anonymous memory has beyond the segments.
    func segments(of container: EngineContainer) -> SegmentSizes? {
        var runtime = Tally()
        var initialization = Tally()
        var all = Tally()
        var hot: UInt64 = 0
        for process in container.processes() {
            // A process that ends meanwhile holds nothing any more.
            guard let census = try? process.census(using: reader) else { continue }
            let known = container.pages(of: process)
            runtime.add(census, in: known.runtime)
            initialization.add(census, in: known.initialization)
            all.present += census.present.pages
            all.swapped += census.swapped.pages
            hot += census.present.intersection(known.workingSet).pages
        }
        guard let use = try? container.group.use() else { return nil }
        let waiting =
            use.swapCached ?? use.far.map { ByteCount(pages: PageCount(all.swapped)) - $0 }
        return SegmentSizes(
            runtime: runtime.size, initialization: initialization.size,
            execution: (all - runtime - initialization).size,
            hot: ByteCount(pages: PageCount(hot)), waiting: waiting,
            measuredAt: Nanoseconds(monotonicNow()))
    }
}

/// Pages of a segment: mapped, and as swap entries.
private struct Tally {
    var present: UInt64 = 0
    var swapped: UInt64 = 0

    mutating func add(_ census: PageCensus, in segment: PageRuns) {
        present += census.present.intersection(segment).pages
        swapped += census.swapped.intersection(segment).pages
    }

    static func - (a: Tally, b: Tally) -> Tally {
        Tally(
            present: a.present - min(a.present, b.present),
            swapped: a.swapped - min(a.swapped, b.swapped))
    }

    var size: SegmentSize {
        SegmentSize(
            local: ByteCount(pages: PageCount(present)), far: ByteCount(pages: PageCount(swapped)))
    }
}

/// Whose segments are measured next, so that the mover spends at most a twentieth of its time on it. Belongs to the control thread.
struct CensusSchedule {
    /// A figure older than this is taken anew.
    private static let interval: Int64 = 5_000_000_000
    /// Looked at in one tick, of however many containers there are.
    private static let looksMax = 64

    private var order: [ContainerHandle] = []
    private var next = 0
    private var isUnderWay = false
    private var restUntil: Int64 = 0

    mutating func add(_ handle: ContainerHandle) { order.append(handle) }

    /// The container to measure now, if one is due. `age` is how old its figures are; nil when it is gone.
    mutating func due(at now: Int64, age: (ContainerHandle) -> Int64?) -> ContainerHandle? {
        guard !isUnderWay, now >= restUntil else { return nil }
        for _ in 0..<min(Self.looksMax, order.count) {
            if next >= order.count { next = 0 }
            guard next < order.count else { return nil }
            let handle = order[next]
            guard let age = age(handle) else {
                order.remove(at: next)
                continue
            }
            next += 1
            if age >= Self.interval {
                isUnderWay = true
                return handle
            }
        }
        return nil
    }

    mutating func done(at now: Int64, took duration: Int64) {
        isUnderWay = false
        restUntil = now + 19 * duration
    }
}
