/// Where an option's value comes from; later cases win over earlier ones.
package enum Origin: Sendable, Equatable, CustomStringConvertible {
    case builtIn
    case file(path: String, line: Int)
    case environment(variable: String)
    case commandLine

    package var description: String {
        switch self {
        case .builtIn: "default"
        case .file(let path, let line): "\(path):\(line)"
        case .environment(let variable): "variable \(variable)"
        case .commandLine: "command line"
        }
    }
}

/// An option with its values and their origin. No values: it is unset.
package struct ResolvedOption: Sendable, Equatable {
    package let name: String
    package let values: [OptionValue]
    package let origin: Origin
}

/// Merges default < file < environment < command line for one command. Pure.
struct Resolver {
    let program: String
    let options: [Option]
    let environment: [String: String]

    /// The variable that sets an option: `FARMEM_MEMSERVER_CAPACITY`; of the program `farmem`, `FARMEM_…`.
    static func variable(for option: Option, program: String) -> String {
        if let name = option.environment { return name }
        let name = upper(option.name)
        return program == "farmem" ? "FARMEM_\(name)" : "FARMEM_\(upper(program))_\(name)"
    }

    private static func upper(_ name: String) -> String {
        String(name.uppercased().map { $0 == "-" || $0 == "." ? "_" : $0 })
    }

    /// Keys of nested maps and option names meet here: `policy.semi_warm` and `policy-semi-warm` are the same.
    static func canonical(_ key: String) -> String {
        String(key.map { $0 == "." || $0 == "_" ? "-" : $0 })
    }

    func resolve(
        given: [String: [String]], file: (path: String, configuration: YAMLConfiguration)?
    ) throws(UsageError) -> [String: ResolvedOption] {
        var entries: [String: YAMLConfiguration.Entry] = [:]
        if let file { entries = try match(file.configuration, path: file.path) }
        var resolved: [String: ResolvedOption] = [:]
        for option in options where resolved[option.name] == nil {
            resolved[option.name] = try value(
                of: option, given: given[option.name], entry: entries[option.name],
                path: file?.path ?? "")
        }
        return resolved
    }

    /// Pairs each entry of the file with its option; an unknown key is an error.
    private func match(
        _ configuration: YAMLConfiguration, path: String
    ) throws(UsageError) -> [String: YAMLConfiguration.Entry] {
        let names = options.filter(\.isConfigurable).map(\.name)
        var entries: [String: YAMLConfiguration.Entry] = [:]
        for entry in configuration.entries {
            let wanted = Self.canonical(entry.key)
            guard let name = names.first(where: { Self.canonical($0) == wanted }) else {
                let hint =
                    nearestName(to: wanted, among: names).map { "did you mean '\($0)'?" }
                    ?? "keys are \(names.joined(separator: ", "))"
                throw UsageError(
                    "\(path):\(entry.line): unknown key '\(entry.key)'; \(hint)",
                    isFromConfiguration: true)
            }
            if let earlier = entries[name] {
                throw UsageError(
                    "\(path):\(entry.line): '\(entry.key)' is also set in line \(earlier.line)",
                    isFromConfiguration: true)
            }
            entries[name] = entry
        }
        return entries
    }

    /// A stronger source hides a weaker one's value, never its mistakes: all that is given must parse.
    private func value(
        of option: Option, given: [String]?, entry: YAMLConfiguration.Entry?, path: String
    ) throws(UsageError) -> ResolvedOption {
        let none: [OptionValue] = option.kind == .flag ? [.flag(false)] : []
        var result = ResolvedOption(name: option.name, values: none, origin: .builtIn)
        if let text = option.defaultText {
            result = try parse(option, [text], .builtIn, "default of --\(option.name)")
        }
        if let entry {
            let origin = Origin.file(path: path, line: entry.line)
            result = try parse(option, entry.values, origin, "\(origin): '\(entry.key)'")
        }
        let variable = Self.variable(for: option, program: program)
        if option.isConfigurable, let text = environment[variable] {
            let texts =
                option.isRepeatable ? text.split(separator: ",").map(String.init) : [text]
            result = try parse(option, texts, .environment(variable: variable), variable)
        }
        if let given { result = try parse(option, given, .commandLine, "--\(option.name)") }
        return result
    }

    private func parse(
        _ option: Option, _ texts: [String], _ origin: Origin, _ place: String
    ) throws(UsageError) -> ResolvedOption {
        var isFromFile = false
        if case .file = origin { isFromFile = true }
        guard texts.count <= 1 || option.isRepeatable else {
            throw UsageError(
                "\(place) takes one value, not a list", isFromConfiguration: isFromFile)
        }
        var values: [OptionValue] = []
        for text in texts {
            do throws(UnitError) {
                values.append(try option.kind.parse(text))
            } catch {
                throw UsageError("\(place): \(error.message)", isFromConfiguration: isFromFile)
            }
        }
        return ResolvedOption(name: option.name, values: values, origin: origin)
    }
}
