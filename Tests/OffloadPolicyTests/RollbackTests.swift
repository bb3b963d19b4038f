import FarMemory
import Testing

@testable import OffloadPolicy

extension Bench {
    /// A container whose init pucket was released, and of which everything is examined now.
    fileprivate mutating func openRollback() {
        launch()
        complete(request())
        complete(request())
        now += .seconds(10)
        complete(request())
    }
}

@Suite struct RollbackTests {
    @Test func rollbackExaminesAgainAfterTheIntervalAndDoublesItWhenNothingIsCold() {
        var bench = Bench { $0.rollbackPermille = 1000 }
        bench.launch()
        bench.complete(bench.request())
        bench.complete(bench.request())
        bench.now += .seconds(9)
        #expect(actions(bench.request()) == [])
        bench.now += .seconds(1)
        let rollback = bench.request()
        #expect(actions(rollback) == ["examine-all"])
        #expect(rollback[0].rule == .rollback)
        bench.complete(rollback)
        bench.complete(bench.request(), released: 1, hot: 1000)
        for _ in 0..<20 { #expect(actions(bench.request()) == [], "the interval is 20 s now") }
        bench.now += .seconds(20)
        #expect(actions(bench.request()) == ["examine-all"])
    }

    @Test func rollbackThatDoesNotPayWaitsForFourTimesAsManyRequests() {
        var bench = Bench { $0.rollbackPermille = 1000 }
        bench.openRollback()
        bench.complete(bench.request(), released: 1, hot: 1000)
        #expect(bench.policy.functions["f"]?.rollback.requestsBetween == 8)
        bench.now += .seconds(100)
        for _ in 0..<6 {
            #expect(!actions(bench.request()).contains("examine-all"))
            bench.now += .seconds(1)
        }
        let rollback = bench.request()
        #expect(actions(rollback).contains("examine-all"))
        bench.complete(rollback)
        bench.complete(bench.request(), released: 500, hot: 1000)
        #expect(bench.policy.functions["f"]?.rollback.requestsBetween == 2)
    }

    @Test func aHaltedReleaseAndItsRepetitionSayNothingOfWhetherRollbackPays() {
        var bench = Bench { $0.rollbackPermille = 1000 }
        bench.openRollback()
        let release = bench.request()
        var halted = ActionReport(action: .release(.all))
        halted.hot = PageCount(1000)
        halted.wasHalted = true
        #expect(release.contains { $0.action == .release(.all) })
        _ = bench.send(.reported(halted))
        #expect(bench.policy.functions["f"]?.rollback.requestsBetween == 2)
        let again = bench.request()
        #expect(again.contains { $0.action == .release(.all) })
        bench.complete(again, released: 10, hot: 1)
        #expect(bench.policy.functions["f"]?.rollback.requestsBetween == 2)
    }

    @Test func aRollbackThatFoundNothingToExamineDoesNotPay() {
        var bench = Bench { $0.rollbackPermille = 1000 }
        bench.openRollback()
        bench.complete(bench.request(), released: 0, hot: 0)
        #expect(bench.policy.functions["f"]?.rollback.requestsBetween == 8)
    }

    @Test func rollbackComesAfterSoManyRequestsAsItsWindowMayBeOf() {
        for (window, permille, first) in [(1, 25, 20), (2, 25, 40), (1, 100, 10), (1, 0, 0)] {
            var bench = Bench {
                $0.requestWindow = UInt32(window)
                $0.rollbackPermille = UInt64(permille)
            }
            bench.launch()
            var seen: [Int] = []
            for number in 1...100 {
                bench.now += .seconds(20)
                let decisions = bench.request()
                if actions(decisions).contains("examine-all") { seen.append(number) }
                bench.complete(decisions)
            }
            #expect(seen.first ?? 0 == first, "window of \(window), \(permille) in 1000")
            let disturbed = seen.count * window * 1000
            #expect(disturbed <= max(100 * permille, permille > 0 ? window * 1000 : 0), "\(seen)")
        }
    }

    @Test func requestsOfAllContainersOfAFunctionCount() {
        var law = RollbackLaw()
        for _ in 0..<39 { law.noteRequest() }
        #expect(!law.allows(window: 2, after: 39, permille: 25))
        law.noteRequest()
        #expect(law.allows(window: 2, after: 40, permille: 25), "the first, on credit")
        #expect(!law.allows(window: 2, after: 40, permille: 0))
        law.noteWindow(of: 2)
        for _ in 0..<119 { law.noteRequest() }
        #expect(!law.allows(window: 2, after: 119, permille: 25))
        law.noteRequest()
        #expect(law.allows(window: 2, after: 120, permille: 25), "4 of 160 paid for")
        for _ in 0..<20_000 { law.noteRequest() }
        #expect(law.allows(window: 64, after: 2, permille: 25), "what was long ago fades")
    }

    // MARK: Parts

    /// 50 requests of 20 ms, each reported as done before it is looked at.
    private func serve(
        _ bench: inout Bench, apart pause: Nanoseconds = .seconds(20), released: UInt64 = 1000,
        hot: UInt64 = 10, _ look: (inout Bench, [Decision]) -> Void
    ) {
        bench.launch()
        for _ in 1...50 {
            bench.now += pause
            let decisions = bench.request(latency: .milliseconds(20))
            bench.complete(decisions, released: released, hot: hot)
            look(&bench, decisions)
        }
    }

    /// What is examined of them, where a window of one may be lengthened by `cost` thousandths.
    private func parts(
        cost: UInt64, _ change: (inout PolicySettings) -> Void = { _ in }
    ) -> [Decision] {
        var bench = Bench {
            $0.rollbackSlicePermille = cost
            $0.requestWindow = 1
            change(&$0)
        }
        var found: [Decision] = []
        serve(&bench) { found += $1.filter { $0.action.word == "examine-all" } }
        return found
    }

    @Test func whereLatenciesAreKnownPartsAreExaminedThatDoNotShow() {
        let found = parts(cost: 20)
        // 400 us are 200 faults of 2 us.
        #expect(
            found.allSatisfy {
                $0.action == .examine(.all, grant: ByteCount(pages: PageCount(200)))
            }, "\(found)")
        #expect(found.count >= 15, "not the share of requests bounds them, but what one notices")
        let dear = parts(cost: 40)
        #expect(dear.first?.action == .examine(.all, grant: ByteCount(pages: PageCount(400))))
        let whole = parts(cost: 0)
        #expect(whole.count == 1, "all at once, once on credit in 50 requests")
        #expect(whole.first?.action == .examine(.all, grant: .mib(100)))
        #expect(parts(cost: 20) { $0.rollbackPermille = 0 }.isEmpty, "never examined again")
    }

