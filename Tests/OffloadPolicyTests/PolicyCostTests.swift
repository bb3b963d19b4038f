import FarMemory
import TestSupport
import Testing

@testable import OffloadPolicy

// What a tick costs is counted, not timed: allocations, which are what such code pays for most, and bytes held per function.
// `farmem bench policy` prints the times.

/// Many containers of which `draining` are being drained.
private struct CostBench {
    var policy: PolicyMachine
    var now = Nanoseconds.seconds(1000)
    let host = HostMeasure(pressurePermille: 0, farFree: .gib(64))
    var decisions: [Decision] = []

    init(containers: Int, draining: Int) {
        var settings = PolicySettings()
        settings.semiWarmPrior = .seconds(3600)
        settings.offloadsRuntime = false
        settings.offloadsInitialization = false
        settings.semiWarmDelays = ["draining": .zero]
        policy = PolicyMachine(settings: settings, at: now)
        policy.tick(host: host, at: now, into: &decisions)
        for number in 0..<containers {
            send(.started(function: number < draining ? "draining" : "f\(number % 100)"), number)
            measure(number)
            send(.initDone(recycledAt: nil), number)
        }
        tick()
    }

    mutating func send(_ event: ContainerEvent, _ number: Int) {
        policy.handle(event, of: ContainerHandle(UInt64(number)), at: now, into: &decisions)
    }

    mutating func measure(_ number: Int) {
        send(
            .measured(
                ContainerMeasure(local: .mib(64), far: .zero, anonymous: .mib(64), refaults: 0)),
            number)
    }

    mutating func tick() {
        now += .milliseconds(100)
        decisions.removeAll(keepingCapacity: true)
        policy.tick(host: host, at: now, into: &decisions)
    }
}

@Suite(.enabled(if: allocationsAreCounted, "needs allocation counts: no sanitizer"))
struct PolicyCostTests {
    @Test func aTickOverWaitingContainersAllocatesNothing() {
        var bench = CostBench(containers: 10_000, draining: 0)
        bench.tick()
        #expect(allocations { bench.tick() } == 0)
        #expect(bench.decisions.isEmpty)
    }

    @Test func aMeasureAllocatesNothing() {
        var bench = CostBench(containers: 1000, draining: 0)
        #expect(allocations { for number in 0..<1000 { bench.measure(number) } } == 0)
    }

    @Test func aDrainingContainerThatMustWaitCostsNothingAndAGrantLittle() {
        var bench = CostBench(containers: 2000, draining: 1000)
        for _ in 0..<5 { bench.tick() }
        var granted = 0
        let made = allocations {
            for _ in 0..<10 {
                bench.tick()
                granted += bench.decisions.count
            }
        }
        // A reason in words, a list of what is under way, and a few lists per tick.
        #expect(made <= UInt64(granted) * 12 + 200, "\(made) for \(granted) grants")
    }

    @Test func aReuseIntervalAllocatesNothingOnceItsBucketIsThere() {
        var reuse = ReuseIntervals()
        for seconds in 1...60 { reuse.record(.seconds(Int64(seconds))) }
        let made = allocations {
            for seconds in 1...60 { reuse.record(.seconds(Int64(seconds))) }
            _ = reuse.quantile(permille: 990)
        }
        #expect(made == 0)
    }
}
