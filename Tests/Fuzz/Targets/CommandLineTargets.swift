import CommandLineKit
import FarMemory
import JSONText

/// What parses must render, and read back as the same value.
@Sendable func fuzzJSON(_ bytes: [UInt8]) {
    guard let value = try? JSONValue.parse(bytes, limits: JSONLimits(depthMax: 16)) else { return }
    for pretty in [false, true] {
        let text = value.renderedBytes(pretty: pretty)
        let again = try? JSONValue.parse(text, limits: JSONLimits(depthMax: 16))
        precondition(again == value, "JSON does not survive a round trip")
    }
}

/// Whatever the text is: entries or one clear line, in bounded memory.
@Sendable func fuzzYAML(_ bytes: [UInt8]) {
    do throws(UsageError) {
        let configuration = try YAMLConfiguration.parse(bytes)
        precondition(configuration.entries.allSatisfy { !$0.key.isEmpty && $0.line > 0 })
        precondition(Set(configuration.entries.map(\.key)).count == configuration.entries.count)
    } catch {
        precondition(error.isFromConfiguration && !error.message.isEmpty)
    }
}

/// Each kind of value: what parses must read back from its own text.
@Sendable func fuzzUnits(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    let kinds: [ValueKind] = [
        .flag, .choice(["auto", "fuse"]), .size, .duration, .rate, .integer(-1000...1000), .count,
        .ratio,
        .endpoint,
    ]
    for kind in kinds {
        guard let value = try? kind.parse(text) else { continue }
        precondition((try? kind.parse(value.text)) == value, "'\(text)' does not read back")
    }
}

private let sample = Program(
    Command(
        name: "sample", summary: "a program to fuzz",
        subcommands: [
            Command(
                name: "run", summary: "run",
                options: [
                    Option("size", .size, required: true, help: "Size."),
                    Option("listen", .endpoint, repeatable: true, help: "Where."),
                    Option("rate", .rate, help: "Rate."),
                ] + Option.daemon,
                positionals: [Positional("name", help: "Name.")],
                run: { _ in .done })
        ]))

/// A command line, one argument a line; the part after an empty line is the environment.
@Sendable func fuzzArguments(_ bytes: [UInt8]) {
    let lines = String(decoding: bytes, as: UTF8.self)
        .split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    let end = lines.firstIndex(of: "") ?? lines.count
    var environment: [String: String] = [:]
    for line in lines[end...] {
        let parts = line.split(separator: "=", maxSplits: 1).map(String.init)
        if parts.count == 2 { environment[parts[0]] = parts[1] }
    }
    // A fuzzer must not open files that it names.
    if lines[..<end].contains(where: { $0.contains("config") }) { return }
    guard
        case .run(_, let invocation)? = try? sample.plan(
            arguments: Array(lines[..<end]), environment: environment)
    else { return }
    precondition(invocation.positionals.count == 1)
    _ = invocation.size("size")
}
