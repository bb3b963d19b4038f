// CommandLineKit: commands as values.
//
// Purpose: one table per command gives the parser, `--help`, `--help=json`, `--print-config`, the configuration file's
// keys and the FARMEM_ variables. Thread model: everything here runs on the main thread before work starts; the values
// are Sendable. Invariants: no value is clamped or guessed; an unknown name is an error with the nearest valid one.
// Must not import: Foundation.

/// One option of a command.
package struct Option: Sendable {
    /// Without dashes: `capacity`. In a configuration file a dash may also be written as nesting: `pool-dir` is `pool: {dir: …}`.
    package let name: String
    package let kind: ValueKind
    /// Parsed like any other text; shown in help. nil: no value unless given.
    package let defaultText: String?
    package let isRequired: Bool
    /// May be given more than once; values add up within one source, and a stronger source replaces them all.
    package let isRepeatable: Bool
    /// Overrides the derived variable, which is `FARMEM_<PROGRAM>_<NAME>`.
    package let environment: String?
    /// Whether a configuration file and the environment may set it.
    package let isConfigurable: Bool
    /// Not shown in help.
    package let isHidden: Bool
    package let placeholder: String
    package let help: String

    package init(
        _ name: String, _ kind: ValueKind, default defaultText: String? = nil,
        required: Bool = false,
        repeatable: Bool = false, environment: String? = nil, configurable: Bool = true,
        hidden: Bool = false, placeholder: String? = nil, help: String
    ) {
        precondition(defaultText == nil || !required, "--\(name) is required and has a default")
        self.name = name
        self.kind = kind
        self.defaultText = defaultText
        isRequired = required
        isRepeatable = repeatable
        self.environment = environment
        isConfigurable = configurable
        isHidden = hidden
        self.placeholder = placeholder ?? kind.placeholder
        self.help = help
    }
}

extension Option {
    /// `--json`: the report as JSON with a `schema` number.
    package static let json = Option(
        "json", .flag, configurable: false, help: "Print the report as JSON on one line.")

    /// What every daemon takes; `Invocation.readiness()` and `.logLevel` read them.
    package static let daemon: [Option] = [
        Option(
            "ready-fd", .integer(0...1_048_575), configurable: false, placeholder: "FD",
            help: "Write READY=1 and a newline to this descriptor when ready, and close it."),
        logLevel,
    ]

    package static let logLevel = Option(
        "log-level", .choice(["error", "warn", "info", "debug"]), default: "info",
        environment: "FARMEM_LOG_LEVEL", help: "How much to log on standard error.")
}

/// One argument without a name.
package struct Positional: Sendable {
    package let name: String
    package let help: String
    package let isRequired: Bool
    /// Takes all that remain; only the last one may.
    package let isRepeatable: Bool

    package init(_ name: String, required: Bool = true, repeatable: Bool = false, help: String) {
        self.name = name
        self.help = help
        isRequired = required
        isRepeatable = repeatable
    }
}

/// One command, or a group of subcommands.
package struct Command: Sendable {
    package let name: String
    /// One line without a full stop.
    package let summary: String
    /// Paragraphs for DESCRIPTION, separated by empty lines.
    package let discussion: String
    /// Valid here and, for a group, in all of its subcommands.
    package let options: [Option]
    /// Parts of the configuration file beside the options.
    package let sections: [ConfigurationSection]
    package let positionals: [Positional]
    /// Whole command lines with what they do.
    package let examples: [(command: String, meaning: String)]
    package let subcommands: [Command]
    /// Not shown in help.
    package let isHidden: Bool
    /// Whether `--config FILE` and `--print-config` exist.
    package let isConfigurable: Bool
    /// Does the work. A thrown `UsageError` or `CommandFailure` becomes one line and its exit status.
    package let run: (@Sendable (Invocation) throws -> ExitStatus)?

    package init(
        name: String, summary: String, discussion: String = "", options: [Option] = [],
        sections: [ConfigurationSection] = [],
        positionals: [Positional] = [], examples: [(command: String, meaning: String)] = [],
        subcommands: [Command] = [], hidden: Bool = false, configurable: Bool = true,
        run: (@Sendable (Invocation) throws -> ExitStatus)? = nil
    ) {
        precondition(
            subcommands.isEmpty != (run == nil),
            "'\(name)' needs either subcommands or a run closure")
        precondition(
            positionals.dropLast().allSatisfy { !$0.isRepeatable },
            "only the last positional of '\(name)' may repeat")
        self.name = name
        self.summary = summary
        self.discussion = discussion
        self.options = options
        self.sections = sections
        self.positionals = positionals
        self.examples = examples
        self.subcommands = subcommands
        isHidden = hidden
        isConfigurable = configurable && subcommands.isEmpty
        self.run = run
    }

    /// The options that every command has, in the order of help.
    static func standardOptions(configurable: Bool) -> [Option] {
        let configuration = [
            Option(
                "config", .string, configurable: false, placeholder: "FILE",
                help: "Read options from this YAML file; flags and variables win over it."),
            Option(
                "print-config", .flag, configurable: false,
                help: "Print every option's value and where it comes from, and exit."),
        ]
        return (configurable ? configuration : []) + [
            Option(
                "help", .flag, configurable: false,
                help: "Print this page and exit; --help=json prints it as JSON."),
            Option("version", .flag, configurable: false, help: "Print the version and exit."),
        ]
    }
}
