/// The command line taken apart, before units are parsed and other sources are consulted.
struct ParsedArguments {
    /// From the program down to the selected command.
    var path: [Command]
    /// Texts of each option given, by name.
    var given: [String: [String]] = [:]
    var positionals: [String] = []

    var command: Command { path[path.count - 1] }

    /// Every option valid for the selected command; inner declarations come first.
    var options: [Option] { ParsedArguments.options(of: path) }

    static func options(of path: [Command]) -> [Option] {
        path.reversed().flatMap(\.options)
            + Command.standardOptions(configurable: path.last?.isConfigurable ?? false)
    }
}

/// Splits arguments by the tables of `root`; knows nothing of units, files and variables.
struct ArgumentParser {
    private var parsed: ParsedArguments
    private var arguments: ArraySlice<String>

    static func parse(_ arguments: [String], root: Command) throws(UsageError) -> ParsedArguments {
        var parser = ArgumentParser(root: root, arguments: arguments)
        try parser.run()
        return parser.parsed
    }

    private init(root: Command, arguments: [String]) {
        parsed = ParsedArguments(path: [root])
        self.arguments = arguments[...]
    }

    private mutating func run() throws(UsageError) {
        var optionsEnded = false
        while let argument = arguments.popFirst() {
            if !optionsEnded, argument == "--" {
                optionsEnded = true
            } else if !optionsEnded, argument.hasPrefix("--") {
                try takeLong(String(argument.dropFirst(2)))
            } else if !optionsEnded, argument.hasPrefix("-"), argument != "-" {
                try takeShort(argument)
            } else if !parsed.command.subcommands.isEmpty {
                try enterSubcommand(argument)
            } else {
                parsed.positionals.append(argument)
            }
        }
    }

    private mutating func takeShort(_ argument: String) throws(UsageError) {
        switch argument {
        case "-h": try record("help", "true")
        case "-v": try record("version", "true")
        default:
            throw UsageError("unknown option '\(argument)'; options are long, see --help")
        }
    }

    private mutating func takeLong(_ text: String) throws(UsageError) {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(parts[0])
        guard let option = parsed.options.first(where: { $0.name == name }) else {
            throw UsageError(unknownOption(name))
        }
        if parts.count == 2 {
            try record(name, String(parts[1]))
        } else if option.kind == .flag {
            try record(name, "true")
        } else if let value = arguments.popFirst() {
            try record(name, value)
        } else {
            throw UsageError("--\(name) needs a value: --\(name) \(option.placeholder)")
        }
    }

    private mutating func record(_ name: String, _ value: String) throws(UsageError) {
        let isRepeatable = parsed.options.first { $0.name == name }?.isRepeatable ?? false
        guard isRepeatable || parsed.given[name] == nil else {
            throw UsageError("--\(name) is given twice; give it once")
        }
        parsed.given[name, default: []].append(value)
    }

    private mutating func enterSubcommand(_ name: String) throws(UsageError) {
        let candidates = parsed.command.subcommands
        if let next = candidates.first(where: { $0.name == name }) {
            parsed.path.append(next)
            return
        }
        let visible = candidates.filter { !$0.isHidden }.map(\.name)
        let hint =
            nearestName(to: name, among: visible).map { "did you mean '\($0)'?" }
            ?? "commands are \(visible.joined(separator: ", "))"
        throw UsageError("unknown command '\(name)'; \(hint)")
    }

    private func unknownOption(_ name: String) -> String {
        let visible = parsed.options.filter { !$0.isHidden }.map(\.name)
        let hint =
            nearestName(to: name, among: visible).map { "did you mean --\($0)?" } ?? "see --help"
        return "unknown option --\(name); \(hint)"
    }
}
