/// A part of the configuration file that holds the same options for several items that the user names:
///
///     functions:
///       "web-*":
///         floor: 16MiB
///
/// It has no flags and no variables. Items keep the order of the file.
package struct ConfigurationSection: Sendable {
    /// `functions`
    package let name: String
    /// What an item's key means, for errors and help: `PATTERN`.
    package let placeholder: String
    /// What an item may set; defaults and requirements do not apply.
    package let options: [Option]
    package let help: String

    package init(_ name: String, placeholder: String, options: [Option], help: String) {
        self.name = name
        self.placeholder = placeholder
        self.options = options
        self.help = help
    }
}

/// One item of a section with what the file sets for it.
package struct SectionItem: Sendable, Equatable {
    package let section: String
    /// As written in the file.
    package let name: String
    package internal(set) var values: [String: OptionValue]
    /// Where its first value is.
    package let origin: Origin
}

extension YAMLConfiguration {
    /// Takes the entries of `sections` out and parses them; what is left belongs to options.
    func split(
        _ sections: [ConfigurationSection], path: String
    ) throws(UsageError) -> (rest: YAMLConfiguration, items: [SectionItem]) {
        var rest: [Entry] = []
        var items: [SectionItem] = []
        for entry in entries {
            guard
                let section = sections.first(where: {
                    entry.key == $0.name || entry.key.hasPrefix($0.name + ".")
                })
            else {
                rest.append(entry)
                continue
            }
            let place = "\(path):\(entry.line)"
            let (item, option) = try section.locate(entry.key, place)
            let value = try option.parse(entry.values, "\(place): '\(entry.key)'")
            if let known = items.firstIndex(where: {
                $0.section == section.name && $0.name == item
            }) {
                guard items[known].values.updateValue(value, forKey: option.name) == nil else {
                    throw UsageError(
                        "\(place): '\(option.name)' of '\(item)' is set twice",
                        isFromConfiguration: true)
                }
            } else {
                items.append(
                    SectionItem(
                        section: section.name, name: item, values: [option.name: value],
                        origin: .file(path: path, line: entry.line)))
            }
        }
        return (YAMLConfiguration(entries: rest), items)
    }
}

extension ConfigurationSection {
    /// Splits `section.ITEM.option`. An item may hold dots; an option's name does not.
    fileprivate func locate(
        _ key: String, _ place: String
    ) throws(UsageError) -> (item: String, option: Option) {
        let inner = key.dropFirst(name.count + 1)
        guard let dot = inner.lastIndex(of: "."), dot != inner.startIndex else {
            throw UsageError(
                "\(place): '\(key)' must be '\(name): {\(placeholder): {KEY: VALUE}}'",
                isFromConfiguration: true)
        }
        let word = String(inner[inner.index(after: dot)...])
        let names = options.map(\.name)
        guard
            let option = options.first(where: {
                Resolver.canonical($0.name) == Resolver.canonical(word)
            })
        else {
            let hint =
                nearestName(to: Resolver.canonical(word), among: names)
                .map { "did you mean '\($0)'?" } ?? "keys are \(names.joined(separator: ", "))"
            throw UsageError(
                "\(place): unknown key '\(word)' of '\(inner[..<dot])'; \(hint)",
                isFromConfiguration: true)
        }
        return (String(inner[..<dot]), option)
    }
}

extension Option {
    fileprivate func parse(_ texts: [String], _ place: String) throws(UsageError) -> OptionValue {
        guard texts.count == 1 else {
            throw UsageError("\(place) takes one value, not a list", isFromConfiguration: true)
        }
        do throws(UnitError) {
            return try kind.parse(texts[0])
        } catch {
            throw UsageError("\(place): \(error.message)", isFromConfiguration: true)
        }
    }
}
