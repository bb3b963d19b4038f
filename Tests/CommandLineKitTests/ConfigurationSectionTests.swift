import CommandLineKit
import FarMemory
import LinuxSystem
import TestSupport
import Testing

private let program = Program(
    Command(
        name: "tool", summary: "a tool",
        subcommands: [
            Command(
                name: "run", summary: "run", options: [Option("floor", .size, help: "Floor.")],
                sections: [
                    ConfigurationSection(
                        "functions", placeholder: "PATTERN",
                        options: [
                            Option("floor", .size, help: "Floor."),
                            Option("request-window", .integer(0...10), help: "Window."),
                        ], help: "By function.")
                ], run: { _ in .done })
        ]))

@Suite struct ConfigurationSectionTests {
    private func plan(_ text: String, _ more: [String] = []) throws -> Program.Plan {
        let directory = try TemporaryDirectory()
        try replaceFile(directory.file("c.yaml"), with: text)
        return try program.plan(
            arguments: ["run", "--config", directory.file("c.yaml")] + more, environment: [:])
    }

    @Test func itemsKeepTheirOrderAndTheirDots() throws {
        let text = """
            floor: 1MiB
            functions:
              "web.*-v1.2": {floor: 2MiB}
              b: {request_window: 3}
              "*": {floor: 4MiB, request-window: 5}
            """
        guard case .run(_, let invocation) = try plan(text) else {
            Issue.record("did not plan to run")
            return
        }
        let items = invocation.section("functions")
        #expect(items.map(\.name) == ["web.*-v1.2", "b", "*"])
        #expect(items[0].values == ["floor": .size(.mib(2))])
        #expect(items[1].values == ["request-window": .integer(3)])
        #expect(items[2].values["floor"] == .size(.mib(4)))
        #expect(invocation.size("floor") == .mib(1), "the option of that name is another")
    }

    @Test(arguments: [
        ("functions: {a: {flor: 1MiB}}", "unknown key 'flor' of 'a'; did you mean 'floor'?"),
        ("functions: {a: {zzzzzz: 1}}", "keys are floor, request-window"),
        ("functions: {a: {floor: 1}}", "has no unit"),
        ("functions: {a: {request-window: 11}}", "11"),
        ("functions: {a: 1MiB}", "functions: {PATTERN: {KEY: VALUE}}"),
        ("functions: 1MiB", "functions: {PATTERN: {KEY: VALUE}}"),
        ("functions: {a: {floor: [1MiB, 2MiB]}}", "one value"),
        ("functions:\n  a: {floor: 1MiB}\n  a: {floor: 2MiB}", "also set in line 2"),
        ("functions: {a: {request-window: 1, request_window: 2}}", "is set twice"),
        ("function: {a: {floor: 1MiB}}", "unknown key 'function.a.floor'"),
    ])
    func wrongItemsNameTheLineAndTheKey(text: String, hint: String) throws {
        do {
            _ = try plan(text)
            Issue.record("accepted: \(text)")
        } catch let error as UsageError {
            #expect(error.message.contains(hint), "\(error.message)")
            #expect(error.exitStatus == .badConfiguration)
            #expect(error.message.contains("c.yaml:") || error.message.contains("line "))
        }
    }

    @Test func theReportAndTheHelpShowThem() throws {
        guard
            case .print(let report) = try plan(
                "functions: {web: {floor: 2MiB}}", ["--print-config"])
        else {
            Issue.record("no report")
            return
        }
        #expect(report.contains("functions.web: {floor: 2MiB}"))
        guard
            case .print(let help) = try program.plan(
                arguments: ["run", "--help"], environment: [:])
        else {
            Issue.record("no help")
            return
        }
        #expect(help.contains("CONFIGURATION FILE: functions"))
        #expect(help.contains("request-window"))
    }
}