    @Test func aRequestInTheWindowOfAPartReadsNothingBack() {
        var bench = Bench { $0.requestWindow = 1 }
        var recalled = 0
        serve(&bench, apart: .seconds(5)) { recalled += $1.count { $0.action == .recall } }
        #expect(recalled == 1, "after the pause in the init pucket's window")
    }

    @Test func aWindowDoesNotFollowAnotherWithoutARequestThatShowsWhatCameBack() {
        var bench = Bench { $0.requestWindow = 3 }
        var releases = 0
        serve(&bench) { _, decisions in
            guard actions(decisions).contains("release-all") else { return }
            releases += 1
            #expect(!actions(decisions).contains("examine-all"))
        }
        #expect(releases >= 5)
    }

    @Test func whatComesBackOfAPartDoesNotWidenTheFunctionsWindow() {
        var bench = Bench()
        var refaults: UInt64 = 0
        var parts = 0
        serve(&bench, released: 200, hot: 0) { bench, decisions in
            if actions(decisions).contains("release-all") {
                parts += 1
                refaults += 150
            }
            bench.measure(local: .mib(100), refaults: refaults)
        }
        #expect(parts >= 10)
        #expect(bench.policy.functions["f"]?.window == 1)
    }

    // MARK: Examinations that a request stopped

    /// Reports that the request came after so much was written.
    private func halt(_ decision: Decision, after written: ByteCount, _ bench: inout Bench) {
        var report = ActionReport(action: decision.action)
        report.written = written
        report.wasHalted = true
        _ = bench.send(.reported(report))
    }

    @Test func anInitPucketThatARequestKeptFromBeingExaminedIsExaminedAfterTheNextRequest() {
        var bench = Bench()
        bench.launch()
        let first = bench.request()
        #expect(actions(first) == ["release-runtime", "examine-init"])
        _ = bench.send(.requestStarted)
        halt(first[1], after: .zero, &bench)
        let second = bench.send(.requestEnded(recycledAt: nil))
        #expect(actions(second) == ["examine-init"])
        bench.complete(second)
        #expect(actions(bench.request()).last == "release-init")
    }

    @Test func theSameWhenItWasReportedAfterItsWindow() {
        var bench = Bench()
        bench.launch()
        let first = bench.request()
        let second = bench.request()
        #expect(actions(second).last == "release-init")
        halt(first[1], after: .zero, &bench)
        bench.complete(second, released: 0, hot: 0)
        #expect(actions(bench.request()).last == "examine-init")
    }

    @Test func anExaminationThatGotSomewhereKeepsItsWindow() {
        var bench = Bench()
        bench.launch()
        let first = bench.request()
        _ = bench.send(.requestStarted)
        halt(first[1], after: .mib(50), &bench)
        #expect(actions(bench.send(.requestEnded(recycledAt: nil))) == ["release-init"])
    }
}
