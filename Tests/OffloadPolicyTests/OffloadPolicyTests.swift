import FarMemory
import Testing

@testable import OffloadPolicy

/// Drives a policy machine by hand: one container "c" of function "f", time in milliseconds.
struct Bench {
    var policy: PolicyMachine
    let id = ContainerHandle(1)
    var now = Nanoseconds.seconds(1000)
    var host = HostMeasure(pressurePermille: 0, farFree: .gib(4))

    init(_ change: (inout PolicySettings) -> Void = { _ in }) {
        var settings = PolicySettings()
        settings.semiWarmPrior = .seconds(10)
        change(&settings)
        policy = PolicyMachine(settings: settings, at: .seconds(1000))
        _ = tick()
    }

    mutating func send(_ event: ContainerEvent) -> [Decision] {
        var decisions: [Decision] = []
        policy.handle(event, of: id, at: now, into: &decisions)
        return decisions
    }

    mutating func tick(after step: Nanoseconds = .zero) -> [Decision] {
        now += step
        var decisions: [Decision] = []
        policy.tick(host: host, at: now, into: &decisions)
        return decisions
    }

    mutating func measure(local: ByteCount, refaults: UInt64 = 0) {
        _ = send(
            .measured(
                ContainerMeasure(local: local, far: .zero, anonymous: local, refaults: refaults)))
    }

    /// Reports every page action among the decisions as done; `released` and `hot` per release.
    mutating func complete(_ decisions: [Decision], released: UInt64 = 1000, hot: UInt64 = 10) {
        for decision in decisions {
            var report = ActionReport(action: decision.action)
            switch decision.action {
            case .examine(_, let grant), .drain(let grant): report.written = grant
            case .release:
                report.released = PageCount(released)
                report.hot = PageCount(hot)
                report.measure = policy.containers[id]?.measure
            case .snapshot, .reclaim, .halt, .recall, .forget, .pullBack, .startColdPageout,
                .stopColdPageout:
                continue
            }
            _ = send(.reported(report))
        }
    }

    /// Starts the container and runs it to the end of initialization.
    mutating func launch(local: ByteCount = .mib(100), recycledAfter: Nanoseconds? = nil) {
        _ = send(.started(function: "f"))
        measure(local: local)
        complete(send(.runtimeReady))
        complete(send(.initDone(recycledAt: recycledAfter.map { now + $0 })))
    }

    mutating func request(
        recycledAfter: Nanoseconds? = nil, latency: Nanoseconds? = nil
    ) -> [Decision] {
        let begin = send(.requestStarted)
        now += .milliseconds(50)
        return begin
            + send(.requestEnded(recycledAt: recycledAfter.map { now + $0 }, latency: latency))
    }
}

func actions(_ decisions: [Decision]) -> [String] {
    decisions.map(\.action.word)
}

@Suite struct PucketTests {
    @Test func runtimePucketIsExaminedAtItsBarrierAndReleasedAfterTheFirstRequest() {
        var bench = Bench()
        _ = bench.send(.started(function: "f"))
        bench.measure(local: .mib(20))
        let barrier = bench.send(.runtimeReady)
        #expect(actions(barrier) == ["note-runtime", "examine-runtime"])
        bench.complete(barrier)
        bench.complete(bench.send(.initDone(recycledAt: nil)))
        let first = bench.request()
        #expect(actions(first) == ["release-runtime", "examine-init"])
    }

    @Test func initPucketIsReleasedWhenItsWindowOfRequestsEnds() {
        var bench = Bench { $0.requestWindow = 3 }
        bench.launch()
        bench.complete(bench.request())
        #expect(actions(bench.request()) == [])
        #expect(actions(bench.request()) == [])
        let end = bench.request()
        #expect(actions(end) == ["release-init"])
        #expect(end[0].rule == .initPucket)
    }

    @Test func aWindowCanBeSetPerFunction() {
        var bench = Bench { $0.requestWindows = ["f": 2] }
        bench.launch()
        bench.complete(bench.request())
        #expect(actions(bench.request()) == [])
        #expect(actions(bench.request()) == ["release-init"])
    }

    @Test func aRequestInAWindowReadsBackAfterAPauseOnly() {
        var bench = Bench { $0.requestWindow = 4 }
        bench.launch()
        bench.complete(bench.request())
        bench.now += .milliseconds(900)
        #expect(actions(bench.request()) == [])
        bench.now += .milliseconds(1000)
        #expect(actions(bench.request()) == ["recall"])
    }

