import FarMemory
import TestSupport
import Testing

@testable import OffloadPolicy

/// A world of containers that obeys the policy, and checks it, under random events in random order.
struct RandomWorld {
    var random: SeededRandom
    var policy: PolicyMachine
    let settings: PolicySettings
    var now = Nanoseconds.seconds(1)
    let began = Nanoseconds.seconds(1)
    var alive: Set<UInt64> = []
    var running: [UInt64: Int] = [:]
    var local: [UInt64: ByteCount] = [:]
    var recycledAt: [UInt64: Nanoseconds] = [:]
    var pending: [Decision] = []
    var granted: UInt64 = 0
    var unused: UInt64 = 0
    var host = HostMeasure(pressurePermille: 0, farFree: .gib(1))
    var faults: [String] = []

    init(_ seed: TestSeed) {
        random = seed.random
        var settings = PolicySettings()
        settings.semiWarmPrior = .seconds(2)
        settings.bandwidth = .mib(8)
        settings.burst = .mib(16)
        settings.rollbackInterval = .seconds(3)
        self.settings = settings
        policy = PolicyMachine(settings: settings, at: now)
    }

    mutating func step() {
        now += .milliseconds(Int64(random.below(300)))
        let number = UInt64(random.below(6))
        switch random.below(12) {
        case 0: start(number)
        case 1: send(.runtimeReady, number)
        case 2: send(.initDone(recycledAt: chance()), number)
        case 3, 4: send(.requestStarted, number)
        case 5, 6:
            send(.requestEnded(recycledAt: chance()), number)
        case 7: if random.chance(1, in: 4) { stop(number) }
        case 8: report()
        default: tick()
        }
    }

    private mutating func chance() -> Nanoseconds? {
        random.chance(1, in: 2) ? now + .seconds(Int64(random.below(20))) : nil
    }

    private func isRunning(_ number: UInt64) -> Bool { (running[number] ?? 0) > 0 }

    private mutating func start(_ number: UInt64) {
        guard !alive.contains(number) else { return }
        alive.insert(number)
        local[number] = .mib(UInt64(random.below(200)))
        send(.started(function: "f\(number % 2)"), number)
        measure(number)
    }

    private mutating func measure(_ number: UInt64) {
        let amount = local[number] ?? .zero
        send(
            .measured(
                ContainerMeasure(
                    local: amount, far: .zero, anonymous: amount,
                    refaults: UInt64(random.below(2000)))), number)
    }

    private mutating func stop(_ number: UInt64) {
        send(.stopped, number)
        alive.remove(number)
        running[number] = nil
        recycledAt[number] = nil
    }

    private mutating func send(_ event: ContainerEvent, _ number: UInt64) {
        switch event {
        case .requestStarted where alive.contains(number): running[number, default: 0] += 1
        case .requestEnded(let at, _) where isRunning(number):
            running[number, default: 0] -= 1
            recycledAt[number] = at
        case .initDone(let at)
        where policy.containers[ContainerHandle(number)]?.phase
            == .launching
            || policy.containers[ContainerHandle(number)]?.phase == .initializing:
            recycledAt[number] = at
        default: break
        }
        var decisions: [Decision] = []
        policy.handle(event, of: ContainerHandle(number), at: now, into: &decisions)
        check(decisions, isTick: false)
    }

    private mutating func tick() {
        if random.chance(1, in: 10) {
            host.farFree = random.chance(1, in: 3) ? nil : .mib(UInt64(random.below(256)))
            host.pressurePermille = random.chance(1, in: 4) ? nil : UInt64(random.below(300))
        } else {
            host = HostMeasure(pressurePermille: 0, farFree: .gib(1))
        }
        var decisions: [Decision] = []
        policy.tick(host: host, at: now, into: &decisions)
        check(decisions, isTick: true)
    }

    private mutating func report() {
        guard !pending.isEmpty else { return }
        let decision = pending.remove(at: random.below(pending.count))
        let number = decision.container.number
        var report = ActionReport(action: decision.action)
        report.wasHalted = random.chance(1, in: 5)
        switch decision.action {
        case .examine(_, let grant):
            report.written = ByteCount(UInt64(random.below(Int(grant.bytes) + 1)))
            unused += (grant - report.written).bytes
        case .drain(let grant):
            report.written = ByteCount(UInt64(random.below(Int(grant.bytes) + 1)))
            unused += (grant - report.written).bytes
            local[number] = (local[number] ?? .zero) - report.written
            report.isExhausted = random.chance(1, in: 10)
        case .reclaim(let grant):
            report.written = grant
        case .release:
            report.released = PageCount(UInt64(random.below(5000)))
            report.hot = PageCount(UInt64(random.below(5000)))
        case .snapshot, .halt, .recall, .forget, .pullBack, .startColdPageout, .stopColdPageout:
            return
        }
        guard alive.contains(number) else { return }
        send(.reported(report), number)
        measure(number)
    }

    private mutating func check(_ decisions: [Decision], isTick: Bool) {
        for decision in decisions {
            let number = decision.container.number
            let isLast = decision.rule == .stopped
            if !alive.contains(number) && !isLast {
                fault("acted on a stopped container", decision)
            }
            switch decision.action {
            case .examine(_, let grant): note(grant, decision)
            case .drain(let grant), .reclaim(let grant):
                note(grant, decision)
                if isRunning(number) { fault("drained during a request", decision) }
                if (local[number] ?? .zero) - grant < min(settings.floor, local[number] ?? .zero) {
                    fault("went below the floor", decision)
                }
            case .snapshot, .release, .halt, .recall, .forget, .pullBack, .startColdPageout,
                .stopColdPageout:
                break
            }
            pending.append(decision)
        }
        pending.removeAll { !alive.contains($0.container.number) }
    }

    private mutating func note(_ grant: ByteCount, _ decision: Decision) {
        granted += grant.bytes
        let elapsed = UInt64((now - began).nanoseconds)
        let allowed =
            settings.burst.bytes + unused + settings.bandwidth.bytes * elapsed / 1_000_000_000
        if granted > allowed { fault("exceeded the budget", decision) }
        if host.farFree == nil || host.pressurePermille == nil {
            fault("moved pages with an unknown host", decision)
        }
        if let end = recycledAt[decision.container.number], end - now <= settings.recycleGuard {
            fault("moved pages shortly before recycling", decision)
        }
    }

    private mutating func fault(_ text: String, _ decision: Decision) {
        faults.append("\(text) at \(now): \(decision)")
    }
}

@Suite struct PolicyPropertyTests {
    @Test(arguments: TestSeed.several(40, first: 1, filter: "PolicyPropertyTests"))
    func noRandomOrderOfEventsBreaksTheLaw(seed: TestSeed) {
        var world = RandomWorld(seed)
        for _ in 0..<3000 { world.step() }
        #expect(world.faults.isEmpty, "\(seed): \(world.faults.first ?? "")")
        #expect(world.granted > 0, "\(seed): nothing ever moved")
    }

    @Test(arguments: TestSeed.several(20, first: 100, filter: "PolicyPropertyTests"))
    func theSameEventsGiveTheSameDecisions(seed: TestSeed) {
        var first = RandomWorld(seed)
        var second = RandomWorld(seed)
        for _ in 0..<500 {
            first.step()
            second.step()
        }
        #expect(first.pending == second.pending)
        #expect(first.policy.containers == second.policy.containers)
    }
}
