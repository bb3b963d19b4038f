import FarMemory
import Testing

@testable import OffloadPolicy

@Suite struct WakeCostTests {
    private let id = ContainerHandle(1)
    private let host = HostMeasure(pressurePermille: 0, farFree: .mib(4096))

    private func cost(
        undisturbed: [Int64], woken: [Int64], first: [Int64] = []
    ) -> WakeCost {
        var cost = WakeCost()
        for value in undisturbed { _ = cost.note(.milliseconds(value), .undisturbed) }
        for value in first { _ = cost.note(.milliseconds(value), .first) }
        for value in woken { _ = cost.note(.milliseconds(value), .woken) }
        return cost
    }

    private func repeated(_ value: Int64, _ count: Int) -> [Int64] {
        [Int64](repeating: value, count: count)
    }

    @Test func nothingIsKnownFromFewRequests() {
        #expect(!cost(undisturbed: repeated(100, 4), woken: []).isSought, "others come first")
        let others = cost(undisturbed: repeated(100, 198), woken: [120, 120])
        #expect(others.isSought && others.share(permille: 50) == nil)
        let silent = cost(undisturbed: [], woken: repeated(120, 5))
        #expect(!silent.isSought && silent.share(permille: 50) == nil)
    }

    @Test func whatAWakeUpCostsIsAskedOnlyWhereThatDoesNotShow() {
        #expect(!cost(undisturbed: repeated(100, 66), woken: []).isSought)
        #expect(cost(undisturbed: repeated(100, 67), woken: []).isSought)
        #expect(!cost(undisturbed: repeated(100, 130), woken: [300]).isSought)
        let cold = cost(undisturbed: repeated(100, 5), woken: [], first: repeated(2000, 5))
        #expect(cold.isSought, "every second request is a cold start")
        let started = cost(undisturbed: repeated(100, 9), woken: [], first: repeated(2000, 1))
        #expect(!started.isSought, "one request in ten was, but every container starts once")
    }

    @Test(
        arguments: [
            // 50 thousandths of 100 ms are 5 ms: every second request may pay 10 ms; but that would show in the 95th percentile,
            (100, 110, 15),
            // 4 ms would not,
            (100, 104, 500), (100, 100, 500), (100, 90, 500),
            // and with a price of 500 ms one in a hundred is as much as the mean bears.
            (100, 600, 10),
        ] as [(Int64, Int64, UInt64)])
    func theShareFollowsThePrice(warm: Int64, woken: Int64, share: UInt64) {
        let cost = cost(undisturbed: repeated(warm, 200), woken: repeated(woken, 3))
        #expect(cost.share(permille: 50) == share)
        #expect(!cost.isSought)
    }

    @Test func coldStartsHideWakeUps() {
        // One request in nine waits for a start of 2 s: the 95th percentile is a cold start, the mean 311 ms.
        let hidden = cost(
            undisturbed: repeated(100, 40), woken: repeated(300, 3), first: repeated(2000, 5))
        #expect(hidden.share(permille: 50) == 77)
        let rare = cost(
            undisturbed: repeated(100, 200), woken: repeated(300, 3), first: repeated(2000, 1))
        #expect(rare.share(permille: 50) == 15)
    }

    @Test func moreThanPermittedIsPaidBack() {
        var overdrawn = cost(undisturbed: repeated(100, 20), woken: repeated(600, 5))
        #expect(overdrawn.share(permille: 50) == 0)
        for _ in 0..<210 { _ = overdrawn.note(.milliseconds(100), .undisturbed) }
        #expect(overdrawn.share(permille: 50) == 0, "4 more than 10 in a thousand")
        for _ in 0..<300 { _ = overdrawn.note(.milliseconds(100), .undisturbed) }
        #expect(overdrawn.share(permille: 50) == 10)
        let young = cost(undisturbed: repeated(100, 14), woken: repeated(600, 5))
        #expect(young.share(permille: 50) == 10, "few requests prove nothing")
    }

