import FarMemory
import Testing

@testable import OffloadPolicy

@Suite struct ContainerSettingsTests {
    private func settings(_ change: (inout ContainerSettings) -> Void) -> ContainerSettings {
        var own = ContainerSettings()
        change(&own)
        return own
    }

    @Test func theStrongerSayWinsExceptOverAnOptOut() {
        let label = settings {
            $0.offloads = true
            $0.floor = .mib(4)
        }
        let rule = settings {
            $0.offloads = false
            $0.floor = .mib(64)
            $0.requestWindow = 8
        }
        let both = label.over(rule)
        #expect(both.offloads == false)
        #expect(both.floor == .mib(4))
        #expect(both.requestWindow == 8)
        #expect(both.semiWarmDelay == nil)
        #expect(rule.over(label).offloads == false)
        #expect(ContainerSettings().over(label) == label)
    }

    @Test func nothingOfAContainerThatOptedOutIsMoved() {
        var bench = Bench()
        _ = bench.send(.started(function: "f"))
        _ = bench.send(.configured(settings { $0.offloads = false }))
        bench.measure(local: .mib(100))
        var all = bench.send(.runtimeReady) + bench.send(.initDone(recycledAt: nil))
        for _ in 0..<5 { all += bench.request() }
        for _ in 0..<100 { all += bench.tick(after: .seconds(1)) }
        for decision in all {
            if case .snapshot = decision.action { continue }
            Issue.record("\(decision)")
        }
        #expect(bench.policy.containers[bench.id]?.lastRule == .optedOut)
    }

    @Test func aWindowOfItsOwnIsKept() {
        var bench = Bench()
        bench.launch()
        _ = bench.send(.configured(settings { $0.requestWindow = 3 }))
        bench.complete(bench.request())
        var releases: [Int] = []
        for number in 1...3 {
            let decisions = bench.request()
            bench.complete(decisions)
            for case .release(.initialization) in decisions.map(\.action) {
                releases.append(number)
            }
        }
        #expect(releases == [3])
    }

    @Test func aDelayAndAFloorOfItsOwnAreKept() {
        var bench = Bench()
        bench.launch(local: .mib(100))
        _ = bench.send(
            .configured(
                settings {
                    $0.semiWarmDelay = .seconds(40)
                    $0.floor = .mib(90)
                }))
        bench.complete(bench.tick(after: .seconds(39)))
        #expect(bench.policy.containers[bench.id]?.phase == .ready)
        var granted = ByteCount.zero
        for _ in 0..<60 {
            let decisions = bench.tick(after: .seconds(1))
            for case .drain(let grant) in decisions.map(\.action) { granted += grant }
            bench.complete(decisions)
            bench.measure(local: .mib(100) - granted)
        }
        #expect(granted == .mib(10))
        #expect(bench.policy.containers[bench.id]?.phase == .drained)
    }
}
