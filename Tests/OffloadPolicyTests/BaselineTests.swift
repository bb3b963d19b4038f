import FarMemory
import Testing

@testable import OffloadPolicy

extension Bench {
    /// A bench for a policy with its own defaults.
    init(_ kind: PolicyKind, _ change: (inout PolicySettings) -> Void = { _ in }) {
        var settings = PolicySettings(kind)
        change(&settings)
        policy = PolicyMachine(settings: settings, at: .seconds(1000))
        _ = tick()
    }

    /// Ticks every 100 ms for so long, reporting everything as done, and returns what was decided with its time since the start.
    mutating func pass(_ time: Nanoseconds) -> [(at: Nanoseconds, decision: Decision)] {
        let began = now
        var all: [(Nanoseconds, Decision)] = []
        while now - began < time {
            let decisions = tick(after: .milliseconds(100))
            all += decisions.map { (now - began, $0) }
            for decision in decisions {
                guard var measure = policy.containers[id]?.measure else { continue }
                switch decision.action {
                case .drain(let grant), .reclaim(let grant): measure.local = measure.local - grant
                default: break
                }
                _ = send(.measured(measure))
                var report = ActionReport(action: decision.action)
                if case .drain(let grant) = decision.action { report.written = grant }
                _ = send(.reported(report))
            }
        }
        return all
    }
}

@Suite struct NonePolicyTests {
    @Test func nothingIsEverDone() {
        var bench = Bench(.none)
        _ = bench.send(.started(function: "f"))
        bench.measure(local: .mib(100))
        #expect(bench.send(.runtimeReady).isEmpty)
        #expect(bench.send(.initDone(recycledAt: nil)).isEmpty)
        for _ in 0..<5 { #expect(bench.request().isEmpty) }
        #expect(bench.pass(.seconds(300)).isEmpty)
        #expect(actions(bench.send(.stopped)) == ["halt", "forget"])
    }
}

@Suite struct SenpaiPolicyTests {
    private func bench(_ local: ByteCount, pressure: UInt64?) -> Bench {
        var bench = Bench(.tmo)
        bench.host.pressureMillionths = nil
        _ = bench.send(.started(function: "f"))
        var measure = ContainerMeasure(local: local, far: .zero, anonymous: local, refaults: 0)
        measure.pressureMillionths = pressure
        _ = bench.send(.measured(measure))
        return bench
    }

    @Test func everySixSecondsAShareOfTheContainerIsReclaimed() {
        var bench = bench(.gib(4), pressure: 0)
        let all = bench.pass(.seconds(20))
        // 4 GiB * 0.0005 is 524.288 pages; the senpai of the artifact cuts to whole pages.
        #expect(all.first?.decision.action == .reclaim(ByteCount(pages: PageCount(524))))
        #expect(all.map(\.at.milliseconds) == [6100, 12_100, 18_100])
    }

    @Test func pressureTakesItsShareAway() {
        var half = bench(.gib(4), pressure: 500)
        #expect(
            half.pass(.seconds(7)).map(\.decision.action)
                == [.reclaim(ByteCount(pages: PageCount(262)))])
        for pressure in [1000, 50_000] as [UInt64] {
            var bench = bench(.gib(4), pressure: pressure)
            #expect(bench.pass(.seconds(60)).isEmpty)
        }
    }

    @Test func smallRequestsAreRoundedUpAndRepaid() {
        // 100 MiB * 0.0005 is 12 pages: 128 at once, and then nothing for nine more turns.
        var bench = bench(.mib(100), pressure: 0)
        let all = bench.pass(.seconds(130))
        #expect(all.count == 2)
        #expect(all.allSatisfy { $0.decision.action == .reclaim(.kib(512)) })
        #expect(all.last.map { $0.at.milliseconds } == 66_100)
    }

    @Test func overdraftIsTheDifference() {
        var record = ContainerRecord(function: "f", rollbackInterval: .zero)
        #expect(record.senpaiRequest(100, minimum: 128) == 128)
        #expect(record.senpaiRequest(20, minimum: 128) == 0)
        #expect(record.senpaiRequest(20, minimum: 128) == 128, "8 of 28 were left")
        #expect(record.senpaiOverdraft == 116)
        #expect(record.senpaiRequest(500, minimum: 128) == 500)
        #expect(record.senpaiRequest(0, minimum: 128) == 0)
    }

    @Test func unknownPressureIsNotZero() {
        var unknown = bench(.gib(4), pressure: nil)
        #expect(unknown.pass(.seconds(20)).isEmpty)
        #expect(unknown.policy.containers[unknown.id]?.lastRule == .unknownPressure)
        unknown.host.pressureMillionths = 0
        #expect(unknown.pass(.seconds(7)).count == 1, "the host's stands in for a group without")
    }

