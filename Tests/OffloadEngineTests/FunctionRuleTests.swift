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
        let rules = [rule("*", 1), rule("web-*", 2), rule("web-x", 3, offloads: false)]
        let none = ContainerSettings()
        #expect(rules.containerSettings(none, of: "db").floor == .mib(1))
        #expect(rules.containerSettings(none, of: "web-1").floor == .mib(2))
        #expect(rules.containerSettings(none, of: "web-x").floor == .mib(3))
        var label = ContainerSettings()
        label.floor = .mib(9)
        label.offloads = true
        #expect(rules.containerSettings(label, of: "web-x").floor == .mib(9))
        #expect(rules.containerSettings(label, of: "web-x").offloads == false)
        #expect([FunctionRule]().containerSettings(label, of: "web-x") == label)
    }
}
