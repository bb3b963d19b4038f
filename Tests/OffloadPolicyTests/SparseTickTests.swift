import FarMemory
import TestSupport
import Testing

@testable import OffloadPolicy

/// Two machines that hear the same events: one is ticked at each multiple of the interval, the other only when its own `nextWake` says so.
private struct TwoMachines {
    var random: SeededRandom
    var dense: PolicyMachine
    var sparse: PolicyMachine
    var now = Nanoseconds.seconds(100)
    var nextTick = Nanoseconds.seconds(100)
    var host = HostMeasure(pressurePermille: 0, farFree: .gib(1))
    var local: [UInt64: ByteCount] = [:]
    var refaults: UInt64 = 0
    /// What the sparse machine foretold after the last event or tick.
    var foretold: [ContainerHandle: Nanoseconds] = [:]
    var pending: [Decision] = []
    var ticks = 0
    var ticksTaken = 0
    var drains = 0
    var fault: String?

    static let interval = Nanoseconds.milliseconds(100)

    init(_ seed: TestSeed) {
        random = seed.random
        var settings = PolicySettings()
        settings.semiWarmPrior = .seconds(3)
        settings.semiWarmMinimum = .seconds(1)
        settings.rollbackInterval = .seconds(3)
        settings.bandwidth = .mib(UInt64(4 + random.below(60)))
        settings.burst = .mib(UInt64(1 + random.below(16)))
        settings.drainRate =
            random.chance(1, in: 2) ? .percentPerSecond(10) : .bytesPerSecond(.mib(7))
        dense = PolicyMachine(settings: settings, at: now)
        sparse = PolicyMachine(settings: settings, at: now)
        tick()
    }

    mutating func step() {
        // Short pauses and, now and then, one long enough for containers to become idle and drain.
        let pause = random.chance(1, in: 8) ? 8000 : 300
        let until = now + .microseconds(Int64(random.below(pause * 1000)))
        while nextTick <= until {
            now = nextTick
            tick()
        }
        now = until
        let number = UInt64(random.below(6))
        switch random.below(12) {
        case 0: start(number)
        case 1: send(.runtimeReady, number)
        case 2: send(.initDone(recycledAt: end()), number)
        case 3, 4, 5: send(.requestStarted, number)
        case 6, 7, 8:
            measure(number)
            send(.requestEnded(recycledAt: end()), number)
        case 9:
            if random.chance(1, in: 4) { send(.stopped, number) }
        default: report()
        }
    }

    private mutating func end() -> Nanoseconds? {
        random.chance(1, in: 2) ? now + .seconds(Int64(2 + random.below(30))) : nil
    }

    private mutating func start(_ number: UInt64) {
        local[number] = .mib(UInt64(random.below(200)))
        send(.started(function: "f\(number % 2)"), number)
        measure(number)
    }

    private mutating func measure(_ number: UInt64) {
        refaults += UInt64(random.below(200))
        let amount = local[number] ?? .zero
        send(
            .measured(
                ContainerMeasure(local: amount, far: .zero, anonymous: amount, refaults: refaults)),
            number)
    }

    private mutating func report() {
        guard !pending.isEmpty else { return }
        let decision = pending.removeFirst()
        let number = decision.container.number
        var report = ActionReport(action: decision.action)
        switch decision.action {
        case .examine(_, let grant), .reclaim(let grant): report.written = grant
        case .drain(let grant):
            report.written = grant
            local[number] = (local[number] ?? .zero) - grant
            report.isExhausted = random.chance(1, in: 10)
        case .release:
            report.released = PageCount(UInt64(random.below(5000)))
            report.hot = PageCount(UInt64(random.below(5000)))
        case .snapshot, .halt, .recall, .forget, .pullBack, .startColdPageout, .stopColdPageout:
            return
        }
        let amount = local[number] ?? .zero
        report.measure = ContainerMeasure(
            local: amount, far: .zero, anonymous: amount, refaults: refaults)
        send(.reported(report), number)
    }

    private mutating func send(_ event: ContainerEvent, _ number: UInt64) {
        var first: [Decision] = []
        var second: [Decision] = []
        dense.handle(event, of: ContainerHandle(number), at: now, into: &first)
        sparse.handle(event, of: ContainerHandle(number), at: now, into: &second)
        compare(first, second, "\(event)")
        foretell(event == .requestStarted ? nil : ContainerHandle(number))
    }

