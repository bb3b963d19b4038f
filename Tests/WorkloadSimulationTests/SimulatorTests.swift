import FarMemory
import OffloadPolicy
import TestSupport
import Testing

@testable import WorkloadSimulation
@testable import WorkloadTrace

/// A trace of a few functions with timers, bursts and long pauses.
private func randomTrace(_ random: inout SeededRandom) -> WholeTrace {
    var arrivals: [Arrival] = []
    var functions: [WholeFunction] = []
    for function in 0..<(1 + random.below(6)) {
        var time: Int64 = 0
        var calls = 0
        let pause = Int64(1 + random.below(40)) * 1_000_000_000
        while time < 1_200_000_000_000 {
            time +=
                random.chance(1, in: 20)
                ? Int64(random.below(700)) * 1_000_000_000
                : Int64(random.below(Int(pause)))
            arrivals.append(
                Arrival(
                    start: Nanoseconds(time),
                    duration: .milliseconds(Int64(random.below(3000))), function: Int32(function)))
            calls += 1
        }
        functions.append(
            WholeFunction(
                name: "a/\(function)", calls: calls, duration: .milliseconds(Int64(function * 300)))
        )
    }
    arrivals.sort { ($0.start, $0.function) < ($1.start, $1.function) }
    return WholeTrace(
        source: "test", functions: functions, calls: .single(arrivals), length: .seconds(2000))
}

