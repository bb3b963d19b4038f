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
        record.batches(local: local).reduce(PageRuns()) { $0.union($1.pages) }
    }

    @Test func atFirstAllThatWasLocalComesBackAndThenWhatWasTouched() {
        var record = WakeRecord()
        let local = pages(0, 1000)
        #expect(record.batches(local: local) == [WakeBatch(pages: local, isMapped: true)])
        // What no window has measured would stay if it were mapped.
        #expect(record.batches(local: local, isMeasured: false).map(\.isMapped) == [false])
        record.note(touched: pages(100, 200), early: PageRuns(), prefetched: local)
        #expect(prefetched(record, local: local) == pages(100, 200))
        #expect(record.pages == 200)
    }

    @Test func whatRequestsHadToReadBackThemselvesComesFirst() {
        var record = WakeRecord()
        let all = pages(0, 1000)
        record.note(touched: all, early: pages(500, 10), prefetched: all)
        record.note(touched: all, early: pages(20, 10), prefetched: all)
        let batches = record.batches(local: PageRuns()).map(\.pages)
        // In the order of learning.
        #expect(Array(batches[..<2]) == [pages(500, 10), pages(20, 10)])
        #expect(batches[2].pages == 980)
        // A request that waited for nothing teaches nothing, and a page that is not touched any more is not urgent.
        record.note(touched: pages(0, 505), early: PageRuns(), prefetched: all)
        #expect(record.batches(local: PageRuns())[0].pages == pages(500, 5))
        for group in 0..<20 {
            record.note(touched: all, early: pages(UInt64(100 + group), 1), prefetched: all)
        }
        #expect(record.waves.count < 12, "the groups are bounded")
        #expect(prefetched(record, local: PageRuns()) == all)
    }

    @Test func whatIsSureIsMappedButForASampleThatIsTakenEverLessOften() {
        var record = WakeRecord()
        let all = pages(0, 16_384)
        var samples: [PageRuns] = []
        for _ in 0..<16 {
            #expect(record.batches(local: all)[0].isMapped)
            samples.append(record.sample(of: all))
            // Parts of blocks stay within what was asked for.
            #expect(record.sample(of: pages(3, 2)).subtracting(pages(3, 2)).isEmpty)
            record.note(
                touched: all, early: PageRuns(), prefetched: all, isMapped: true,
                sample: samples.last ?? PageRuns())
        }
        let taken = samples.indices.filter { !samples[$0].isEmpty }
        #expect(taken == [0, 1, 3, 7, 15])
        for index in taken {
            #expect((350...700).contains(samples[index].pages), "one in thirty-two")
            #expect(samples[index].subtracting(all).isEmpty)
        }
        #expect(samples[0].intersection(samples[1]).pages < 100, "another one")
    }

    @Test func aSampleThatIsNotTouchedMakesTheNextRequestALesson() {
        var record = WakeRecord()
        let all = pages(0, 4096)
        let sample = record.sample(of: all)
        // All that was mapped looks touched; of the sample only half was.
        let half = sample.prefix(pages: sample.pages / 2)
        let seen = all.subtracting(sample).union(half)
        record.note(
            touched: seen, early: PageRuns(), prefetched: all, isMapped: true, sample: sample)
        #expect(record.isLesson)
        #expect(record.batches(local: PageRuns()).allSatisfy { !$0.isMapped })
        // The lesson: half of the pages are not needed. They get one more chance, unmapped, while the others are mapped again.
        record.note(touched: pages(0, 2048), early: PageRuns(), prefetched: all)
        #expect(!record.isLesson)
        let next = record.batches(local: PageRuns())
        #expect(next.filter(\.isMapped).reduce(0) { $0 + $1.pages.pages } == 2048)
        #expect(next.last?.isMapped == false)
        record.note(touched: pages(0, 2048), early: PageRuns(), prefetched: seen, isMapped: true)
        #expect(record.pages == 2048)
        #expect(!record.isLesson)
    }

    @Test func aSampleOfAFewPagesSaysNothing() {
        var record = WakeRecord()
        let few = pages(0, 64)
        for _ in 0..<5 {
            record.note(
                touched: pages(0, 60), early: PageRuns(), prefetched: few, isMapped: true,
                sample: pages(60, 4))
        }
        #expect(!record.isLesson)
        #expect(!record.isStopped)
    }

    @Test func whenNothingOfASampleIsTouchedLessonsFollowUntilNothingIsPrefetched() {
        var record = WakeRecord()
        let all = pages(0, 4096)
        record.note(
            touched: all.subtracting(record.sample(of: all)), early: PageRuns(), prefetched: all,
            isMapped: true, sample: record.sample(of: all))
        #expect(record.misses == 1)
        for count in 2...3 {
            #expect(record.isLesson)
            let asked = prefetched(record, local: PageRuns())
            record.note(
                touched: pages(UInt64(count) * 10_000, 100), early: PageRuns(), prefetched: asked)
            #expect(record.misses == count)
        }
        #expect(record.isStopped)
    }

    @Test func whatTwoRequestsLeaveAloneIsDroppedAndWhatIsFaultedInJoins() {
        var record = WakeRecord()
        record.note(touched: pages(0, 100), early: PageRuns(), prefetched: pages(0, 100))
        record.note(touched: pages(50, 100), early: PageRuns(), prefetched: pages(0, 100))
        #expect(prefetched(record, local: PageRuns()) == pages(0, 150), "one more chance")
        record.note(touched: pages(50, 100), early: PageRuns(), prefetched: pages(0, 150))
        #expect(prefetched(record, local: PageRuns()) == pages(50, 100))
    }

    @Test func aRecordThatDoesNotMatchStopsAndAStableOneGoesOn() {
        var record = WakeRecord()
        record.note(touched: pages(0, 100), early: PageRuns(), prefetched: PageRuns())
        var at: UInt64 = 1000
        for _ in 0..<3 {
            #expect(!record.isStopped)
            let asked = prefetched(record, local: PageRuns())
            record.note(touched: pages(at, 100), early: PageRuns(), prefetched: asked)
            at += 1000
        }
        #expect(record.isStopped)
        #expect(prefetched(record, local: pages(0, 9)).isEmpty)
        record.note(touched: pages(9000, 100), early: PageRuns(), prefetched: PageRuns())
        #expect(record.isStopped, "nothing in common with the one before")
        record.note(touched: pages(9020, 100), early: PageRuns(), prefetched: PageRuns())
        #expect(!record.isStopped)
        #expect(prefetched(record, local: PageRuns()) == pages(9000, 120))
    }
}
