import CommandLineKit
import FarMemory
import OffloadEngine
import OffloadPolicy

/// `functions:` of the configuration file: what differs from the settings of all, by the function's name.
let functionsSection = ConfigurationSection(
    "functions", placeholder: "PATTERN",
    options: [
        Option("offload", .flag, help: "False: containers of it are left alone."),
        Option(
            "request-window", .integer(0...1000), help: "Requests in a window; 0 grows by itself."),
        Option("semi-warm-delay", .duration, help: "Drained when idle this long; 0s is learned."),
        Option("floor", .size, help: "Local memory that its containers keep."),
    ],
    help: "Settings of functions whose name matches a pattern; later patterns win.")

/// The rules that a configuration file has, in its order.
func functionRules(_ invocation: Invocation) -> [FunctionRule] {
    invocation.section(functionsSection.name).map { item in
        var settings = ContainerSettings()
        for (name, value) in item.values {
            switch (name, value) {
            case ("offload", .flag(let offloads)): settings.offloads = offloads
            case ("request-window", .integer(let window)): settings.requestWindow = UInt32(window)
            case ("semi-warm-delay", .duration(let delay)): settings.semiWarmDelay = delay
            case ("floor", .size(let floor)): settings.floor = floor
            default: preconditionFailure("functions: has no option \(name) of this kind")
            }
        }
        return FunctionRule(pattern: item.name, settings: settings)
    }
}