@Suite struct SimulatorTests {
    /// Every policy, with ticks and budgets of all sizes: leaving ticks out changes no decision and no figure.
    @Test(arguments: TestSeed.several(12, first: 1, filter: "SimulatorTests"))
    func ticksThatAreLeftOutChangeNothing(seed: TestSeed) {
        var random = seed.random
        let trace = randomTrace(&random)
        for kind in [PolicyKind.farmem, .faasmem, .idleShrink, .damon, .tmo] {
            var policy = PolicySettings(kind)
            policy.semiWarmPrior = .seconds(Int64(2 + random.below(60)))
            if kind == .farmem {
                policy.bandwidth = .mib(UInt64(1 + random.below(64)))
                policy.burst = .mib(UInt64(1 + random.below(64)))
            }
            var settings = SimulationSettings(name: kind.rawValue, policy: policy)
            settings.tick = .milliseconds([100, 250, 1000][random.below(3)])
            settings.keepAlive = .seconds(Int64(30 + random.below(600)))
            if random.chance(1, in: 3) { settings.farSpace = .mib(UInt64(64 + random.below(200))) }
            var sparse = Simulator(trace, settings)
            sparse.log = []
            var first = sparse.run()
            settings.isDense = true
            var dense = Simulator(trace, settings)
            dense.log = []
            let second = dense.run()
            let place = zip(sparse.log ?? [], dense.log ?? []).enumerated().first {
                $0.element.0 != $0.element.1
            }
            #expect(
                place == nil && sparse.log?.count == dense.log?.count,
                "\(seed), \(kind): \(String(describing: place))")
            // How often it was ticked is what differs, and so how a sum over time is rounded.
            #expect(first.ticks < second.ticks)
            #expect(abs(first.localByteSeconds / second.localByteSeconds - 1) < 1e-9)
            first.ticks = second.ticks
            first.localByteSeconds = second.localByteSeconds
            first.farByteSeconds = second.farByteSeconds
            #expect(first == second, "\(seed), \(kind)")
        }
    }

    @Test func theSameSeedGivesTheSameResult() {
        var random = SeededRandom(seed: 5)
        let trace = randomTrace(&random)
        let settings = SimulationSettings(name: "farmem", policy: PolicySettings())
        var first = Simulator(trace, settings)
        var second = Simulator(trace, settings)
        #expect(first.run() == second.run())
    }

    /// One container, by hand: two requests 100 s apart, gone after its keep-alive time.
    @Test func aContainerLivesAsLongAsItIsKeptAlive() {
        let arrivals = [
            Arrival(start: .seconds(10), duration: .seconds(1), function: 0),
            Arrival(start: .seconds(111), duration: .seconds(1), function: 0),
        ]
        let trace = WholeTrace(
            source: "test", functions: [WholeFunction(name: "a/f", calls: 2)],
            calls: .single(arrivals), length: .seconds(1000))
        var settings = SimulationSettings(name: "none", policy: nil)
        settings.profile = "float"
        settings.keepAlive = .seconds(200)
        settings.collectsReuse = true
        var simulator = Simulator(trace, settings)
        let result = simulator.run()
        #expect(result.requests == 2)
        #expect(result.coldStarts == 1)
        #expect(result.containersStarted == 1)
        // Cold: 150 ms of runtime and 9 ms of initialization.
        #expect(result.reuse == [[Int64(111e9) - Int64(10e9) - Int64(1e9) - Int64(159e6)]])
        let lifetime = result.classes.map(\.lifetime).first { $0.total == 1 }
        // From its start to 200 s after the end of its last request.
        #expect(abs((lifetime?.quantile(1)?.seconds ?? 0) - 302) < 0.01)
        #expect(result.local.values[500] == 0)
        #expect(result.local.values[200] == 3788)
        #expect(result.pagesOut == 0)
    }

    @Test func anIdleContainerIsDrainedAndItsRequestPaysForIt() {
        let arrivals = [
            Arrival(start: .seconds(10), duration: .seconds(1), function: 0),
            Arrival(start: .seconds(300), duration: .seconds(1), function: 0),
        ]
        let trace = WholeTrace(
            source: "test", functions: [WholeFunction(name: "a/f", calls: 2)],
            calls: .single(arrivals), length: .seconds(1000))
        var settings = SimulationSettings(name: "farmem", policy: PolicySettings())
        settings.profile = "bert"
        var simulator = Simulator(trace, settings)
        let result = simulator.run()
        let before = result.local.values[12]
        #expect(before > 400 * 256)
        #expect(result.local.values[200] <= 8 * 256)
        #expect(result.far.values[200] > 400 * 256)
        #expect(result.semiWarmRequests == 1)
        #expect(result.pagesPrefetched > 400 * 256)
        #expect((result.added.quantile(1) ?? .zero) > .milliseconds(100))
        #expect(result.local.values[999] == 0 || result.containers.values[999] == 1)
    }

    /// Where a function's containers stand at the end: requests of 100 ms with these pauses, all that happens to them being its profile's.
    private func start(
        of profile: String, _ change: (inout PolicySettings) -> Void = { _ in }
    ) -> (delay: Nanoseconds, origin: String) {
        var arrivals: [Arrival] = []
        var now = Nanoseconds.seconds(10)
        for pause in [Int64](repeating: 20, count: 250) + [60, 80, 90, 100] {
            arrivals.append(Arrival(start: now, duration: .milliseconds(100), function: 0))
            now += .seconds(pause) + .milliseconds(100)
        }
        arrivals.append(Arrival(start: now, duration: .milliseconds(100), function: 0))
        let trace = WholeTrace(
            source: "test", functions: [WholeFunction(name: "a/f", calls: arrivals.count)],
            calls: .single(arrivals), length: now + .seconds(10))
        var policy = PolicySettings()
        change(&policy)
        var settings = SimulationSettings(name: "farmem", policy: policy)
        settings.profile = profile
        var simulator = Simulator(trace, settings)
        let result = simulator.run()
        #expect(result.coldStarts == 1 && result.semiWarmRequests >= 3)
        return simulator.machine.semiWarmDelay(of: "f0")
    }

    @Test func cheapWakeUpsStartSemiWarmSoonerAndDearOnesDoNot() {
        // float comes back in 2 ms.
        let cheap = start(of: "float")
        #expect(cheap.delay < .seconds(30) && cheap.origin.contains("wake-ups cost little"))
        // bert's 430 MiB take 354 ms.
        let dear = start(of: "bert")
        #expect(dear.delay >= .seconds(60) && dear.origin.hasPrefix("p9"), "\(dear)")
        let deaf = start(of: "float") { $0.wakePermille = 0 }
        #expect(deaf.delay >= .seconds(60) && deaf.origin.hasPrefix("p990/1000"), "\(deaf)")
    }

    @Test(arguments: TestSeed.several(4, first: 1, filter: "SimulatorTests"))
    func aSelectedValueIsTheOneThatSortingPutsThere(seed: TestSeed) {
        var random = seed.random
        for _ in 0..<200 {
            let range = random.chance(1, in: 2) ? 4 : 1_000_000
            var values = (0..<(1 + random.below(60))).map { _ in UInt32(random.below(range)) }
            if random.chance(1, in: 4) { values.sort() }
            let rank = random.below(values.count)
            let expected = values.sorted()[rank]
            #expect(values.select(rank) == expected, "\(seed)")
        }
    }

    @Test func callsBackToBackKeepContainersAsBusyAsTheCallsWould() {
        let counts = MinuteCounts(
            starts: [0, 1, 1], entries: [.init(function: 0, calls: 1000)])
        var function = WholeFunction(name: "a/f", calls: 1000)
        function.duration = .milliseconds(300)
        let trace = WholeTrace(
            source: "test", functions: [function], calls: .perMinute(counts), length: .seconds(120))
        var settings = SimulationSettings(name: "none", policy: nil)
        settings.callsPerMinuteMax = 4
        var source = ArrivalSource(trace, settings)
        let batch = source.next()
        #expect(batch.reduce(0) { $0 + Int($1.calls) } == 1000)
        let busy = batch.reduce(0.0) { $0 + $1.duration.seconds }
        #expect(abs(busy - 300) < 0.001)
        #expect(batch.allSatisfy { $0.duration <= .seconds(16) && $0.start < .seconds(60) })
        #expect(source.next().isEmpty)
    }
}