    private mutating func tick() {
        nextTick = now + Self.interval
        ticks += 1
        var first: [Decision] = []
        var second: [Decision] = []
        dense.tick(host: host, at: now, into: &first)
        let due = sparse.containers.keys.sorted().filter {
            foretold[$0].map { $0 <= now } ?? false
        }
        if !due.isEmpty || ticks == 1 {
            ticksTaken += 1
            sparse.tick(host: host, serving: due, at: now, into: &second)
        }
        drains += first.count
        compare(first, second, "tick")
        foretell()
        // Mostly the engine is done before the next tick.
        while !pending.isEmpty, random.chance(7, in: 8) { report() }
    }

    /// Asks again for the container, and for all when the function's delay may have changed.
    private mutating func foretell(_ id: ContainerHandle? = nil) {
        for id in id.map({ [$0] }) ?? Array(sparse.containers.keys) {
            foretold[id] = sparse.nextWake(of: id, at: now)
        }
    }

    private mutating func compare(_ first: [Decision], _ second: [Decision], _ what: String) {
        if first != second, fault == nil {
            fault = "at \(now), \(what): \(first) but sparse \(second)"
        }
        pending += first
    }
}

@Suite struct SparseTickTests {
    @Test(arguments: TestSeed.several(20, first: 1, filter: "SparseTickTests"))
    func ticksThatAreLeftOutChangeNoDecision(seed: TestSeed) {
        var machines = TwoMachines(seed)
        for _ in 0..<1000 { machines.step() }
        #expect(machines.fault == nil, "\(seed): \(machines.fault ?? "")")
        #expect(machines.drains > 20, "\(seed): nothing drained")
        #expect(machines.ticksTaken * 2 < machines.ticks, "\(seed): hardly a tick was left out")
    }

    @Test func aGivenDelayIsNotLearned() {
        var settings = PolicySettings()
        settings.semiWarmDelays = ["f": .seconds(77)]
        settings.reuseSamplesMinimum = 1
        var machine = PolicyMachine(settings: settings, at: .zero)
        var decisions: [Decision] = []
        let id = ContainerHandle(1)
        for event in [
            ContainerEvent.started(function: "f"), .runtimeReady, .initDone(recycledAt: nil),
            .requestStarted, .requestEnded(recycledAt: nil), .requestStarted,
        ] {
            machine.handle(event, of: id, at: .seconds(5), into: &decisions)
        }
        #expect(machine.semiWarmDelay(of: "f") == (.seconds(77), "given"))
        #expect(machine.semiWarmDelay(of: "g") == (.seconds(10), "prior"))
    }

    @Test func whoWentAwayEmptyHandedIsServedFirst() {
        var settings = PolicySettings()
        settings.bandwidth = .mib(10)
        settings.burst = .mib(1)
        settings.semiWarmPrior = .seconds(1)
        var machine = PolicyMachine(settings: settings, at: .zero)
        let measure = ContainerMeasure(
            local: .mib(400), far: .zero, anonymous: .mib(400), refaults: 0)
        var ignored: [Decision] = []
        for number in 1...3 {
            for event in [
                ContainerEvent.started(function: "f"), .runtimeReady, .measured(measure),
                .initDone(recycledAt: nil),
            ] {
                machine.handle(
                    event, of: ContainerHandle(UInt64(number)), at: .zero, into: &ignored)
            }
        }
        var served: [UInt64] = []
        for tick in 1...40 {
            var decisions: [Decision] = []
            machine.tick(
                host: HostMeasure(pressurePermille: 0, farFree: .gib(8)),
                at: .milliseconds(Int64(tick * 100)), into: &decisions)
            for decision in decisions {
                served.append(decision.container.number)
                guard case .drain(let grant) = decision.action else { continue }
                var report = ActionReport(action: decision.action)
                report.written = grant
                machine.handle(
                    .reported(report), of: decision.container, at: .milliseconds(Int64(tick * 100)),
                    into: &ignored)
            }
        }
        let counts = (1...3).map { number in served.filter { $0 == number }.count }
        #expect((counts.max() ?? 0) - (counts.min() ?? 0) <= 1 && served.count >= 40, "\(counts)")
    }
}