    @Test func thePercentileThatIsSetIsTheLatest() {
        var settings = PolicySettings()
        #expect(settings.reuseShare(WakeShare(permitted: nil)) == 990)
        #expect(settings.reuseShare(WakeShare(permitted: 2)) == 990)
        #expect(settings.reuseShare(WakeShare(permitted: 300)) == 700)
        #expect(settings.reuseShare(WakeShare(permitted: 1000)) == 0)
        settings.wakePermille = 0
        #expect(settings.reuseShare(WakeShare(permitted: 300)) == 990)
    }

    /// Requests at these pauses; those that find a semi-warm container take `woken` milliseconds, the others 100.
    private func run(
        _ pauses: [Int64], woken: Int64?, _ change: (inout PolicySettings) -> Void = { _ in }
    ) -> (delay: Nanoseconds, origin: String) {
        var settings = PolicySettings()
        // Every request says what requests cost that nothing was done to.
        settings.rollbackPermille = 0
        change(&settings)
        var policy = PolicyMachine(settings: settings, at: .zero)
        var decisions: [Decision] = []
        policy.handle(.started(function: "f"), of: id, at: .zero, into: &decisions)
        policy.handle(.initDone(recycledAt: nil), of: id, at: .zero, into: &decisions)
        let measure = ContainerMeasure(
            local: .mib(100), far: .zero, anonymous: .mib(100), refaults: 0)
        var now = Nanoseconds.zero
        for pause in pauses {
            for _ in 0..<pause {
                now += .seconds(1)
                policy.handle(.measured(measure), of: id, at: now, into: &decisions)
                policy.tick(host: host, at: now, into: &decisions)
            }
            // Nothing is under way any more when the request comes: the window's actions were reported.
            let taken = decisions.map(\.action)
            decisions = []
            for action in taken {
                var report = ActionReport(action: action)
                report.measure = measure
                policy.handle(.reported(report), of: id, at: now, into: &decisions)
            }
            let isWoken =
                policy.containers[id].map { [.semiWarm, .drained].contains($0.phase) } ?? false
            policy.handle(.requestStarted, of: id, at: now, into: &decisions)
            let latency = woken.map { Nanoseconds.milliseconds(isWoken ? $0 : 100) }
            now += .milliseconds(100)
            policy.handle(
                .requestEnded(recycledAt: nil, latency: latency), of: id, at: now, into: &decisions)
        }
        return policy.semiWarmDelay(of: policy.containers[id]!)
    }

    private let pauses = [Int64](repeating: 20, count: 210) + [60, 80, 90, 100]

    @Test func cheapWakeUpsBringTheStartForward() {
        let cheap = run(pauses, woken: 101)
        let dear = run(pauses, woken: 3000)
        #expect(cheap.delay < .seconds(30) && cheap.origin.contains("wake-ups cost little"))
        #expect(dear.delay >= .seconds(80) && dear.origin.hasPrefix("p990/1000"))
        #expect(run(pauses, woken: 101) { $0.wakePermille = 0 }.delay >= .seconds(80))
    }

    @Test func afterTooManyWakeUpsTheDelayIsTwiceThePercentile() {
        let often = [Int64](repeating: 20, count: 10) + [60, 80, 90, 100]
        let dear = run(often + [Int64](repeating: 20, count: 24), woken: 3000)
        #expect(
            dear.delay >= .seconds(160) && dear.origin.hasSuffix("twice, as enough were woken"),
            "\(dear)")
    }

    @Test func withoutLatenciesThePercentileStandsAlone() {
        let silent = run(pauses, woken: nil)
        #expect(silent.delay >= .seconds(80) && silent.origin.hasPrefix("p990/1000"))
    }

    @Test func untilTheFirstWakeUpsThePriorHolds() {
        let once = [Int64](repeating: 20, count: 97) + [60]
        let unknown = run(once, woken: 3000) { $0.semiWarmPrior = .seconds(40) }
        #expect(unknown.delay >= .seconds(60), "one of 98 was woken: two are too many")
        let asked = run(once + [Int64](repeating: 20, count: 40), woken: 3000) {
            $0.semiWarmPrior = .seconds(40)
        }
        #expect(asked.delay <= .seconds(40))
        let sought = run(
            [Int64](repeating: 50, count: 3) + [Int64](repeating: 20, count: 90), woken: 100
        ) {
            $0.semiWarmPrior = .seconds(55)
        }
        #expect(sought.delay <= .seconds(55))
    }
}
