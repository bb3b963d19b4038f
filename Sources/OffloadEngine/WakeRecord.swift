import Containers

// The law of the wake-up record. What the first request after a drain has touched is likely what the next one will. So:
//
// - The record holds the pages that the last such request touched, in the order in which it came to them, and behind them those that
//   only the one before it touched. A page that two in a row left alone is dropped: the record shrinks.
// - Pages that were touched without having been prefetched join it: the record grows.
// - When less than a quarter of what was prefetched has been touched three times in a row, requests have nothing in common: nothing is
//   prefetched until two of them in a row share at least half of their pages.

/// What to bring back when a request wakes one process. Pure.
struct WakeRecord: Equatable, Sendable {
    private static let missesMax = 3

    /// Of the last first request; disjoint, in order.
    private(set) var waves: [PageRuns] = []
    /// Of the one before it alone.
    private(set) var older = PageRuns()
    /// Requests in a row of whose prefetched pages less than a quarter was touched.
    private(set) var misses = 0
    private(set) var isKnown = false

    var isStopped: Bool { misses >= Self.missesMax }

    /// Pages of the record.
    var pages: UInt64 { waves.reduce(older.pages) { $0 + $1.pages } }

    /// What to prefetch, the most urgent first; `local` is what the process held before it was drained, for as long as nothing is known.
    func batches(local: PageRuns) -> [PageRuns] {
        if !isKnown { return [local] }
        return isStopped ? [] : waves + [older]
    }

    /// Takes in what a first request did: `order` are pages as they were found touched one look after the other, `touched` all of them.
    mutating func note(touched: PageRuns, order: [PageRuns], prefetched: PageRuns) {
        let before = waves.reduce(PageRuns()) { $0.union($1) }
        let hits = prefetched.intersection(touched).pages
        let common = before.intersection(touched).pages
        if !prefetched.isEmpty {
            misses = hits * 4 < prefetched.pages ? misses + 1 : 0
        } else if isStopped && common * 2 >= touched.pages && !touched.isEmpty {
            misses = 0
        }
        older = before.subtracting(touched)
        var rest = touched
        var next: [PageRuns] = []
        // What is not seen in order this time keeps the place that it had.
        for wave in order.isEmpty ? waves : order {
            let part = wave.intersection(rest)
            if part.isEmpty { continue }
            next.append(part)
            rest = rest.subtracting(part)
        }
        if !rest.isEmpty { next.append(rest) }
        waves = next
        isKnown = true
    }
}
