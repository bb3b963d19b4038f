import FarMemory
import TestSupport
import Testing

@testable import OffloadPolicy

/// A host whose messages are lost, doubled and late, in both directions, and that checks each decision against what the machine
/// had been told.
struct Chaos {
    var random: SeededRandom
    var policy: PolicyMachine
    let settings: PolicySettings
    var now = Nanoseconds.seconds(1)
    var host = HostMeasure(pressurePermille: 0, farFree: .gib(1))
    /// Messages on their way.
    var late: [(event: ContainerEvent, number: UInt64)] = []
    var open: [UInt64: [Action]] = [:]
    var inMaintenance = false
    var faults: [String] = []
    var drained: Set<UInt64> = []
    var grants = 0
    var record: [String] = []

    init(_ seed: TestSeed, _ kind: PolicyKind) {
        random = seed.random
        var settings = PolicySettings(kind)
        settings.semiWarmPrior = .seconds(2)
        if settings.semiWarmDelay != nil { settings.semiWarmDelay = .seconds(3) }
        if settings.drainStep > .zero { settings.drainStep = .seconds(1) }
        settings.rollbackInterval = .seconds(2)
        settings.bandwidth = .mib(UInt64(4 + random.below(64)))
        settings.burst = .mib(UInt64(1 + random.below(64)))
        settings.requestPatience = .seconds(120)
        self.settings = settings
        policy = PolicyMachine(settings: settings, at: now)
    }

    mutating func step() {
        now += .milliseconds(Int64(random.below(250)))
        let number = UInt64(random.below(8))
        let end = random.chance(1, in: 2) ? now + .seconds(Int64(random.below(40))) : nil
        switch random.below(16) {
        case 0: post(.started(function: "f\(number % 3)"), number)
        case 1: post(random.chance(3, in: 4) ? .runtimeReady : .configured(own()), number)
        case 2: post(.initDone(recycledAt: end), number)
        case 3, 4: post(.requestStarted, number)
        case 5, 6: post(.requestEnded(recycledAt: end), number)
        case 7: if random.chance(1, in: 10) { post(.stopped, number) }
        case 8, 9: post(.measured(measure()), number)
        case 10: if random.chance(1, in: inMaintenance ? 4 : 60) { maintain(!inMaintenance) }
        case 11: changeHost()
        case 12: deliver()
        default: tick()
        }
    }

    private mutating func own() -> ContainerSettings {
        var own = ContainerSettings()
        if random.chance(1, in: 2) { own.floor = .mib(UInt64(random.below(40))) }
        if random.chance(1, in: 2) { own.semiWarmDelay = .seconds(Int64(random.below(5))) }
        if random.chance(1, in: 2) { own.requestWindow = UInt32(random.below(5)) }
        return own
    }

    /// Lost, doubled, held back, or delivered.
    private mutating func post(_ event: ContainerEvent, _ number: UInt64) {
        switch random.below(12) {
        case 0: break
        case 1:
            send(event, number)
            send(event, number)
        case 2, 3: late.append((event, number))
        default: send(event, number)
        }
    }

    private mutating func deliver() {
        guard !late.isEmpty else { return }
        let message = late.remove(at: random.below(late.count))
        send(message.event, message.number)
    }

    private mutating func measure() -> ContainerMeasure {
        let local = ByteCount.mib(UInt64(random.below(300)))
        var measure = ContainerMeasure(
            local: local, far: random.chance(1, in: 5) ? nil : .mib(10), anonymous: local,
            refaults: random.chance(1, in: 5) ? nil : UInt64(random.below(4000)))
        measure.pressureMillionths = random.chance(1, in: 3) ? nil : UInt64(random.below(2000))
        return measure
    }

    private mutating func changeHost() {
        host = HostMeasure(pressurePermille: 0, farFree: .gib(1))
        if random.chance(1, in: 3) { return }
        host.farFree = random.chance(1, in: 3) ? nil : .mib(UInt64(random.below(200)))
        host.pressurePermille = random.chance(1, in: 4) ? nil : UInt64(random.below(300))
        host.farIsConnected = random.chance(1, in: 3) ? nil : random.chance(2, in: 3)
    }

