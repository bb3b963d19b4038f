/// A run of neighbouring pages of one address space.
package struct PageRun: Equatable, Sendable {
    /// Number of the first page (address / 4096).
    package var first: UInt64
    /// How many pages, at least one.
    package var count: UInt64

    package init(first: UInt64, count: UInt64) {
        self.first = first
        self.count = count
    }

    /// The page after the last.
    package var end: UInt64 { first + count }
}

/// A set of pages as sorted runs that neither touch nor overlap: a Pucket, a working set.
/// A container of 100,000 pages has a few hundred runs.
package struct PageRuns: Equatable, Sendable {
    package private(set) var runs: [PageRun]
    package private(set) var pages: UInt64

    package init() {
        runs = []
        pages = 0
    }

    package var isEmpty: Bool { runs.isEmpty }

    /// Adds pages behind all others; a run that touches the last one is joined to it.
    package mutating func append(first: UInt64, count: UInt64) {
        guard count > 0 else { return }
        pages += count
        if let last = runs.last {
            precondition(first >= last.end, "runs are appended in order")
            if first == last.end {
                runs[runs.count - 1].count += count
                return
            }
        }
        runs.append(PageRun(first: first, count: count))
    }

    package mutating func append(_ run: PageRun) { append(first: run.first, count: run.count) }

    /// Pages in both sets.
    package func intersection(_ other: PageRuns) -> PageRuns {
        var result = PageRuns()
        var i = 0
        var j = 0
        while i < runs.count && j < other.runs.count {
            let first = max(runs[i].first, other.runs[j].first)
            let end = min(runs[i].end, other.runs[j].end)
            if first < end { result.append(first: first, count: end - first) }
            if runs[i].end < other.runs[j].end { i += 1 } else { j += 1 }
        }
        return result
    }

    /// Pages of this set that are not in the other.
    package func subtracting(_ other: PageRuns) -> PageRuns {
        var result = PageRuns()
        var j = 0
        for run in runs {
            var first = run.first
            while j < other.runs.count && other.runs[j].end <= first { j += 1 }
            var k = j
            while k < other.runs.count && other.runs[k].first < run.end {
                let hole = other.runs[k]
                if hole.first > first { result.append(first: first, count: hole.first - first) }
                first = max(first, hole.end)
                k += 1
            }
            if first < run.end { result.append(first: first, count: run.end - first) }
        }
        return result
    }

    /// Pages in either set.
    package func union(_ other: PageRuns) -> PageRuns {
        var result = PageRuns()
        var i = 0
        var j = 0
        while i < runs.count || j < other.runs.count {
            let takeOurs =
                j >= other.runs.count || (i < runs.count && runs[i].first <= other.runs[j].first)
            let run = takeOurs ? runs[i] : other.runs[j]
            if takeOurs { i += 1 } else { j += 1 }
            let known = result.runs.last?.end ?? 0
            if run.end > known || result.isEmpty {
                let first = result.isEmpty ? run.first : max(run.first, known)
                result.append(first: first, count: run.end - first)
            }
        }
        return result
    }

    /// The first pages in address order, at most `limit` of them.
    package func prefix(pages limit: UInt64) -> PageRuns {
        var result = PageRuns()
        for run in runs {
            let left = limit - result.pages
            if left == 0 { break }
            result.append(first: run.first, count: min(left, run.count))
        }
        return result
    }

    /// The pages from `page` on.
    package func suffix(from page: UInt64) -> PageRuns {
        var result = PageRuns()
        for run in runs where run.end > page {
            let first = max(run.first, page)
            result.append(first: first, count: run.end - first)
        }
        return result
    }

    /// Calls `body` with consecutive pieces of at most `limit` pages, as one pass over far memory
    /// is cut so that a request can stop it; stops when `body` answers false.
    package func forEachPiece(pages limit: UInt64, _ body: (PageRuns) -> Bool) {
        precondition(limit > 0, "a piece has pages")
        var piece = PageRuns()
        for run in runs {
            var first = run.first
            while first < run.end {
                let take = min(run.end - first, limit - piece.pages)
                piece.append(first: first, count: take)
                first += take
                if piece.pages == limit {
                    if !body(piece) { return }
                    piece = PageRuns()
                }
            }
        }
        if !piece.isEmpty { _ = body(piece) }
    }
}