    @Test func runningMakesNoDifferenceAndAHaltIsNotNeeded() {
        var bench = bench(.gib(4), pressure: 0)
        #expect(bench.send(.requestStarted).isEmpty)
        #expect(bench.pass(.seconds(7)).count == 1)
        #expect(bench.send(.requestEnded(recycledAt: nil)).isEmpty)
    }
}

@Suite struct IdleShrinkPolicyTests {
    @Test func theWholeContainerLeavesOnceWhenIdlePastTheDelay() {
        var bench = Bench(.idleShrink) { $0.semiWarmDelay = .seconds(20) }
        bench.launch(local: .mib(100))
        let all = bench.pass(.seconds(300))
        #expect(all.map(\.decision.action) == [.reclaim(.mib(92))])
        #expect(all.first.map { $0.at.milliseconds } == 20_000)
        #expect(bench.policy.containers[bench.id]?.phase == .drained)
        #expect(actions(bench.send(.requestStarted)) == ["halt"], "no prefetch")
        _ = bench.send(.requestEnded(recycledAt: nil))
        bench.measure(local: .mib(50))
        #expect(bench.pass(.seconds(30)).map(\.decision.action) == [.reclaim(.mib(42))])
    }

    @Test func withABudgetItLeavesInParts() {
        var bench = Bench(.idleShrink) {
            $0.semiWarmDelay = .seconds(20)
            $0.usesBudget = true
            $0.bandwidth = .mib(10)
        }
        bench.launch(local: .mib(33))
        let all = bench.pass(.seconds(60))
        #expect(
            all.map(\.decision.action) == [
                .reclaim(.mib(10)), .reclaim(.mib(10)), .reclaim(.mib(5)),
            ])
    }
}

@Suite struct DamonPolicyTests {
    @Test func itIsStartedWhenTheRuntimeIsUpAndStoppedAtTheEnd() {
        var bench = Bench(.damon)
        _ = bench.send(.started(function: "f"))
        let start = bench.send(.runtimeReady)
        #expect(actions(start) == ["start-cold-pageout"])
        guard case .startColdPageout(let regions) = start.first?.action else { return }
        #expect(regions.age == .seconds(60) && regions.sizeMinimum == .kib(4))
        #expect(bench.send(.initDone(recycledAt: nil)).isEmpty)
        #expect(bench.request().isEmpty)
        #expect(bench.pass(.seconds(100)).isEmpty)
        #expect(actions(bench.send(.stopped)) == ["halt", "stop-cold-pageout", "forget"])
    }

    @Test func aLostBarrierDoesNotMatter() {
        var bench = Bench(.damon)
        _ = bench.send(.started(function: "f"))
        #expect(actions(bench.send(.requestStarted)) == ["start-cold-pageout"])
        #expect(bench.send(.requestEnded(recycledAt: nil)).isEmpty)
    }

    @Test func maintenanceStopsItAndItsEndStartsItAgain() {
        var bench = Bench(.damon)
        bench.launch()
        var decisions: [Decision] = []
        bench.policy.setMaintenance(true, at: bench.now, into: &decisions)
        #expect(actions(decisions) == ["halt", "stop-cold-pageout", "pull-back"])
        #expect(bench.policy.hostForbids(at: bench.now) == .maintenance)
        decisions = []
        bench.policy.setMaintenance(false, at: bench.now, into: &decisions)
        #expect(actions(decisions) == ["start-cold-pageout"])
    }
}

@Suite struct FaaSMemPolicyTests {
    @Test func windowsAreTheStaticOnes() {
        for (function, window) in [("bert", 8), ("web", 32), ("graph", 4), ("json", 1)] {
            var bench = Bench(.faasmem)
            _ = bench.send(.started(function: function))
            bench.measure(local: .mib(100))
            bench.complete(bench.send(.runtimeReady))
            bench.complete(bench.send(.initDone(recycledAt: nil)))
            for request in 1...window {
                let end = bench.request()
                let expected =
                    (request == 1 ? ["release-runtime"] : [])
                    + (request == window ? ["release-init", "examine-all"] : [])
                #expect(actions(end) == expected, "\(function), request \(request)")
                bench.complete(end)
            }
        }
    }