    @Test func aHaltedReleaseIsRepeatedAfterTheNextRequest() {
        var bench = Bench()
        bench.launch()
        bench.complete(bench.request())
        let release = bench.request()
        #expect(actions(release) == ["release-init"])
        var report = ActionReport(action: release[0].action)
        report.wasHalted = true
        _ = bench.send(.reported(report))
        #expect(actions(bench.request()).contains("release-init"))
    }

    @Test func aRequestWithoutInitDoneStillWorks() {
        var bench = Bench()
        _ = bench.send(.started(function: "f"))
        bench.measure(local: .mib(50))
        #expect(actions(bench.request()) == ["examine-init"])
    }

    @Test func eventsOfUnknownContainersChangeNothing() {
        var bench = Bench()
        #expect(bench.send(.requestStarted).isEmpty)
        #expect(bench.send(.stopped).isEmpty)
        #expect(bench.policy.containers.isEmpty)
    }
}

@Suite struct SemiWarmTests {
    @Test func aContainerIsDrainedAfterThePriorWhileFewReusesAreKnown() {
        var bench = Bench()
        bench.launch()
        bench.complete(bench.request())
        #expect(bench.tick(after: .milliseconds(9900)).isEmpty)
        _ = bench.tick(after: .milliseconds(200))
        #expect(bench.policy.containers[bench.id]?.phase == .semiWarm)
        let drain = bench.tick(after: .milliseconds(500))
        #expect(actions(drain) == ["drain"])
        // 10 % of 100 MiB per second for half a second.
        #expect(drain[0].action == .drain(grant: .mib(5)))
    }

    @Test func theDelayFollowsTheReusesOfTheFunction() {
        var bench = Bench()
        bench.launch()
        for _ in 0..<10 {
            bench.complete(bench.request())
            bench.now += .seconds(3)
        }
        let few = bench.policy.semiWarmDelay(of: "f").delay
        #expect(few >= .seconds(30) && few <= .seconds(33), "ten times the longest of nine")
        for _ in 0..<90 {
            bench.complete(bench.request())
            bench.now += .seconds(3)
        }
        let delay = bench.policy.semiWarmDelay(of: "f").delay
        #expect(delay >= .seconds(3) && delay <= .milliseconds(3300))
    }

    @Test(arguments: [(10, 31, 33), (2, 24, 24), (1 << 33, 1 << 33, 1 << 33)])
    func fewReusesAreStretchedToTwelvePriorsAtMost(prior: Int64, least: Int64, most: Int64) {
        var bench = Bench { $0.semiWarmPrior = .seconds(prior) }
        bench.launch()
        for _ in 0..<10 {
            bench.complete(bench.request())
            bench.now += .seconds(3)
        }
        let wait = bench.policy.semiWarmDelay(of: "f").delay
        let longest = Nanoseconds.seconds(3_155_760_000)
        #expect(wait >= min(.seconds(least), longest) && wait <= min(.seconds(most), longest))
    }

    /// Ten requests, a pause between each and the next: how long is its container kept?
    @Test(arguments: [
        // Where each is spared within the patience, the percentile counts, and the stretching of few.
        (Array(repeating: 100, count: 9), 200, 100, 130),
        // Where each would take longer, it is not waited for.
        (Array(repeating: 300, count: 9), 200, 10, 10),
        (Array(repeating: 300, count: 9), 0, 300, 340),
        (Array(repeating: 300, count: 9), 400, 300, 340),
        // Most come soon after one another: the others do not decide.
        ([300, 300, 300, 300, 5, 5, 5, 5, 5], 200, 300, 340),
        ([300, 300, 300, 300, 300, 5, 5, 5, 5], 200, 10, 10),
    ])
    func memoryIsNotKeptForRequestsThatComeTooSeldom(
        pauses: [Int], patience: Int, least: Int, most: Int
    ) {
        var bench = Bench {
            $0.semiWarmPrior = .seconds(10)
            $0.semiWarmPatience = .seconds(Int64(patience))
        }
        bench.launch()
        bench.complete(bench.request())
        for pause in pauses {
            bench.now += .seconds(Int64(pause))
            bench.complete(bench.request())
        }
        let (wait, origin) = bench.policy.semiWarmDelay(of: "f")
        #expect(origin.hasPrefix("prior") == (least == 10), "\(origin)")
        #expect(wait >= .seconds(Int64(least)) && wait <= .seconds(Int64(most)), "\(wait)")
    }

