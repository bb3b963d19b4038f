import JSONText

/// Renders the manual page of one command from its table. Pure.
struct HelpPage {
    let path: [Command]
    let options: [Option]
    let program: String

    private var command: Command { path[path.count - 1] }
    private var fullName: String { path.map(\.name).joined(separator: " ") }
    private var visibleOptions: [Option] { options.filter { !$0.isHidden } }
    private var visibleSubcommands: [Command] { command.subcommands.filter { !$0.isHidden } }

    func text(width: Int = 80) -> String {
        var page = Page(width: width)
        page.heading("NAME")
        page.paragraph("\(fullName) - \(command.summary)")
        page.heading("SYNOPSIS")
        page.paragraph(synopsis)
        if !command.discussion.isEmpty {
            page.heading("DESCRIPTION")
            for paragraph in command.discussion.split(separator: "\n\n") {
                page.paragraph(String(paragraph))
            }
        }
        appendArguments(to: &page)
        page.heading("EXIT STATUS")
        for status in ExitStatus.allCases {
            page.line("\(status.rawValue)".padded(to: 4) + status.meaning)
        }
        if !command.examples.isEmpty {
            page.heading("EXAMPLES")
            for example in command.examples {
                page.paragraph(example.meaning + ":")
                page.line("    " + example.command)
            }
        }
        return page.text
    }

    private func appendArguments(to page: inout Page) {
        if !visibleSubcommands.isEmpty {
            page.heading("COMMANDS")
            let column = (visibleSubcommands.map(\.name.count).max() ?? 0) + 3
            for subcommand in visibleSubcommands {
                page.line(subcommand.name.padded(to: column) + subcommand.summary)
            }
        }
        if !command.positionals.isEmpty {
            page.heading("ARGUMENTS")
            for positional in command.positionals {
                page.item(Self.placeholder(positional), positional.help)
            }
        }
        page.heading("OPTIONS")
        for option in visibleOptions { page.item(Self.usage(option), details(option)) }
        for section in command.sections {
            page.heading("CONFIGURATION FILE: \(section.name)")
            page.paragraph("\(section.name): {\(section.placeholder): {KEY: VALUE}}")
            page.paragraph(section.help)
            for option in section.options {
                page.item("\(option.name): \(option.kind.name)", option.help)
            }
        }
    }

    private var synopsis: String {
        if !visibleSubcommands.isEmpty { return "\(fullName) COMMAND [OPTION]..." }
        let required = visibleOptions.filter(\.isRequired).map(Self.usage)
        let positionals = command.positionals.map {
            $0.isRequired ? Self.placeholder($0) : "[\(Self.placeholder($0))]"
        }
        return ([fullName] + required + ["[OPTION]..."] + positionals).joined(separator: " ")
    }

    private static func placeholder(_ positional: Positional) -> String {
        positional.name.uppercased() + (positional.isRepeatable ? "..." : "")
    }

    private static func usage(_ option: Option) -> String {
        option.kind == .flag ? "--\(option.name)" : "--\(option.name) \(option.placeholder)"
    }

    private func details(_ option: Option) -> String {
        var text = option.help
        if option.isRequired { text += " Required." }
        if option.isRepeatable { text += " May be repeated." }
        if let value = option.defaultText { text += " Default: \(value)." }
        if option.isConfigurable {
            text += " Variable: \(Resolver.variable(for: option, program: program))."
        }
        return text
    }

    /// The same facts for tools; `schema` grows when a member changes its meaning.
    func json() -> JSONValue {
        [
            "schema": 1,
            "command": JSONValue(fullName),
            "summary": JSONValue(command.summary),
            "description": JSONValue(command.discussion),
            "synopsis": JSONValue(synopsis),
            "commands": .array(
                visibleSubcommands.map {
                    ["name": JSONValue($0.name), "summary": JSONValue($0.summary)]
                }),
            "arguments": .array(
                command.positionals.map {
                    [
                        "name": JSONValue($0.name), "help": JSONValue($0.help),
                        "required": .bool($0.isRequired), "repeatable": .bool($0.isRepeatable),
                    ]
                }),
            "options": .array(visibleOptions.map(optionJSON)),
            "exit_status": .array(
                ExitStatus.allCases.map {
                    ["code": JSONValue($0.rawValue), "meaning": JSONValue($0.meaning)]
                }),
            "examples": .array(
                command.examples.map {
                    ["command": JSONValue($0.command), "meaning": JSONValue($0.meaning)]
                }),
        ]
    }

    private func optionJSON(_ option: Option) -> JSONValue {
        var choices: [JSONValue] = []
        if case .choice(let words) = option.kind { choices = words.map { JSONValue($0) } }
        return [
            "name": JSONValue(option.name),
            "kind": JSONValue(option.kind.name),
            "choices": .array(choices),
            "default": JSONValue(option.defaultText),
            "required": .bool(option.isRequired),
            "repeatable": .bool(option.isRepeatable),
            "variable": option.isConfigurable
                ? JSONValue(Resolver.variable(for: option, program: program)) : .null,
            "help": JSONValue(option.help),
        ]
    }
}

extension String {
    /// Filled up with spaces to `width` characters; longer text stays as it is.
    func padded(to width: Int) -> String {
        self + String(repeating: " ", count: max(0, width - count))
    }
}

/// Lines of a manual page: headings at the margin, text wrapped and indented.
private struct Page {
    let width: Int
    var text = ""

    init(width: Int) { self.width = width }

    mutating func heading(_ title: String) { text += (text.isEmpty ? "" : "\n") + title + "\n" }

    mutating func line(_ line: String) { text += "    " + line + "\n" }

    mutating func paragraph(_ paragraph: String) { wrap(paragraph, indent: 4) }

    mutating func item(_ title: String, _ details: String) {
        line(title)
        wrap(details, indent: 12)
    }

    private mutating func wrap(_ paragraph: String, indent: Int) {
        let margin = String(repeating: " ", count: indent)
        var current = ""
        for word in paragraph.split(whereSeparator: { $0 == " " || $0 == "\n" }) {
            if !current.isEmpty, indent + current.count + 1 + word.count > width {
                text += margin + current + "\n"
                current = ""
            }
            current += (current.isEmpty ? "" : " ") + word
        }
        if !current.isEmpty { text += margin + current + "\n" }
    }
}