    private mutating func maintain(_ isOn: Bool) {
        inMaintenance = isOn
        var decisions: [Decision] = []
        policy.setMaintenance(isOn, at: now, into: &decisions)
        note(.maintenance(isOn, at: now), decisions)
        take(decisions, "maintenance")
    }

    mutating func tick() {
        var decisions: [Decision] = []
        policy.tick(host: host, at: now, into: &decisions)
        note(.tick(host, at: now), decisions)
        take(decisions, "tick")
    }

    mutating func send(_ event: ContainerEvent, _ number: UInt64) {
        let id = ContainerHandle(number)
        let before = policy.containers[id]
        var decisions: [Decision] = []
        policy.handle(event, of: id, at: now, into: &decisions)
        note(.event(event, id, at: now), decisions)
        if case .requestStarted = event, let before, before.running == 0 {
            checkWakeUp(before, decisions)
        }
        if case .stopped = event { open[number] = nil }
        take(decisions, "\(event)")
    }

    private mutating func note(_ line: PolicyRecordLine, _ decisions: [Decision]) {
        record.append(line.text)
        record += decisions.map { PolicyRecordLine($0).text }
    }

    /// A request stops what is under way, and before anything is read back.
    private mutating func checkWakeUp(_ before: ContainerRecord, _ decisions: [Decision]) {
        let words = decisions.map(\.action.word)
        if before.isBusyMoving && settings.kind != .tmo && words.first != "halt" {
            faults.append("at \(now): a request did not halt \(before.pending)")
        }
        let wasDrained = before.phase == .drained || before.phase == .semiWarm
        if let recall = words.firstIndex(of: "recall"), wasDrained {
            if words.firstIndex(of: "halt").map({ $0 > recall }) ?? true {
                faults.append("at \(now): recall without halt: \(words)")
            }
        }
    }

    private mutating func take(_ decisions: [Decision], _ what: String) {
        for decision in decisions {
            let number = decision.container.number
            switch decision.action {
            case .drain(let grant), .reclaim(let grant):
                checkWrite(decision, grant, what)
                checkIdle(decision, grant, what)
                drained.insert(number)
                open[number, default: []].append(decision.action)
            case .examine(_, let grant):
                checkWrite(decision, grant, what)
                open[number, default: []].append(decision.action)
            case .release: open[number, default: []].append(decision.action)
            case .forget: open[number] = nil
            default: break
            }
        }
        if policy.containers.count > 8 { faults.append("containers out of nothing") }
        let issued = policy.containers.records.flatMap(\.pending).reduce(UInt64(0)) {
            switch $1 {
            case .examine(_, let grant), .drain(let grant), .reclaim(let grant): $0 + grant.bytes
            default: $0
            }
        }
        if issued != policy.budget.underWay {
            faults.append("at \(now), \(what): \(issued) issued, \(policy.budget.underWay) booked")
        }
        maybeReport()
    }

    private mutating func checkWrite(_ decision: Decision, _ grant: ByteCount, _ what: String) {
        grants += 1
        let text = "at \(now), \(what): \(decision)"
        if grant == .zero || grant.bytes % UInt64(pageBytes) != 0 {
            faults.append("grant: \(text)")
        }
        if inMaintenance { faults.append("wrote in maintenance: \(text)") }
        if policy.host.farFree == nil { faults.append("wrote into the unknown: \(text)") }
        if policy.host.farIsConnected == false { faults.append("wrote without a link: \(text)") }
        if let free = policy.host.farFree, free <= settings.farReserve {
            faults.append("wrote into the reserve: \(text)")
        }
        if settings.guardsPressure && policy.host.pressurePermille == nil {
            faults.append("wrote under unknown pressure: \(text)")
        }
        guard let record = policy.containers[decision.container] else {
            faults.append("wrote of nobody: \(text)")
            return
        }
        if let end = record.recycledAt, end - now <= settings.recycleGuard, now - end < .seconds(60)
        {
            faults.append("wrote before recycling: \(text)")
        }
        if let rest = record.backOffUntil, now < rest { faults.append("did not rest: \(text)") }
    }

    private mutating func checkIdle(_ decision: Decision, _ grant: ByteCount, _ what: String) {
        guard settings.kind != .tmo, let record = policy.containers[decision.container] else {
            return
        }
        let text = "at \(now), \(what): \(decision)"
        if record.running > 0 { faults.append("drained during a request: \(text)") }
        if let local = record.measure?.local, settings.kind != .idleShrink,
            local - grant < min(policy.floor(of: record), local)
        {
            faults.append("below the floor: \(text)")
        }
        if record.pending.count > 1 { faults.append("two at once: \(text)") }
    }

