import Fabric
import FabricSimulator
import FarMemory
import TestSupport
import Testing

/// The simulator itself keeps the seam's contract, and the model finds what breaks it.
@Suite struct SimulatorTests {
    private static func run(
        _ options: SimulatorOptions, seed: UInt64, requests: Int = 3000
    ) throws -> (WorkloadResult, SimulatorEvents) {
        let clock = VirtualClock()
        let fabric = SimulatedFabric(options: options, clock: clock)
        let clients = try (0..<3).map { _ in
            BareClient(channel: try fabric.makeChannel(), clock: clock)
        }
        let workload = Workload(
            clients: clients, pageCount: Int(options.size.pages.pages), clock: clock, seed: seed)
        workload.run(requests: requests)
        fabric.heal()
        workload.readEverything()
        return (workload.result, fabric.events)
    }

    @Test(arguments: TestSeed.several(20, first: 1, filter: "SimulatorTests"))
    func whatIsAnsweredIsRight(seed: TestSeed) throws {
        for family in [SimulatorOptions.Family.oneSided, .twoSided] {
            let options = randomOptions(seed: seed.value, family: family)
            let (result, _) = try Self.run(options, seed: seed.value)
            #expect(result.problems.isEmpty, "\(result.problems.first ?? ""); \(seed)")
            #expect(result.loads > 100, "\(seed)")
        }
    }

    @Test func aRunIsAFunctionOfItsSeed() throws {
        let options = randomOptions(seed: 5, family: .twoSided)
        let first = try Self.run(options, seed: 5)
        let second = try Self.run(options, seed: 5)
        #expect(first.1 == second.1)
        #expect(first.0.loadFailures == second.0.loadFailures)
        #expect(first.0.longestLoad == second.0.longestLoad)
    }

    @Test func everyKindOfFaultHappens() throws {
        var total = SimulatorEvents()
        for seed in 0..<20 {
            let (_, events) = try Self.run(
                randomOptions(seed: UInt64(seed), family: .twoSided), seed: UInt64(seed))
            total.crashes += events.crashes
            total.cuts += events.cuts
            total.squeezes += events.squeezes
            total.messagesLost += events.messagesLost
            total.messagesDelayed += events.messagesDelayed
            total.storesTorn += events.storesTorn
            total.refusals += events.refusals
        }
        #expect(total.crashes > 10 && total.cuts > 10 && total.squeezes > 10, "\(total)")
        #expect(total.messagesLost > 10 && total.messagesDelayed > 10, "\(total)")
        #expect(total.refusals > 10, "\(total)")
    }

    /// Without faults nothing fails, whatever the family.
    @Test(arguments: [SimulatorOptions.Family.oneSided, .twoSided])
    func aQuietWorldNeverFails(family: SimulatorOptions.Family) throws {
        var options = SimulatorOptions(seed: 1)
        options.family = family
        let (result, events) = try Self.run(options, seed: 1, requests: 2000)
        #expect(result.loadFailures == 0 && result.storeFailures == 0)
        #expect(result.problems.isEmpty)
        #expect(events == SimulatorEvents())
    }

    /// The test of the test: a fabric that carries out a store after its connection is gone makes stale pages, and the
    /// model says so.
    @Test func lateStoresAreNoticed() throws {
        var stale = 0
        for seed in 0..<20 as Range<UInt64> {
            var options = SimulatorOptions(seed: seed)
            options.size = .kib(64)
            options.slab = .kib(16)
            options.fencing = false
            options.delayPer10k = 500
            let (result, events) = try Self.run(options, seed: seed, requests: 2000)
            if events.storesCarriedOutLate > 0, !result.problems.isEmpty { stale += 1 }
        }
        #expect(stale > 10, "only \(stale) of 20 runs were caught")
    }

    @Test func aLostLeaseIsSaidSo() throws {
        var options = SimulatorOptions(seed: 3)
        options.crashInterval = 10_000_000
        options.crashLosesPages = true
        let (result, events) = try Self.run(options, seed: 3)
        #expect(events.crashes > 0)
        #expect(result.problems.isEmpty)
        #expect(result.loadFailures > 0)
    }
}
