import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = Capability.all([SwapHost.needs, .runc])

/// `farmem simulate --calibrate` on what the benchmarks of this very machine write, small.
@Suite(.serialized) struct CalibrationTests {
    private static let functions: String = {
        let parts = #filePath.split(separator: "/").dropLast(3)
        return "/" + parts.joined(separator: "/") + "/functions"
    }()
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func simulate(
        _ arguments: [String]
    ) throws -> (end: ChildEnd, output: String, error: String) {
        try TestProcess.run("farmem", ["simulate"] + arguments, seconds: 60)
    }

    private func calibrate(
        _ reports: String...
    ) throws -> (end: ChildEnd, output: String, error: String) {
        try simulate(
            reports.flatMap { ["--calibrate", directory.file($0)] }
                + ["--output", directory.file("costs.json")])
    }

    private func costs() throws -> JSONValue {
        try JSONValue.parse(Array(readSmallText(directory.file("costs.json")).utf8))
    }

    /// Two functions: 8 ms and 40 ms more for 1,000 and 9,000 pages are 4 us for each page and 4 ms for each wake-up.
    private func wakeUps(_ pages: [(pages: Int, more: Int)]) -> String {
        let items = pages.flatMap { item in
            [
                #"{"function":"f","prefetch":"off","first_us":900000,"warm_us":1000,"recalled_bytes":0}"#,
                #"{"function":"f","prefetch":"adaptive","first_us":\#(1000 + item.more),"#
                    + #""warm_us":1000,"far_bytes":0,"recalled_bytes":\#(item.pages * 4096)}"#,
            ]
        }
        return #"{"schema":1,"wrong":0,"wake_ups":[\#(items.joined(separator: ","))]}"#
    }

    @Test(.enabled(if: needs.isUsable, "\(needs.reason)"), .timeLimit(.minutes(3)))
    func whatWasMeasuredReplacesWhatShips() throws {
        let host = try SwapHost()
        try host.attach()
        let swap = try host.bench("swap", "--size", "16MiB", "--json")
        try #require(swap.end == .exited(0), "\(swap.error)")
        try host.farswap("detach", "t0")
        let described = try TestProcess.run(
            "fngateway",
            [
                "describe", "--functions", Self.functions, "--only", "float,web", "--requests",
                "3", "--json",
            ], environment: host.environment, seconds: 60)
        try #require(described.end == .exited(0), "\(described.error)")
        try replaceFile(directory.file("swap.json"), with: swap.output)
        try replaceFile(directory.file("describe.json"), with: described.output)
        try replaceFile(
            directory.file("wake-up.json"), with: wakeUps([(1000, 8000), (9000, 40000)]))
        let done = try calibrate("wake-up.json", "describe.json", "swap.json")
        #expect(done.end == .exited(0), "\(done.error)")

        let costs = try costs()
        let measured = try JSONValue.parse(swap.output)
        let fault = try #require(measured["random_in_p50_us"]?.double)
        let major = try #require(costs["major_fault_ns"]?.integer)
        #expect(abs(Double(major) - fault * 1000) <= 1)
        #expect(costs["prefetch_ns"]?.integer == 4000, "wake-ups say what a page costs there")
        #expect(costs["wake_up_ns"]?.integer == 4_000_000)
        let functions = try JSONValue.parse(described.output)["functions"]?.array ?? []
        let profiles = costs["functions"]?.array ?? []
        #expect(profiles.compactMap { $0["function"]?.string } == ["float", "web"])
        for (function, profile) in zip(functions, profiles) {
            #expect(profile["runtime_bytes"]?.integer == function["runtime_bytes"]?.integer)
            #expect(profile["init_bytes"]?.integer == function["init_bytes"]?.integer)
            #expect(profile["quota_bytes"]?.integer == function["limit_bytes"]?.integer)
        }

        let trace = directory.file("trace.csv")
        let generated = try simulate([
            "--generate", "azure2021", "--functions", "4", "--days", "1", "--calls", "400",
            "--output", trace,
        ])
        #expect(generated.end == .exited(0), "\(generated.error)")
        let run = try simulate([
            "--trace", trace, "--costs", directory.file("costs.json"), "--profile", "web", "--json",
        ])
        #expect(run.end == .exited(0), "\(run.error)")
        let report = try JSONValue.parse(run.output)
        let origins = report["policies"]?.array?.compactMap { $0["costs"]?.string } ?? []
        #expect(origins.count == 2 && origins.allSatisfy { $0.contains("wake-ups from ") })
        let unknown = try simulate([
            "--trace", trace, "--costs", directory.file("costs.json"), "--profile", "bert",
        ])
        #expect(unknown.end == .exited(64), "the built-in functions are gone")
    }

    @Test func wakeUpsOfOneSizeLeaveThePriceOfAPageAlone() throws {
        // 1,000 pages at the built-in 3,215 ns are 3.215 ms of the 8.
        try replaceFile(directory.file("same.json"), with: wakeUps([(1000, 8000), (1000, 8000)]))
        #expect(try calibrate("same.json").end == .exited(0))
        #expect(try costs()["prefetch_ns"]?.integer == 3215)
        #expect(try costs()["wake_up_ns"]?.integer == 4_785_000)
        // Larger ones that cost less, and some that cost nothing: noise makes no negative prices.
        try replaceFile(directory.file("noise.json"), with: wakeUps([(1000, 900), (9000, -500)]))
        #expect(try calibrate("noise.json").end == .exited(0))
        #expect(try costs()["prefetch_ns"]?.integer == 3215)
        #expect(try costs()["wake_up_ns"]?.integer == 0)
    }

    @Test(arguments: [
        ("{", "{"), (#"{"schema":1}"#, "no report of fngateway describe"),
        (#"{"random_in_p50_us":0,"prefetch_in_pages_per_second":0}"#, "no page came back"),
        (#"{"wake_ups":[]}"#, "no wake-up"),
        (#"{"wake_ups":[{"prefetch":"adaptive","first_us":1}]}"#, "a wake-up without"),
        (#"{"functions":[{"runtime_bytes":1}]}"#, "a function without"),
    ])
    func whatIsNoReportIsRefusedWithItsFile(text: String, hint: String) throws {
        try replaceFile(directory.file("wrong.json"), with: text)
        let wrong = try calibrate("wrong.json")
        #expect(wrong.end == .exited(64), "\(wrong.error)")
        #expect(wrong.error.contains("wrong.json: "), "\(wrong.error)")
        if text != "{" { #expect(wrong.error.contains(hint), "\(wrong.error)") }
        #expect(wrong.error.filter { $0 == "\n" }.count == 1, "\(wrong.error)")
        #expect(!fileExists(directory.file("costs.json")))
    }
}
