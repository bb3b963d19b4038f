import FarMemory
import OffloadPolicy
import Testing

@testable import OffloadEngine

@Suite struct FunctionRuleTests {
    @Test func labelsComeFirstThenTheLastRuleThatMatches() {
        func rule(_ pattern: String, _ floor: UInt64, offloads: Bool? = nil) -> FunctionRule {
            var settings = ContainerSettings()
            settings.floor = .mib(floor)
            settings.offloads = offloads
            return FunctionRule(pattern: pattern, settings: settings)
        }
        var engine = EngineSettings()
        engine.functionRules = [rule("*", 1), rule("web-*", 2), rule("web-x", 3, offloads: false)]
        let none = ContainerSettings()
        #expect(engine.containerSettings(none, of: "db").floor == .mib(1))
        #expect(engine.containerSettings(none, of: "web-1").floor == .mib(2))
        #expect(engine.containerSettings(none, of: "web-x").floor == .mib(3))
        var label = ContainerSettings()
        label.floor = .mib(9)
        label.offloads = true
        #expect(engine.containerSettings(label, of: "web-x").floor == .mib(9))
        #expect(engine.containerSettings(label, of: "web-x").offloads == false)
        #expect(EngineSettings().containerSettings(label, of: "web-x") == label)
    }
}
