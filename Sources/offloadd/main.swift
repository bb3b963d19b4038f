// offloadd: moves cold pages of containers to far memory. Wiring only: options, signals, API, controller.

import CommandLineKit

let checkCommand = Command(
    name: "check-config", summary: "check a configuration file for `offloadd run`",
    positionals: [Positional("file", help: "The YAML file.")], configurable: false
) { invocation in
    let file = invocation.positional("file")
    let set = try Program(Command(name: "offloadd", summary: "", subcommands: [runCommand]))
        .checkConfiguration(file: file, for: ["run"])
    for option in set where option.name == "discover" {
        for value in option.values {
            do {
                _ = try DiscoverySource(value.text)
            } catch let error as UsageError {
                throw UsageError(
                    "\(option.origin): \(error.message)", isFromConfiguration: true)
            }
        }
    }
    printOut("\(file): ok, \(set.count) options set\n")
    return .done
}

Program(
    Command(
        name: "offloadd", summary: "move cold pages of containers to far memory",
        subcommands: [runCommand, checkCommand])
).main()
