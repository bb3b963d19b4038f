import FarMemory
import Testing

@testable import OffloadPolicy

@Suite struct ContainerGuardTests {
    private let id = ContainerHandle(1)
    private let host = HostMeasure(pressurePermille: 0, farFree: .mib(4096))

    private func machine() -> PolicyMachine {
        var settings = PolicySettings()
        settings.drainsIdle = false
        settings.offloadsInitialization = false
        settings.offloadsRuntime = false
        var policy = PolicyMachine(settings: settings, at: .zero)
        var decisions: [Decision] = []
        policy.tick(host: host, at: .zero, into: &decisions)
        policy.handle(.started(function: "f"), of: id, at: .zero, into: &decisions)
        policy.handle(.initDone(recycledAt: nil), of: id, at: .zero, into: &decisions)
        return policy
    }

    private func request(
        _ policy: inout PolicyMachine, at second: Int64, latency: Nanoseconds?
    ) {
        var decisions: [Decision] = []
        policy.handle(.requestStarted, of: id, at: .seconds(second), into: &decisions)
        policy.handle(
            .requestEnded(recycledAt: nil, latency: latency), of: id,
            at: .seconds(second) + .milliseconds(1), into: &decisions)
    }

    private func rule(_ policy: PolicyMachine, at second: Int64) -> Rule? {
        policy.containers[id].flatMap { policy.mayWrite($0, at: .seconds(second)) }
    }

    @Test func aFunctionThatBecomesSlowerThanItsOwnBaselineRests() {
        let baseline = ring(20, 30)
        var watch = LatencyWatch()
        for _ in 0..<30 { watch.note(.milliseconds(20)) }
        #expect(!watch.isWorse(than: baseline, by: 500))
        for _ in 0..<10 { watch.note(.milliseconds(60)) }
        #expect(watch.isWorse(than: baseline, by: 500))
        #expect(!watch.isWorse(than: baseline, by: 3000))
        watch.forgetRecent()
        #expect(!watch.isWorse(than: baseline, by: 500), "new evidence first")
    }

    @Test func fewRequestsAndSmallDifferencesProveNothing() {
        var watch = LatencyWatch()
        for _ in 0..<40 { watch.note(.milliseconds(90)) }
        #expect(!watch.isWorse(than: ring(20, 19), by: 100), "19 undisturbed ones are too few")
        #expect(watch.isWorse(than: ring(20, 20), by: 100))
        var fast = LatencyWatch()
        for _ in 0..<30 { fast.note(.milliseconds(4)) }
        #expect(!fast.isWorse(than: ring(1, 30), by: 100), "3 ms are noise")
    }

    private func ring(_ milliseconds: Int64, _ count: Int) -> LatencyRing {
        var ring = LatencyRing(kept: 64)
        for _ in 0..<count { ring.put(Nanoseconds.milliseconds(milliseconds).ringMicroseconds) }
        return ring
    }

    @Test func withoutLatenciesThereIsNoSuchGuard() {
        var policy = machine()
        for second in 1...60 { request(&policy, at: Int64(second), latency: nil) }
        #expect(rule(policy, at: 61) == nil)
    }

    @Test func aContainerWhoseTasksWaitRestsAndOthersDoNot() {
        var policy = machine()
        var decisions: [Decision] = []
        func measure(_ stall: Nanoseconds?, at second: Int64) {
            policy.handle(
                .measured(
                    ContainerMeasure(
                        local: .mib(100), far: .zero, anonymous: .mib(100), refaults: 0,
                        stall: stall)),
                of: id, at: .seconds(second), into: &decisions)
        }
        measure(.milliseconds(100), at: 1)
        measure(.milliseconds(200), at: 2)
        #expect(rule(policy, at: 2) == nil, "a tenth of the time is allowed")
        measure(.milliseconds(700), at: 3)
        #expect(rule(policy, at: 3) == .pressure)
        #expect(policy.hostForbids(at: .seconds(3)) == nil, "the others go on")
        #expect(rule(policy, at: 9) == nil, "it passes")
        measure(nil, at: 10)
        measure(.seconds(100), at: 11)
        #expect(rule(policy, at: 11) == nil, "unknown in between is not a wait")
    }
}