    @Test func drainStopsAtTheFloor() {
        var bench = Bench { $0.floor = .mib(98) }
        bench.launch(local: .mib(100))
        _ = bench.tick(after: .seconds(11))
        var granted = ByteCount.zero
        for _ in 0..<50 {
            let drain = bench.tick(after: .seconds(1))
            for case .drain(let grant) in drain.map(\.action) { granted += grant }
            bench.complete(drain)
            bench.measure(local: .mib(100) - granted)
        }
        #expect(granted == .mib(2))
        #expect(bench.policy.containers[bench.id]?.phase == .drained)
    }

    @Test func anAmountPerSecondIsPossible() {
        var bench = Bench { $0.drainRate = .bytesPerSecond(.mib(3)) }
        bench.launch()
        _ = bench.tick(after: .seconds(11))
        #expect(bench.tick(after: .seconds(1)).map(\.action) == [.drain(grant: .mib(3))])
    }

    @Test func aRequestHaltsTheDrainAndRecallsTheWorkingSet() {
        var bench = Bench()
        bench.launch()
        _ = bench.tick(after: .seconds(11))
        #expect(actions(bench.tick(after: .seconds(1))) == ["drain"])
        #expect(actions(bench.send(.requestStarted)) == ["halt", "recall"])
        #expect(bench.tick(after: .seconds(60)).isEmpty, "nothing while a request runs")
    }

    @Test func onlyOneDrainIsUnderWay() {
        var bench = Bench()
        bench.launch()
        _ = bench.tick(after: .seconds(11))
        #expect(actions(bench.tick(after: .seconds(1))) == ["drain"])
        #expect(bench.tick(after: .seconds(1)).isEmpty)
    }

    @Test func nothingLeavesShortlyBeforeRecycling() {
        var bench = Bench { $0.recycleGuard = .seconds(5) }
        bench.launch(recycledAfter: .seconds(14))
        #expect(bench.tick(after: .seconds(10)).isEmpty)
        #expect(bench.policy.containers[bench.id]?.phase != .semiWarm)
        #expect(bench.tick(after: .seconds(1)).isEmpty)
    }

    @Test func sharedPagesAreReclaimedOnceWhenNothingElseIsLeft() {
        var bench = Bench()
        bench.launch(local: .mib(40))
        _ = bench.tick(after: .seconds(11))
        let drain = bench.tick(after: .seconds(1))
        var report = ActionReport(action: drain[0].action)
        report.isExhausted = true
        _ = bench.send(.reported(report))
        let shared = bench.tick(after: .milliseconds(100))
        #expect(shared.map(\.action) == [.reclaim(.mib(39))])
        _ = bench.send(.reported(ActionReport(action: shared[0].action)))
        #expect(bench.tick(after: .seconds(1)).isEmpty)
        #expect(bench.policy.containers[bench.id]?.phase == .drained)
    }
}

@Suite struct GuardTests {
    @Test func unknownIsNotZero() {
        var bench = Bench()
        bench.launch()
        bench.host = HostMeasure(pressurePermille: nil, farFree: .gib(4))
        #expect(bench.tick(after: .seconds(60)).isEmpty)
        #expect(bench.policy.hostForbids(at: bench.now) == .unknownPressure)
        bench.host = HostMeasure(pressurePermille: 0, farFree: nil)
        #expect(bench.tick(after: .seconds(60)).isEmpty)
        #expect(bench.policy.hostForbids(at: bench.now) == .unknownFarSpace)
    }

    @Test func pressurePausesAndPasses() {
        var bench = Bench()
        bench.launch()
        bench.host.pressurePermille = 500
        #expect(bench.tick(after: .seconds(20)).isEmpty)
        #expect(bench.policy.hostForbids(at: bench.now) == .pressure)
        bench.host.pressurePermille = 0
        _ = bench.tick(after: .seconds(6))
        #expect(bench.policy.hostForbids(at: bench.now) == nil)
    }

    @Test func farSpaceBelowTheReserveStopsOffloading() {
        var bench = Bench { $0.farReserve = .mib(64) }
        bench.launch()
        bench.host.farFree = .mib(64)
        #expect(bench.tick(after: .seconds(60)).isEmpty)
        #expect(bench.policy.hostForbids(at: bench.now) == .farSpace)
    }