    @Test func laterWindowsTakeTenSecondsAndTheirRequests() {
        var bench = Bench(.faasmem) { $0.requestWindow = 3 }
        bench.launch()
        for _ in 1...3 { bench.complete(bench.request()) }
        for _ in 1...10 { #expect(bench.request().isEmpty, "less than 10 s") }
        bench.now += .seconds(10)
        let rollback = bench.request()
        #expect(actions(rollback) == ["release-all", "examine-all"])
        bench.complete(rollback, released: 0, hot: 1000)
        bench.now += .seconds(10)
        #expect(bench.request().isEmpty)
        #expect(bench.request().isEmpty)
        #expect(actions(bench.request()) == ["release-all", "examine-all"], "never doubled")
    }

    @Test func theDrainIsATenthEveryTenSecondsFromTwoMinutesOn() {
        var bench = Bench(.faasmem)
        bench.launch(local: .mib(100), recycledAfter: .seconds(600))
        bench.complete(bench.request(recycledAfter: .seconds(600)))
        let all = bench.pass(.seconds(599))
        #expect(all.map { ($0.at.milliseconds + 5000) / 10_000 } == (13...22).map { Int64($0) })
        #expect(all.dropLast().allSatisfy { $0.decision.action == .drain(grant: .mib(10)) })
        #expect(all.last?.decision.action == .drain(grant: .mib(2)), "8 MiB stay")
    }

    @Test func itStopsFifteenSecondsBeforeTheEndAndDoesNotStartForLess() {
        var late = Bench(.faasmem)
        late.launch(recycledAfter: .seconds(160))
        let all = late.pass(.seconds(160))
        #expect(all.map { $0.at.milliseconds / 1000 } == [130, 140])
        var never = Bench(.faasmem) { $0.recycleGuard = .zero }
        never.launch(recycledAfter: .seconds(124))
        #expect(never.pass(.seconds(124)).isEmpty, "delay > keep-alive - 5 s")
    }

    @Test func aRequestStopsItAndNothingIsReadBack() {
        var bench = Bench(.faasmem)
        bench.launch()
        bench.complete(bench.request())
        #expect(!bench.pass(.seconds(135)).isEmpty)
        #expect(actions(bench.send(.requestStarted)) == ["halt"])
    }

    @Test func constantsAreTheArtifacts() {
        let settings = PolicySettings(.faasmem)
        #expect(settings.releaseMinimum == PageCount(64))
        #expect(settings.floor == .mib(8))
        #expect(!settings.usesBudget && settings.prefetch == .off)
        #expect(settings.semiWarmDelay == .seconds(120))
        #expect(settings.drainRate == .percentPerSecond(1) && settings.drainStep == .seconds(10))
        #expect(settings.recycleGuard == .seconds(15) && settings.recycleMargin == .seconds(5))
        #expect(settings.rollbackInterval == .seconds(10))
    }
}

@Suite struct AblationTests {
    private func words(_ change: (inout PolicySettings) -> Void) -> Set<String> {
        var bench = Bench {
            $0.semiWarmPrior = .seconds(10)
            change(&$0)
        }
        _ = bench.send(.started(function: "f"))
        bench.measure(local: .mib(100))
        var all: [Decision] = []
        func note(_ decisions: [Decision]) {
            all += decisions
            bench.complete(decisions)
        }
        note(bench.send(.runtimeReady))
        note(bench.send(.initDone(recycledAt: nil)))
        for _ in 0..<3 { note(bench.request()) }
        all += bench.pass(.seconds(30)).map(\.decision)
        note(bench.request())
        return Set(actions(all))
    }

    @Test func eachSwitchTakesOnePartAway() {
        let whole = words { _ in }
        #expect(whole.isSuperset(of: ["examine-runtime", "release-runtime", "examine-init"]))
        #expect(whole.isSuperset(of: ["release-init", "drain", "recall"]))
        let noRuntime = words { $0.offloadsRuntime = false }
        #expect(whole.subtracting(noRuntime) == ["examine-runtime", "release-runtime"])
        let noInit = words { $0.offloadsInitialization = false }
        #expect(whole.subtracting(noInit).isSuperset(of: ["examine-init", "release-init"]))
        #expect(noInit.isSuperset(of: ["release-runtime", "drain", "recall"]))
        let noSemiWarm = words { $0.drainsIdle = false }
        #expect(!noSemiWarm.contains("drain") && noSemiWarm.contains("release-init"))
        #expect(whole.subtracting(words { $0.prefetch = .off }) == ["recall"])
    }

    @Test func withoutABudgetAllIsGrantedAtOnce() {
        var bench = Bench {
            $0.usesBudget = false
            $0.bandwidth = .mib(1)
        }
        _ = bench.send(.started(function: "f"))
        bench.measure(local: .gib(3))
        let barrier = bench.send(.runtimeReady)
        #expect(barrier.last?.action == .examine(.runtime, grant: .gib(3)))
    }
}
