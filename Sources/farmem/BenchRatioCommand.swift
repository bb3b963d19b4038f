import CommandLineKit
import FarMemory
import Glibc
import LinuxSystem
import Measurement

/// `farmem bench ratio`: a program with all, half, ... of the memory that it wants.
enum BenchRatioCommand {
    static let command = Command(
        name: "ratio",
        summary: "run a workload with a part of its memory, the rest in the swap in use",
        discussion: """
            Runs each workload in a control group of its own, first without a limit to see how much memory it takes at \
            most, then with so many percent of that. The rest goes to whatever swap the kernel prefers: attach far memory \
            first (farswap attach). Without any swap it refuses.

            A run counts when it ends well and its result is right: the workloads of this repository check every word \
            themselves and print a digest that must be the first run's; a COMMAND must print the same each time. \
            Pages in and out are those of the whole host. SLOWDOWN is against the run at the highest ratio.

            Exit status 1 means a run that failed, was late, or gave another result.
            """,
        options: [
            .json,
            Option(
                "workload", .string, default: RatioWorkload.names.joined(separator: ","),
                placeholder: "LIST", help: "Which of the workloads, with commas."),
            Option("size", .size, default: "256MiB", help: "How much memory each works on."),
            Option(
                "ratios", .string, default: "100,75,50,25", placeholder: "LIST",
                help: "Percent of the peak, with commas."),
            Option(
                "repeat", .integer(1...100), default: "1",
                help: "Runs at each ratio; the table has medians."),
            Option(
                "cpus", .string, default: "0", placeholder: "LIST",
                help: "Processors to run on, as for taskset: 0,2-3; or all."),
            Option(
                "limit", .choice(["max", "high"]), default: "max",
                help: "Limit by memory.max (version 1: memory.limit_in_bytes), or memory.high."),
            Option("timeout", .duration, default: "10m", help: "Longest time of a run."),
            Option("any-output", .flag, help: "A COMMAND may print something else each time."),
            Option(
                "workloads-dir", .string, default: "workloads", placeholder: "DIR",
                help: "Directory of the workloads' source."),
        ],
        positionals: [
            Positional(
                "COMMAND", required: false, repeatable: true,
                help: "Run this instead of the workloads; options follow --.")
        ],
        examples: [
            ("farmem bench ratio --workload sort,map --size 1GiB", "Two of the workloads."),
            ("farmem bench ratio --ratios 100,50 -- sort big.txt", "A command of your own."),
        ],
        run: run)

    private static func run(_ invocation: Invocation) throws -> ExitStatus {
        ignoreBrokenPipes()
        let ratios = try ratios(invocation.string("ratios"))
        let areas = try swapAreas()
        guard runsAsRoot() else {
            throw CommandFailure(.permission, "control groups need root; run with sudo")
        }
        guard !areas.isEmpty else {
            throw CommandFailure(
                .systemError, "no swap is in use; attach far memory first, see farswap attach")
        }
        let signals = try SignalEvents([SIGINT, SIGTERM, SIGHUP])
        let directory = "\(runtimeDirectory())/ratio-\(getpid())"
        try makeDirectories(directory, mode: 0o700)
        defer {
            for name in (try? directoryEntries(directory)) ?? [] {
                _ = unsafe unlink("\(directory)/\(name)")
            }
            _ = unsafe rmdir(directory)
        }
        let cpus = invocation.string("cpus")
        let runner = RatioRunner(
            processors: cpus == "all" ? nil : cpus,
            limit: LimitedGroup.Limit(rawValue: invocation.string("limit")) ?? .max,
            timeout: invocation.duration("timeout"), directory: directory,
            stop: signals.descriptor.rawValue)
        var report = RatioReport(
            areas: areas, limit: invocation.string("limit"), processors: cpus,
            repetitions: invocation.integer("repeat"))
        for workload in try workloads(invocation, directory: directory) {
            report.series.append(
                try measure(workload, ratios: ratios, report.repetitions, with: runner))
        }
        printOut(invocation.flag("json") ? report.json : report.text)
        return report.isRight ? .done : .checkFailed
    }

    private static func ratios(_ text: String) throws(UsageError) -> [Int] {
        let numbers = text.split(separator: ",", omittingEmptySubsequences: false).map {
            Int($0) ?? 0
        }
        guard !numbers.isEmpty, numbers.allSatisfy({ (1...100).contains($0) }) else {
            throw UsageError("--ratios '\(text)': give percent from 1 to 100, with commas")
        }
        return Array(Set(numbers)).sorted(by: >)
    }

    private static func workloads(
        _ invocation: Invocation, directory: String
    ) throws -> [RatioWorkload] {
        if !invocation.positionals.isEmpty {
            let kind: RatioWorkload.Result = invocation.flag("any-output") ? .any : .same
            return [
                RatioWorkload(
                    name: invocation.positionals[0], command: invocation.positionals, result: kind)
            ]
        }
        let names = invocation.string("workload").split(separator: ",").map(String.init)
        for name in names where !RatioWorkload.names.contains(name) {
            throw UsageError(
                "--workload: '\(name)' is none of \(RatioWorkload.names.joined(separator: ", "))")
        }
        return try RatioWorkload.build(
            names, size: invocation.size("size"), source: invocation.string("workloads-dir"),
            directory: directory)
    }

    private static func measure(
        _ workload: RatioWorkload, ratios: [Int], _ repetitions: Int, with runner: RatioRunner
    ) throws -> RatioSeries {
        printError("farmem: \(workload.name): without a limit")
        let free = try checked(workload, runner.run(workload.command, memory: nil))
        guard free.isDone, workload.fault(of: free.output, reference: free.output) == nil else {
            throw CommandFailure(
                .checkFailed,
                "\(workload.name) fails without a limit: \(RatioSeries.ending(free) ?? "wrong result")"
            )
        }
        guard let peak = free.peak else {
            throw CommandFailure(
                .systemError, "this kernel does not keep a control group's peak (memory.peak)")
        }
        var series = RatioSeries(workload: workload, free: free, peak: peak)
        for _ in 0..<repetitions {
            for percent in ratios {
                printError("farmem: \(workload.name): \(percent) %")
                let memory = ByteCount(peak.bytes / 100 * UInt64(percent) / 4096 * 4096)
                let run = try checked(workload, runner.run(workload.command, memory: memory))
                series.add(run, percent: percent, memory: memory)
            }
        }
        return series
    }

    private static func checked(_ workload: RatioWorkload, _ run: RatioRun) throws -> RatioRun {
        guard !run.isInterrupted else {
            throw CommandFailure(.tryAgain, "interrupted; \(workload.name) was ended")
        }
        return run
    }
}