    /// A report in time, late, twice, or never.
    private mutating func maybeReport() {
        guard random.chance(2, in: 3),
            let number = open.keys.sorted().first(where: {
                open[$0]?.isEmpty == false
            }), let action = open[number]?.removeFirst()
        else { return }
        var report = ActionReport(action: action)
        report.wasHalted = random.chance(1, in: 5)
        report.measure = random.chance(1, in: 2) ? measure() : nil
        switch action {
        case .examine(_, let grant), .drain(let grant), .reclaim(let grant):
            report.written = ByteCount(UInt64(random.below(Int(grant.bytes) + 1)))
            report.isExhausted = random.chance(1, in: 10)
        default:
            report.released = PageCount(UInt64(random.below(5000)))
            report.hot = PageCount(UInt64(random.below(5000)))
        }
        post(.reported(report), number)
    }

    /// From now on all is well: whoever lives ends its requests and is asked for nothing any more.
    mutating func calmDown() {
        late = []
        if inMaintenance { maintain(false) }
        host = HostMeasure(pressurePermille: 0, farFree: .gib(64))
        drained = []
        for number in 0..<8 as Range<UInt64> {
            send(.initDone(recycledAt: nil), number)
            let size = ByteCount.mib(100)
            var measure = ContainerMeasure(local: size, far: .zero, anonymous: size, refaults: 0)
            measure.pressureMillionths = 0
            send(.measured(measure), number)
        }
        // Longer than the patience for reports, ends of requests and recycling, and the longest rest.
        for _ in 0..<1800 {
            now += .milliseconds(500)
            tick()
        }
    }
}

@Suite struct ChaosTests {
    @Test(
        arguments: TestSeed.several(24, first: 1, filter: "ChaosTests"),
        [PolicyKind.farmem, .faasmem, .tmo, .idleShrink, .damon, .none])
    func lostDoubledAndLateMessagesBreakNoLaw(seed: TestSeed, kind: PolicyKind) {
        var chaos = Chaos(seed, kind)
        for _ in 0..<2000 { chaos.step() }
        #expect(chaos.faults.isEmpty, "\(kind), \(seed): \(chaos.faults.first ?? "")")
        let moves = kind != .none && kind != .damon
        #expect((chaos.grants > 0) == moves, "\(kind), \(seed): \(chaos.grants) grants")
    }

    @Test(
        arguments: TestSeed.several(12, first: 50, filter: "ChaosTests"),
        [PolicyKind.farmem, .faasmem, .tmo, .idleShrink])
    func whoIsIdleForLongEnoughIsDrained(seed: TestSeed, kind: PolicyKind) {
        var chaos = Chaos(seed, kind)
        for _ in 0..<1500 { chaos.step() }
        let before = Set(chaos.policy.containers.keys.map(\.number))
        let drainedAlready = Set(
            chaos.policy.containers.keys.filter {
                let phase = chaos.policy.containers[$0]?.phase
                // One that shrinks was asked for all of it already.
                return phase == .drained || (kind == .idleShrink && phase == .semiWarm)
            }.map(\.number))
        chaos.calmDown()
        let missing = before.subtracting(chaos.drained).subtracting(drainedAlready)
        #expect(missing.isEmpty, "\(kind), \(seed): never drained \(missing)")
        #expect(chaos.faults.isEmpty, "\(kind), \(seed): \(chaos.faults.first ?? "")")
    }

    @Test(arguments: TestSeed.several(24, first: 1, filter: "ChaosTests"))
    func theBudgetIsWholeAgainWhenAllIsOver(seed: TestSeed) {
        var chaos = Chaos(seed, .farmem)
        for _ in 0..<1500 { chaos.step() }
        for number in 0..<8 as Range<UInt64> { chaos.send(.stopped, number) }
        #expect(chaos.policy.containers.isEmpty)
        let whole = min(chaos.settings.bandwidth, chaos.settings.burst)
        #expect(
            chaos.policy.budget.available(at: chaos.now + .milliseconds(1016)) == whole, "\(seed)")
    }
}
