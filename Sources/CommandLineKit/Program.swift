import Glibc
import JSONText
import LinuxSystem

/// A program: its command table, and how it is run from `main.swift`:
///
///     Program(root).main()
package struct Program: Sendable {
    package let root: Command
    package let version: String

    /// `version` is what `--version` prints after the program's name.
    package init(_ root: Command, version: String = ProductVersion.text) {
        self.root = root
        self.version = version
    }

    /// What to do after the command line is understood.
    package enum Plan: Sendable {
        /// Print this on standard output and exit 0.
        case print(String)
        case run(Command, Invocation)
    }

    /// Parses the process's own arguments, runs the command, and exits with its status.
    package func main() -> Never {
        exit(run(arguments: Array(CommandLine.arguments.dropFirst())).rawValue)
    }

    /// Runs with these arguments; errors become one line on standard error.
    package func run(
        arguments: [String], environment: [String: String] = ProcessEnvironment.all
    ) -> ExitStatus {
        do {
            switch try plan(arguments: arguments, environment: environment) {
            case .print(let text):
                printOut(text)
                return .done
            case .run(let command, let invocation):
                return try command.run?(invocation) ?? .bug
            }
        } catch let error as UsageError {
            return fail(error.exitStatus, error.message)
        } catch let error as CommandFailure {
            return fail(error.status, error.message)
        } catch let error as SystemError {
            return fail(ExitStatus(error), "\(error)")
        } catch {
            return fail(.bug, "\(error)")
        }
    }

    private func fail(_ status: ExitStatus, _ message: String) -> ExitStatus {
        printError("\(root.name): \(message)")
        return status
    }

    /// Understands a command line without running it.
    package func plan(
        arguments: [String], environment: [String: String]
    ) throws(UsageError) -> Plan {
        let parsed = try ArgumentParser.parse(arguments, root: root)
        if let form = parsed.given["help"]?.first { return .print(try help(parsed, form: form)) }
        if parsed.given["version"] != nil { return .print("\(root.name) \(version)\n") }
        guard parsed.command.subcommands.isEmpty else {
            let names = parsed.command.subcommands.filter { !$0.isHidden }.map(\.name)
            throw UsageError("a command is missing; give one of \(names.joined(separator: ", "))")
        }
        try checkVariables(environment)
        let resolver = Resolver(
            program: root.name, options: parsed.options, environment: environment)
        var file: (path: String, configuration: YAMLConfiguration)?
        var items: [SectionItem] = []
        if let path = parsed.given["config"]?.first {
            let whole = try Self.readConfiguration(path)
            let (rest, found) = try whole.split(parsed.command.sections, path: path)
            file = (path, rest)
            items = found
        }
        let resolved = try resolver.resolve(given: parsed.given, file: file)
        if resolved["print-config"]?.values == [.flag(true)] {
            return .print(
                ConfigurationReport(
                    options: parsed.options, resolved: resolved, items: items
                ).text())
        }
        try checkComplete(parsed, resolved)
        return .run(
            parsed.command,
            Invocation(
                program: root.name, path: parsed.path.map(\.name), positionals: parsed.positionals,
                resolved: resolved, positionalNames: parsed.command.positionals, items: items))
    }

    /// Checks a configuration file against the command at `path` below the root (`["run"]`) and returns what it sets.
    /// For commands like `check-config`.
    package func checkConfiguration(
        file: String, for path: [String], environment: [String: String] = [:]
    ) throws(UsageError) -> [ResolvedOption] {
        let parsed = try ArgumentParser.parse(path, root: root)
        let resolver = Resolver(
            program: root.name, options: parsed.options, environment: environment)
        let (configuration, _) = try Self.readConfiguration(file)
            .split(parsed.command.sections, path: file)
        let resolved = try resolver.resolve(given: [:], file: (file, configuration))
        return resolved.values.sorted { $0.name < $1.name }.filter { $0.origin != .builtIn }
    }

    private func help(_ parsed: ParsedArguments, form: String) throws(UsageError) -> String {
        let page = HelpPage(path: parsed.path, options: parsed.options, program: root.name)
        switch form {
        case "true": return page.text()
        case "json": return page.json().rendered(pretty: true)
        default: throw UsageError("--help=\(form) is unknown; use --help or --help=json")
        }
    }

    private func checkComplete(
        _ parsed: ParsedArguments, _ resolved: [String: ResolvedOption]
    ) throws(UsageError) {
        for option in parsed.options where option.isRequired {
            guard resolved[option.name]?.values.isEmpty == false else {
                throw UsageError("--\(option.name) \(option.placeholder) is missing; see --help")
            }
        }
        let declared = parsed.command.positionals
        let given = parsed.positionals.count
        if given < declared.count, declared[given].isRequired {
            throw UsageError("\(declared[given].name.uppercased()) is missing; see --help")
        }
        let takesMore = declared.last?.isRepeatable ?? false
        if given > declared.count, !takesMore {
            throw UsageError(
                "unexpected argument '\(parsed.positionals[declared.count])'; see --help")
        }
    }

    /// A variable with this program's prefix that no command of it knows is a typing error.
    private func checkVariables(_ environment: [String: String]) throws(UsageError) {
        guard root.name != "farmem" else { return }
        let prefix = Resolver.variable(
            for: Option("x", .flag, help: ""), program: root.name
        ).dropLast()
        let known = Self.allOptions(root).filter(\.isConfigurable).map {
            Resolver.variable(for: $0, program: root.name)
        }
        for name in environment.keys.sorted() where name.hasPrefix(prefix) && !known.contains(name)
        {
            let hint =
                nearestName(to: name, among: known).map { "did you mean \($0)?" } ?? "unset it"
            throw UsageError("unknown variable \(name); \(hint)")
        }
    }

    private static func allOptions(_ command: Command) -> [Option] {
        command.options + command.subcommands.flatMap(allOptions)
    }

    private static func readConfiguration(_ path: String) throws(UsageError) -> YAMLConfiguration {
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try readSmallFile(path, limit: YAMLConfiguration.bytesMax)
        } catch {
            throw UsageError(
                "cannot read \(path): \(error.reason); check --config", isFromConfiguration: true)
        }
        do throws(UsageError) {
            return try YAMLConfiguration.parse(bytes)
        } catch {
            throw UsageError("\(path): \(error.message)", isFromConfiguration: true)
        }
    }
}

