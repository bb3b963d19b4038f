import FarMemory
import TestSupport
import Testing

@testable import OffloadPolicy

/// A device that writes what was granted at its own pace, and the log of what it wrote when.
struct SlowDevice {
    var random: SeededRandom
    /// Longest time from a grant to its report.
    let slowness: Int
    var writes: [(at: Nanoseconds, bytes: UInt64)] = []
    var queue: [(due: Nanoseconds, decision: Decision, written: UInt64)] = []

    init(_ random: SeededRandom, slowness: Int) {
        self.random = random
        self.slowness = slowness
    }

    mutating func take(_ decision: Decision, at now: Nanoseconds) {
        let grant: UInt64
        switch decision.action {
        case .drain(let bytes), .examine(_, let bytes), .reclaim(let bytes): grant = bytes.bytes
        default: return
        }
        let time = 1 + random.below(slowness)
        let written = random.chance(1, in: 5) ? UInt64(random.below(Int(grant) + 1)) : grant
        let parts = UInt64(1 + random.below(4))
        for part in 0..<parts {
            let at = now + .milliseconds(Int64(random.below(time + 1)))
            writes.append((at, written / parts + (part == 0 ? written % parts : 0)))
        }
        queue.append((now + .milliseconds(Int64(time)), decision, written))
    }

    /// The most that any second saw.
    func worstSecond() -> UInt64 {
        let sorted = writes.sorted { $0.at < $1.at }
        var first = 0
        var sum: UInt64 = 0
        var worst: UInt64 = 0
        for write in sorted {
            sum += write.bytes
            while write.at - sorted[first].at >= .seconds(1) {
                sum -= sorted[first].bytes
                first += 1
            }
            worst = max(worst, sum)
        }
        return worst
    }
}

/// Many containers that become drainable at one moment.
struct Crowd {
    var policy: PolicyMachine
    var now = Nanoseconds.seconds(100)
    var local: [UInt64: ByteCount] = [:]
    var given: [UInt64: UInt64] = [:]
    var device: SlowDevice
    let host = HostMeasure(pressurePermille: 0, farFree: .gib(64))

    init(_ sizes: [ByteCount], _ settings: PolicySettings, _ random: SeededRandom, slowness: Int) {
        policy = PolicyMachine(settings: settings, at: now)
        device = SlowDevice(random, slowness: slowness)
        var decisions: [Decision] = []
        policy.tick(host: host, at: now, into: &decisions)
        for (index, size) in sizes.enumerated() {
            let number = UInt64(index + 1)
            local[number] = size
            send(.started(function: "f\(index)"), number)
            measure(number)
            send(.initDone(recycledAt: nil), number)
        }
    }

    mutating func send(_ event: ContainerEvent, _ number: UInt64) {
        var decisions: [Decision] = []
        policy.handle(event, of: ContainerHandle(number), at: now, into: &decisions)
        carryOut(decisions)
    }

    mutating func measure(_ number: UInt64) {
        guard let size = local[number] else { return }
        send(
            .measured(ContainerMeasure(local: size, far: .zero, anonymous: size, refaults: 0)),
            number)
    }

    mutating func tick(after step: Nanoseconds) {
        now += step
        let due = device.queue.filter { $0.due <= now }
        device.queue.removeAll { $0.due <= now }
        for entry in due {
            let number = entry.decision.container.number
            local[number] = (local[number] ?? .zero) - ByteCount(entry.written)
            var report = ActionReport(action: entry.decision.action)
            report.written = ByteCount(entry.written)
            send(.reported(report), number)
            measure(number)
        }
        var decisions: [Decision] = []
        policy.tick(host: host, at: now, into: &decisions)
        carryOut(decisions)
    }

    private mutating func carryOut(_ decisions: [Decision]) {
        for decision in decisions {
            if case .drain(let grant) = decision.action {
                given[decision.container.number, default: 0] += grant.bytes
            }
            device.take(decision, at: now)
        }
    }
}

private func crowdSettings(rate: ByteCount) -> PolicySettings {
    var settings = PolicySettings()
    settings.semiWarmPrior = .seconds(5)
    settings.offloadsInitialization = false
    settings.bandwidth = rate
    settings.drainRate = .percentPerSecond(50)
    return settings
}

@Suite struct BudgetPropertyTests {
    @Test(arguments: TestSeed.several(30, first: 1, filter: "BudgetPropertyTests"))
    func noSecondSeesMoreThanTheRate(seed: TestSeed) {
        var random = seed.random
        let sizes = (0..<50).map { _ in ByteCount.mib(UInt64(20 + random.below(300))) }
        let rate = ByteCount.mib(UInt64(1 + random.below(200)))
        var settings = crowdSettings(rate: rate)
        settings.burst = .mib(UInt64(1 + random.below(400)))
        var crowd = Crowd(sizes, settings, random, slowness: 1 + random.below(700))
        for _ in 0..<600 { crowd.tick(after: .milliseconds(Int64(1 + random.below(150)))) }
        let worst = crowd.device.worstSecond()
        #expect(worst * 100 <= rate.bytes * 105, "\(seed): \(ByteCount(worst)) at \(rate)/s")
        #expect(worst > 0, "\(seed): nothing was written")
    }