    @Test func refaultsBackOffAndWidenTheWindow() {
        var bench = Bench()
        bench.launch()
        bench.complete(bench.request())
        bench.complete(bench.request(), released: 10_000)
        bench.measure(local: .mib(50), refaults: 2_000)
        _ = bench.tick(after: .milliseconds(100))
        #expect(bench.policy.containers[bench.id]?.lastRule == .refaults)
        #expect(bench.policy.functions["f"]?.window == 2)
        bench.now += .seconds(12)
        #expect(actions(bench.request()) == [], "it rests for the doubled interval")
    }
}

@Suite struct ReuseIntervalTests {
    @Test func quantilesAreWithinABucketOfTheTruth() {
        var reuse = ReuseIntervals()
        for seconds in 1...100 { reuse.record(.seconds(Int64(seconds))) }
        for (permille, truth) in [(500, 50), (900, 90), (990, 99)] as [(UInt64, Int64)] {
            guard let found = reuse.quantile(permille: permille) else {
                Issue.record("no quantile")
                continue
            }
            #expect(found >= .seconds(truth))
            #expect(found.nanoseconds <= truth * 1_130_000_000)
        }
    }

    /// Of n intervals one in n + 1 exceeds the longest: few are stretched, enough are not.
    @Test(arguments: [
        (1, 990, 50), (9, 990, 10), (49, 990, 2), (99, 990, 1), (500, 990, 1), (9, 500, 1),
        (1, 500, 1),
    ])
    func fewIntervalsAreStretched(count: Int, permille: UInt64, factor: Int64) throws {
        var reuse = ReuseIntervals()
        for _ in 0..<count { reuse.record(.seconds(8)) }
        let quantile = try #require(reuse.quantile(permille: permille))
        #expect(
            reuse.stretched(quantile, permille: permille)
                == Nanoseconds(quantile.nanoseconds * factor))
    }

    /// Against the sum over the intervals themselves; a bucket is 13 % wide at most.
    @Test(arguments: 0..<50)
    func keepingIsInVainWhenItTakesMoreThanItSpares(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var reuse = ReuseIntervals()
        let spread = 1 + random.below(900)
        let intervals = (0..<(1 + random.below(200))).map { _ in Int64(1 + random.below(spread)) }
        for interval in intervals { reuse.record(.seconds(interval)) }
        let (least, most) = (Int64(random.below(60)), Int64(60 + random.below(600)))
        let over = intervals.filter { $0 > least }
        let spared = over.filter { $0 <= most }.count
        let kept = over.reduce(0) { $0 + min($1, most) - least }
        func isVain(_ patience: Int64) -> Bool {
            reuse.makeKeepingVain(
                from: .seconds(least), to: .seconds(most), patience: .seconds(patience))
        }
        #expect(!isVain(0))
        let shorter = Nanoseconds.seconds(least) - .milliseconds(1)
        #expect(!reuse.makeKeepingVain(from: .seconds(least), to: shorter, patience: .seconds(1)))
        // Where the truth is clear in spite of the buckets.
        let clear = over.allSatisfy { abs($0 - least) > $0 / 7 && abs($0 - most) > most / 7 }
        guard clear, intervals.allSatisfy({ abs($0 - least) > $0 / 7 }), spared > 0 else { return }
        let price = kept / Int64(spared)
        #expect(isVain(max(1, price / 2)) == (over.count * 2 > intervals.count))
        #expect(!isVain(price * 2 + 60))
    }

    @Test func theLongestIntervalCanBeStretched() throws {
        var reuse = ReuseIntervals()
        reuse.record(Nanoseconds(.max))
        let quantile = try #require(reuse.quantile(permille: 1000))
        #expect(reuse.stretched(quantile, permille: 1000) > quantile)
    }

    @Test func withoutSamplesThereIsNone() {
        #expect(ReuseIntervals().quantile(permille: 990) == nil)
    }

    @Test func oldBehaviourFades() {
        var reuse = ReuseIntervals()
        for _ in 0..<1000 { reuse.record(.seconds(100)) }
        for _ in 0..<9000 { reuse.record(.seconds(1)) }
        #expect(reuse.samples < 1024)
        #expect((reuse.quantile(permille: 990) ?? .zero) < .seconds(2))
    }

    @Test func extremesStayInside() {
        var reuse = ReuseIntervals()
        reuse.record(.zero)
        reuse.record(Nanoseconds(.max))
        #expect(reuse.quantile(permille: 0) != nil)
        #expect(reuse.quantile(permille: 1000) != nil)
    }
}
