import Containers

// The law of the wake-up record. What the first request after a drain has touched is likely what the next one will. So:
//
// - The record holds the pages that the last such request touched, and behind them those that only the one before it touched. A page
//   that two in a row left alone is dropped: the record shrinks.
// - Before all others come those that a request came to before they were prefetched, and had to read by itself; in the order in which
//   requests were seen to do that, as each gets a little further by what the one before it taught.
// - Pages that were touched without having been prefetched join it: the record grows.
// - What the last one touched is mapped as soon as it has been read. The request takes no fault for it, and it keeps its place in the
//   swap area: the kernel gives the slot of a page back whose first access is a write (do_swap_page, mm/memory.c), so pages that are
//   written would move away from those that are only read, and the next wake-up would read pages one by one.
// - What is mapped looks touched. So of those pages a sample only waits in the swap cache, at the first wake-up, the second, the fourth,
//   the eighth: each sample tears some of the pages apart. So do all that the last request left alone. When less than three
//   quarters of a sample are touched, the next request is a lesson: nothing is mapped ahead of it, and every page tells for itself.
// - When less than a quarter of what was prefetched has been touched three times in a row, requests have nothing in common: nothing is
//   prefetched until two of them in a row share at least half of their pages.

/// Pages to bring back, and whether they are mapped ahead of the request.
struct WakeBatch: Equatable, Sendable {
    var pages: PageRuns
    var isMapped: Bool
}

/// What to bring back when a request wakes one process. Pure.
struct WakeRecord: Equatable, Sendable {
    private static let missesMax = 3
    /// Groups of urgent pages.
    private static let urgentMax = 8
    /// One page in so many is in the sample, in runs of so many.
    private static let sampleShare: UInt64 = 32
    private static let sampleRun: UInt64 = 8
    /// Fewer pages say nothing.
    private static let sampleMin: UInt64 = 32

    /// Of the last first request; disjoint, in order; all but the last are urgent.
    private(set) var waves: [PageRuns] = []
    /// Of the one before it alone.
    private(set) var older = PageRuns()
    /// Requests in a row of whose prefetched pages less than a quarter was touched.
    private(set) var misses = 0
    private(set) var isKnown = false
    /// Nothing is mapped ahead of the next request.
    private(set) var isLesson = false
    private var wakes: UInt64 = 0

    var isStopped: Bool { misses >= Self.missesMax }

    /// Pages of the record.
    var pages: UInt64 { waves.reduce(older.pages) { $0 + $1.pages } }

    /// What to prefetch, the most urgent first; `local` is what the process held before it was drained, for as long as nothing is known.
    /// Unless a window has measured that, it is everything, and what is mapped of it would stay.
    func batches(local: PageRuns, isMeasured: Bool = true) -> [WakeBatch] {
        if !isKnown { return [WakeBatch(pages: local, isMapped: isMeasured)] }
        if isStopped { return [] }
        return waves.map { WakeBatch(pages: $0, isMapped: !isLesson) }
            + [WakeBatch(pages: older, isMapped: false)]
    }

    /// Which of the pages that would be mapped are not, this time, so as to see whether they are touched.
    func sample(of pages: PageRuns) -> PageRuns {
        var chosen = PageRuns()
        guard wakes & (wakes + 1) == 0 else { return chosen }
        for run in pages.runs {
            var page = run.first
            while page < run.end {
                let block = page / Self.sampleRun
                let next = min((block + 1) * Self.sampleRun, run.end)
                if mixed(block &+ wakes &* 0x9E37_79B9_7F4A_7C15) % Self.sampleShare == 0 {
                    chosen.append(first: page, count: next - page)
                }
                page = next
            }
        }
        return chosen
    }

    /// The finalizer of SplitMix64: neighbours get unrelated values.
    private func mixed(_ value: UInt64) -> UInt64 {
        var mixed = value
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// Takes in what a first request did: `touched` are the pages it came to and those that were mapped ahead of it, `early` those it
    /// came to before they were prefetched. With `isMapped` all but the last batch were mapped ahead but for `sample`, which tells for them.
    mutating func note(
        touched: PageRuns, early: PageRuns, prefetched: PageRuns, isMapped: Bool = false,
        sample: PageRuns = PageRuns()
    ) {
        let before = waves.reduce(PageRuns()) { $0.union($1) }
        let witnesses = isMapped ? sample : prefetched
        let hits = witnesses.intersection(touched).pages
        let common = before.intersection(touched).pages
        if !prefetched.isEmpty {
            if !isMapped || sample.pages >= Self.sampleMin {
                misses = hits * 4 < witnesses.pages ? misses + 1 : 0
            }
        } else if isStopped && common * 2 >= touched.pages && !touched.isEmpty {
            misses = 0
        }
        isLesson = misses > 0 || (sample.pages >= Self.sampleMin && hits * 4 < sample.pages * 3)
        wakes += 1
        older = before.subtracting(touched)
        var rest = touched
        var next: [PageRuns] = []
        for group in waves.dropLast() + [early] {
            let part = group.intersection(rest)
            if part.isEmpty { continue }
            rest = rest.subtracting(part)
            if next.count < Self.urgentMax {
                next.append(part)
            } else {
                next[next.count - 1] = next[next.count - 1].union(part)
            }
        }
        waves = next + [rest]
        isKnown = true
    }
}
