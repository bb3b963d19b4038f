import FarMemory
import TestSupport
import Testing

@testable import OffloadPolicy

private func record(_ seed: TestSeed, _ kind: PolicyKind, steps: Int = 1500) -> [String] {
    var chaos = Chaos(seed, kind)
    for _ in 0..<steps { chaos.step() }
    return [PolicyReplay.title, "settings \(chaos.settings.recordText)"] + chaos.record
}

private func fault(_ lines: [String]) -> PolicyReplay.Fault? {
    var replay = PolicyReplay()
    for line in lines where !replay.take(line) { return replay.fault }
    _ = replay.end()
    return replay.fault
}

@Suite struct PolicyRecordTests {
    @Test(
        arguments: TestSeed.several(6, first: 1, filter: "PolicyRecordTests"),
        PolicyKind.allCases)
    func theSameEventsGiveTheSameActions(seed: TestSeed, kind: PolicyKind) {
        let lines = record(seed, kind)
        #expect(fault(lines) == nil, "\(kind), \(seed)")
        #expect(lines.contains { $0.hasPrefix("decision ") })
    }

    @Test(arguments: TestSeed.several(4, first: 1, filter: "PolicyRecordTests"))
    func linesAreReadBackAsTheyWere(seed: TestSeed) {
        for text in record(seed, .farmem).dropFirst(2) {
            #expect(PolicyRecordLine(text)?.text == text, "\(seed)")
        }
    }

    @Test func whateverIsChangedIsFound() throws {
        let lines = record(TestSeed(7, filter: "PolicyRecordTests"), .farmem)
        let decision = try #require(lines.lastIndex { $0.contains(" drain:") })
        var other = lines
        other[decision] = lines[decision].replacing(" drain:", with: " reclaim:")
        #expect(fault(other)?.line == decision + 1)
        var missing = lines
        missing.remove(at: decision)
        #expect(fault(missing) != nil)
        var doubled = lines
        doubled.insert(lines[decision], at: decision)
        #expect(fault(doubled)?.line == decision + 2)
        var settings = lines
        settings[1] = lines[1].replacing("semi-warm=1", with: "semi-warm=0")
        #expect(fault(settings) != nil)
        #expect(fault(Array(lines[...decision].dropLast())) != nil, "cut off before a decision")
    }

    @Test func whatIsNoRecordIsNamed() {
        #expect(fault(["hello"])?.line == 1)
        #expect(fault([])?.text == "the record ends before its settings")
        #expect(
            fault([PolicyReplay.title, "settings policy=fast"])?.text.contains("policy=fast")
                == true)
        #expect(fault([PolicyReplay.title, "settings nonsense=1"])?.line == 2)
        let start = [PolicyReplay.title, "settings policy=farmem"]
        for line in [
            "event", "event x 1 stopped", "event 1 1 jumped", "tick", "tick 1 a", "", "decision 1",
        ] {
            #expect(fault(start + [line])?.line == 3, "\(line)")
        }
    }

    @Test func namesSurvive() {
        for name in ["web", "a b=c", "käse%", "x:y,z", "\n", ""] {
            #expect(plainName(escapedName(name)) == name)
            #expect(!escapedName(name).contains { " =,\n".contains($0) })
        }
    }

    @Test func everySettingIsInTheRecord() {
        for kind in PolicyKind.allCases {
            let settings = PolicySettings(kind)
            #expect(PolicySettings.parse(record: settings.recordText).settings == settings)
        }
        var odd = PolicySettings()
        odd.requestWindow = 7
        odd.requestWindows = ["a b": 3, "c:d": 4]
        odd.semiWarmDelays = ["e,f": .seconds(3)]
        odd.semiWarmDelay = .milliseconds(1)
        odd.requestPatience = nil
        odd.latencyPermille = 7
        odd.farLatencyMaximum = .microseconds(3)
        odd.drainRate = .bytesPerSecond(.mib(3))
        odd.senpai.ratioMillionths = 1
        odd.coldRegions.age = .seconds(1)
        #expect(PolicySettings.parse(record: odd.recordText).settings == odd)
        // A knob that is added and not recorded makes replays differ.
        let knobs = Mirror(reflecting: PolicySettings()).children.count
        #expect(knobs == 41, "\(knobs): add the knob to PolicySettingsText.swift, then here")
    }
}
