package import FarMemory

/// What a command was asked to do: every option's value, wherever it came from, and the positionals.
///
/// Reading an option by a name or kind that the table does not have is a programming error and traps; so is reading an
/// unset option without `IfSet` unless it is required or has a default.
package struct Invocation: Sendable {
    /// `memserver`
    package let program: String
    /// From the program's name to the command's: `["memserver", "lease", "create"]`.
    package let path: [String]
    /// In the order of the command line.
    package let positionals: [String]
    let resolved: [String: ResolvedOption]
    let positionalNames: [Positional]
    let items: [SectionItem]

    private func values(_ name: String) -> [OptionValue] {
        guard let option = resolved[name] else {
            preconditionFailure("the command's table has no option --\(name)")
        }
        return option.values
    }

    private func single<T>(_ name: String, _ unwrap: (OptionValue) -> T?) -> T? {
        guard let value = values(name).first else { return nil }
        guard let unwrapped = unwrap(value) else {
            preconditionFailure("--\(name) is read as another kind than it is declared")
        }
        return unwrapped
    }

    private func set<T>(_ name: String, _ value: T?) -> T {
        guard let value else {
            preconditionFailure("--\(name) is read but has neither a default nor is it required")
        }
        return value
    }

    /// The items of a section of the configuration file, in its order.
    package func section(_ name: String) -> [SectionItem] { items.filter { $0.section == name } }

    /// Where the value came from.
    package func origin(_ name: String) -> Origin { resolved[name]?.origin ?? .builtIn }
    /// Whether anything but the built-in default set it.
    package func isGiven(_ name: String) -> Bool { origin(name) != .builtIn }

    package func flag(_ name: String) -> Bool {
        single(name) { if case .flag(let value) = $0 { value } else { nil } } ?? false
    }

    package func stringIfSet(_ name: String) -> String? {
        single(name) { if case .string(let value) = $0 { value } else { nil } }
    }
    package func string(_ name: String) -> String { set(name, stringIfSet(name)) }

    /// All values of a repeatable option, empty when it is unset.
    package func strings(_ name: String) -> [String] { values(name).map(\.text) }

    package func sizeIfSet(_ name: String) -> ByteCount? {
        single(name) { if case .size(let value) = $0 { value } else { nil } }
    }
    package func size(_ name: String) -> ByteCount { set(name, sizeIfSet(name)) }

    package func durationIfSet(_ name: String) -> Nanoseconds? {
        single(name) { if case .duration(let value) = $0 { value } else { nil } }
    }
    package func duration(_ name: String) -> Nanoseconds { set(name, durationIfSet(name)) }

    /// Bytes per second.
    package func rateIfSet(_ name: String) -> ByteCount? {
        single(name) { if case .rate(let value) = $0 { value } else { nil } }
    }
    package func rate(_ name: String) -> ByteCount { set(name, rateIfSet(name)) }

    package func integerIfSet(_ name: String) -> Int? {
        single(name) { if case .integer(let value) = $0 { Int(value) } else { nil } }
    }
    package func integer(_ name: String) -> Int { set(name, integerIfSet(name)) }

    package func ratioIfSet(_ name: String) -> Double? {
        single(name) { if case .ratio(let value) = $0 { value } else { nil } }
    }
    package func ratio(_ name: String) -> Double { set(name, ratioIfSet(name)) }

    package func endpointIfSet(_ name: String) -> Endpoint? {
        single(name) { if case .endpoint(let value) = $0 { value } else { nil } }
    }
    package func endpoint(_ name: String) -> Endpoint { set(name, endpointIfSet(name)) }

    /// All values of a repeatable endpoint option.
    package func endpoints(_ name: String) -> [Endpoint] {
        values(name).map {
            guard case .endpoint(let value) = $0 else {
                preconditionFailure("--\(name) is not declared as an endpoint")
            }
            return value
        }
    }

    /// The value of a positional by its name in the table; nil when it is optional and absent.
    package func positionalIfSet(_ name: String) -> String? {
        guard let index = positionalNames.firstIndex(where: { $0.name == name }) else {
            preconditionFailure("the command's table has no positional '\(name)'")
        }
        return positionals.indices.contains(index) ? positionals[index] : nil
    }

    /// The value of a required positional.
    package func positional(_ name: String) -> String { set(name, positionalIfSet(name)) }
}
