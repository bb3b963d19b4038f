import Glibc
package import OffloadPolicy

/// Settings of the functions whose name matches a pattern (fnmatch).
package struct FunctionRule: Equatable, Sendable {
    package var pattern: String
    package var settings: ContainerSettings

    package init(pattern: String, settings: ContainerSettings) {
        self.pattern = pattern
        self.settings = settings
    }

    func matches(_ function: String) -> Bool { unsafe fnmatch(pattern, function, 0) == 0 }
}

extension [FunctionRule] {
    /// What holds for a container of a function: its own settings, then the rules that match, the last of them first.
    package func containerSettings(
        _ own: ContainerSettings, of function: String
    ) -> ContainerSettings {
        var merged = own
        for rule in reversed() where rule.matches(function) {
            merged = merged.over(rule.settings)
        }
        return merged
    }
}