/// The version of all programs of this package.
package enum ProductVersion {
    package static let text = "0.1.0"
}

/// `--print-config`: a YAML file that would give the same values, with each origin as a comment.
struct ConfigurationReport {
    let options: [Option]
    let resolved: [String: ResolvedOption]
    let items: [SectionItem]

    func text() -> String {
        var lines: [(setting: String, origin: String)] = []
        for option in options where option.isConfigurable && !option.isHidden {
            guard let value = resolved[option.name] else { continue }
            if value.values.isEmpty {
                lines.append(("# \(option.name):", "unset"))
            } else if option.isRepeatable {
                let items = value.values.map { Self.quoted($0.text) }.joined(separator: ", ")
                lines.append(("\(option.name): [\(items)]", value.origin.description))
            } else {
                let text = Self.quoted(value.values[0].text)
                lines.append(("\(option.name): \(text)", value.origin.description))
            }
        }
        for item in items {
            let values = item.values.sorted { $0.key < $1.key }
                .map { "\($0.key): \(Self.quoted($0.value.text))" }.joined(separator: ", ")
            lines.append(
                (
                    "\(item.section).\(Self.quoted(item.name)): {\(values)}",
                    item.origin.description
                ))
        }
        let column = (lines.map(\.setting.count).max() ?? 0) + 2
        return lines.map { $0.setting.padded(to: column) + "# \($0.origin)\n" }.joined()
    }

    /// Plain where YAML surely reads the same text back, else double-quoted.
    private static func quoted(_ text: String) -> String {
        let plain = text.utf8.allSatisfy {
            (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0)
                || "./_-%".utf8.contains($0)
        }
        if plain, !text.isEmpty, text.first != "-", text != "null" { return text }
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
