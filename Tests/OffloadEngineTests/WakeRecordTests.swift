import Containers
import FarMemory
import Testing

@testable import OffloadEngine

@Suite struct WakeRecordTests {
    private func pages(_ first: UInt64, _ count: UInt64) -> PageRuns {
        var runs = PageRuns()
        runs.append(first: first, count: count)
        return runs
    }

    private func prefetched(_ record: WakeRecord, local: PageRuns) -> PageRuns {
        record.batches(local: local).reduce(PageRuns()) { $0.union($1) }
    }

    @Test func atFirstAllThatWasLocalComesBackAndThenWhatWasTouched() {
        var record = WakeRecord()
        let local = pages(0, 1000)
        #expect(record.batches(local: local) == [local])
        record.note(touched: pages(100, 200), order: [], prefetched: local)
        #expect(record.batches(local: local)[0] == pages(100, 200))
        #expect(record.pages == 200)
    }

    @Test func theOrderIsThatOfTheLastFirstRequest() {
        var record = WakeRecord()
        let order = [pages(500, 10), pages(20, 10)]
        record.note(touched: pages(0, 1000), order: order, prefetched: pages(0, 1000))
        let batches = record.batches(local: PageRuns())
        #expect(Array(batches[..<2]) == order)
        #expect(batches[2].pages == 980)
        // Not looked at again, it stays.
        record.note(touched: pages(0, 1000), order: [], prefetched: pages(0, 1000))
        #expect(Array(record.batches(local: PageRuns())[..<2]) == order)
    }

    @Test func whatTwoRequestsLeaveAloneIsDroppedAndWhatIsFaultedInJoins() {
        var record = WakeRecord()
        record.note(touched: pages(0, 100), order: [], prefetched: pages(0, 100))
        record.note(touched: pages(50, 100), order: [], prefetched: pages(0, 100))
        #expect(prefetched(record, local: PageRuns()) == pages(0, 150), "one more chance")
        record.note(touched: pages(50, 100), order: [], prefetched: pages(0, 150))
        #expect(prefetched(record, local: PageRuns()) == pages(50, 100))
    }

    @Test func aRecordThatDoesNotMatchStopsAndAStableOneGoesOn() {
        var record = WakeRecord()
        record.note(touched: pages(0, 100), order: [], prefetched: PageRuns())
        var at: UInt64 = 1000
        for _ in 0..<3 {
            #expect(!record.isStopped)
            let asked = prefetched(record, local: PageRuns())
            record.note(touched: pages(at, 100), order: [], prefetched: asked)
            at += 1000
        }
        #expect(record.isStopped)
        #expect(prefetched(record, local: pages(0, 9)).isEmpty)
        record.note(touched: pages(9000, 100), order: [], prefetched: PageRuns())
        #expect(record.isStopped, "nothing in common with the one before")
        record.note(touched: pages(9020, 100), order: [], prefetched: PageRuns())
        #expect(!record.isStopped)
        #expect(prefetched(record, local: PageRuns()) == pages(9000, 120))
    }
}
