import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

/// `farmem bench ratio` over far memory: real swap, real control groups, small sizes.
@Suite(
    .serialized, .enabled(if: SwapHost.needs.isUsable, "\(SwapHost.needs.reason)"),
    .enabled(if: TestProcess.hasBinary("farmem"), "farmem is not built; run: swift build"))
struct RatioTests {
    private static let workloads: String = {
        let parts = #filePath.split(separator: "/").dropLast(3)
        return "/" + parts.joined(separator: "/") + "/workloads"
    }()

    private func ratio(
        _ host: SwapHost, _ arguments: String...
    ) throws -> (end: ChildEnd, output: String, error: String) {
        try TestProcess.run(
            "farmem", ["bench", "ratio", "--workloads-dir", Self.workloads] + arguments,
            environment: host.environment, seconds: 240)
    }

    /// Nothing is left of a run: no group, no process, no file.
    private func expectNothingLeft(_ host: SwapHost) throws {
        #expect(
            try directoryEntries("/sys/fs/cgroup/memory").filter { $0.hasPrefix("farmem-ratio-") }
                .isEmpty)
        #expect(
            try directoryEntries(host.directory.path).filter { $0.hasPrefix("ratio-") }.isEmpty)
    }

    @Test(.timeLimit(.minutes(5))) func everyWorkloadIsRightWithHalfOfItsMemory() throws {
        let host = try SwapHost()
        try host.attach()
        let result = try ratio(host, "--size", "8MiB", "--ratios", "100,50", "--json")
        #expect(result.end == .exited(0), "\(result.error)\(result.output)")
        let report = try JSONValue.parse(result.output)
        let workloads = report["workloads"]?.array ?? []
        #expect(workloads.count == 7)
        for workload in workloads {
            let name = workload["workload"]?.string ?? ""
            let runs = workload["runs"]?.array ?? []
            #expect(runs.compactMap { $0["ratio_percent"]?.integer } == [100, 50], "\(name)")
            let peak = try #require(workload["peak_bytes"]?.integer)
            #expect(peak > 8 << 20, "\(name)")
            for run in runs {
                #expect(run["is_right"]?.bool == true, "\(name): \(run)")
                #expect(run["work_s"]?.double != nil)
            }
            // It did with half of it, which it cannot without far memory.
            #expect((runs.last?["major_faults"]?.integer ?? 0) > 100, "\(name)")
            let limit = runs.last?["limit_bytes"]?.integer ?? 0
            #expect(limit <= peak / 2 && limit > peak / 2 - 8192, "\(name)")
        }
        try expectNothingLeft(host)
        try host.farswap("detach", "t0")
    }

    @Test(.timeLimit(.minutes(2))) func aCommandsOutputIsComparedAndItsFailureTold() throws {
        let host = try SwapHost()
        try host.attach()
        let same = try ratio(host, "--ratios", "100", "--", "/bin/sh", "-c", "echo same")
        #expect(same.end == .exited(0), "\(same.error)")
        #expect(same.output.contains("right"))
        let counter = host.directory.file("count")
        let script = "echo >>\(counter); wc -l <\(counter)"
        let other = try ratio(host, "--ratios", "100", "--", "/bin/sh", "-c", script)
        #expect(other.end == .exited(1))
        #expect(other.output.contains("another output"))
        let any = try ratio(host, "--any-output", "--ratios", "100", "--", "/bin/sh", "-c", script)
        #expect(any.end == .exited(0), "\(any.error)")
        let broken = try ratio(host, "--", "/bin/sh", "-c", "exit 3")
        #expect(broken.end == .exited(1))
        #expect(broken.error.contains("status 3"), "\(broken.error)")
        // What it leaves running is ended with it, and what hangs is.
        let hung = try ratio(
            host, "--timeout", "300ms", "--", "/bin/sh", "-c", "sleep 971 & sleep 972")
        #expect(hung.end == .exited(1))
        #expect(hung.error.contains("late"), "\(hung.error)")
        let lines = try directoryEntries("/proc").filter { Int($0) != nil }.compactMap {
            try? readSmallText("/proc/\($0)/cmdline")
        }
        #expect(!lines.contains("sleep\u{0}971\u{0}") && !lines.contains("sleep\u{0}972\u{0}"))
        try expectNothingLeft(host)
        try host.farswap("detach", "t0")
    }

    @Test func refusesWhatCannotBeMeasured() throws {
        let host = try SwapHost()
        for (arguments, word) in [
            (["--ratios", "100,0"], "--ratios"), (["--workload", "sort,none"], "'none'"),
            (["--size", "1MiB"], "--size"),
        ] {
            try host.attach()
            let result = try TestProcess.run(
                "farmem", ["bench", "ratio", "--workloads-dir", Self.workloads] + arguments,
                environment: host.environment, seconds: 60)
            #expect(result.end == .exited(64), "\(result.error)")
            #expect(result.error.contains(word), "\(result.error)")
            try host.farswap("detach", "t0")
        }
        guard try swapAreas().isEmpty else { return }
        let none = try ratio(host, "--workload", "sort")
        #expect(none.end == .exited(71))
        #expect(none.error.contains("farswap attach"))
    }
}