    @Test func theRateIsUsed() {
        let rate = ByteCount.mib(64)
        var crowd = Crowd(
            [ByteCount](repeating: .mib(200), count: 50), crowdSettings(rate: rate),
            SeededRandom(seed: 1), slowness: 20)
        for _ in 0..<50 { crowd.tick(after: .milliseconds(100)) }
        let before = crowd.given.values.reduce(0, +)
        for _ in 0..<300 { crowd.tick(after: .milliseconds(100)) }
        let granted = crowd.given.values.reduce(0, +) - before
        #expect(granted * 100 >= rate.bytes * 30 * 80, "\(ByteCount(granted)) in 30 s")
    }

    @Test(arguments: TestSeed.several(10, first: 1, filter: "BudgetPropertyTests"))
    func whatIsReportedComesBack(seed: TestSeed) {
        var random = seed.random
        var now = Nanoseconds.seconds(5)
        var budget = BandwidthBudget(rate: .mib(100), burst: .mib(70), at: now)
        var open: [ByteCount] = []
        for _ in 0..<5000 {
            now += .milliseconds(Int64(random.below(40)))
            if random.chance(1, in: 2) {
                let wanted = ByteCount(UInt64(random.below(30 << 20)))
                let granted = budget.take(upTo: wanted, at: now)
                #expect(granted <= wanted, "\(seed)")
                open.append(granted)
            } else if !open.isEmpty {
                let granted = open.remove(at: random.below(open.count))
                budget.settle(
                    granted, written: ByteCount(UInt64(random.below(Int(granted.bytes) + 1))),
                    at: now)
            }
            #expect(open.reduce(UInt64(0)) { $0 + $1.bytes } <= ByteCount.mib(70).bytes, "\(seed)")
        }
        for granted in open { budget.settle(granted, written: .zero, at: now) }
        #expect(budget.available(at: now + .milliseconds(1016)) == .mib(70), "\(seed)")
    }
}

@Suite struct FairSharingTests {
    @Test func equalContainersGetEqualParts() {
        let rate = ByteCount.mib(50)
        var crowd = Crowd(
            [ByteCount](repeating: .mib(200), count: 50), crowdSettings(rate: rate),
            SeededRandom(seed: 1), slowness: 1)
        for _ in 0..<400 { crowd.tick(after: .milliseconds(100)) }
        let given = crowd.given.values.sorted()
        #expect(given.count == 50)
        let spread = (given.last ?? 0) - (given.first ?? 0)
        #expect(spread <= 2 * ByteCount.mib(1).bytes, "\(given.map { ByteCount($0) })")
    }

    @Test func whoAsksForLittleGetsItAll() {
        // At 50 %/s small ones ask for 2 MiB/s each; what they leave is divided by the large ones.
        let sizes =
            [ByteCount](repeating: .mib(12), count: 5) + [ByteCount](repeating: .gib(1), count: 5)
        var crowd = Crowd(
            sizes, crowdSettings(rate: .mib(60)), SeededRandom(seed: 1), slowness: 1)
        for _ in 0..<110 { crowd.tick(after: .milliseconds(100)) }
        for number in 1...5 as ClosedRange<UInt64> {
            #expect((crowd.given[number] ?? 0) >= ByteCount.mib(3).bytes, "\(crowd.given)")
        }
        let large = (6...10).map { crowd.given[$0] ?? 0 }.sorted()
        #expect(large[4] - large[0] <= ByteCount.mib(8).bytes, "\(large)")
        #expect(large[0] > ByteCount.mib(20).bytes)
    }

    @Test func aWindowThatTheBudgetCutShortIsExaminedToItsEnd() {
        var bench = Bench {
            $0.bandwidth = .mib(20)
            $0.semiWarmPrior = .seconds(60)
        }
        bench.launch(local: .mib(100))
        bench.now += .seconds(5)
        var examined = ByteCount.zero
        var decisions = bench.request()
        for _ in 0..<100 {
            for case .examine(.initialization, let grant) in decisions.map(\.action) {
                examined += grant
            }
            bench.complete(decisions)
            decisions = bench.tick(after: .milliseconds(100))
        }
        #expect(examined == .mib(100))
    }

    @Test func aRequestEndsTheRestOfTheExamination() {
        var bench = Bench { $0.bandwidth = .mib(20) }
        bench.launch(local: .mib(100))
        bench.now += .seconds(5)
        bench.complete(bench.request())
        _ = bench.send(.requestStarted)
        #expect(bench.tick(after: .seconds(2)).isEmpty)
    }
}
