import CommandLineKit
import FarMemory
import JSONText
import LinuxSystem
import Measurement

/// The runs of one workload.
struct RatioSeries: Sendable {
    struct Entry: Sendable {
        var percent: Int
        var memory: ByteCount
        var run: RatioRun
        /// Why it does not count; nil when it does.
        var fault: String?
    }

    var workload: RatioWorkload
    /// The run without a limit.
    var free: RatioRun
    var peak: ByteCount
    var entries: [Entry] = []

    init(workload: RatioWorkload, free: RatioRun, peak: ByteCount) {
        self.workload = workload
        self.free = free
        self.peak = peak
    }

    mutating func add(_ run: RatioRun, percent: Int, memory: ByteCount) {
        let fault =
            Self.ending(run) ?? workload.fault(of: run.output, reference: free.output)
        entries.append(Entry(percent: percent, memory: memory, run: run, fault: fault))
    }

    /// How a run ended that did not end well.
    static func ending(_ run: RatioRun) -> String? {
        if run.isLate { return "late" }
        switch run.end {
        case .exited(0): return nil
        case .exited(let status): return "status \(status)"
        case .killed(let signal): return "killed by signal \(signal)"
        case .running: return "still running"
        }
    }

    var percents: [Int] { Array(Set(entries.map(\.percent))).sorted(by: >) }

    /// The median of what right runs at this ratio took; nil when there are none.
    func median(_ percent: Int, _ value: (RatioRun) -> Double?) -> Double? {
        let values = entries.filter { $0.percent == percent && $0.fault == nil }
            .compactMap { value($0.run) }.sorted()
        guard !values.isEmpty else { return nil }
        return values.count % 2 == 1
            ? values[values.count / 2]
            : (values[values.count / 2 - 1] + values[values.count / 2]) / 2
    }

    /// Against the highest ratio.
    func slowdown(_ percent: Int) -> Double? {
        guard let highest = percents.first, let base = median(highest, { $0.wall.seconds }),
            let here = median(percent, { $0.wall.seconds }), base > 0
        else { return nil }
        return here / base
    }

    func faults(_ percent: Int) -> [String] {
        entries.filter { $0.percent == percent }.compactMap(\.fault)
    }
}

/// What `farmem bench ratio` prints.
struct RatioReport: Sendable {
    var areas: [SwapArea]
    var limit: String
    var processors: String
    var repetitions: Int
    var series: [RatioSeries] = []

    var isRight: Bool { series.allSatisfy { $0.entries.allSatisfy { $0.fault == nil } } }

    var text: String {
        var table = TextTable([
            .init("WORKLOAD"), .right("LOCAL"), .right("LIMIT MiB"), .right("WALL s"),
            .right("USER s"), .right("SYSTEM s"), .right("MAJOR FAULTS"), .right("PAGES IN"),
            .right("PAGES OUT"), .right("SLOWDOWN"), .init("RESULT"),
        ])
        for one in series {
            for percent in one.percents { table.append(row(one, percent)) }
        }
        let swap = areas.map { area in
            "\(area.path) (\(mebibytes(area.size)) MiB, priority \(area.priority))"
        }
        return "swap: \(swap.joined(separator: ", "))\n" + table.rendered()
    }

    private func row(_ one: RatioSeries, _ percent: Int) -> [String] {
        func cell(_ decimals: Int, _ value: (RatioRun) -> Double?) -> String {
            one.median(percent, value).map { fixed($0, decimals) } ?? "-"
        }
        let faults = one.faults(percent)
        let memory = one.entries.first { $0.percent == percent }?.memory ?? .zero
        return [
            one.workload.name, "\(percent) %", mebibytes(memory.bytes),
            cell(2) { $0.wall.seconds }, cell(2) { $0.user.seconds }, cell(2) { $0.system.seconds },
            cell(0) { Double($0.majorFaults) }, cell(0) { $0.pagesIn.map { Double($0) } },
            cell(0) { $0.pagesOut.map { Double($0) } },
            one.slowdown(percent).map { fixed($0, 2) } ?? "-",
            faults.isEmpty
                ? (one.workload.result == .any ? "not compared" : "right")
                : "\(faults.count) of \(repetitions): \(faults[0])",
        ]
    }

    private func mebibytes(_ bytes: UInt64) -> String { fixed(Double(bytes) / 1_048_576, 1) }

    var json: String {
        let value: JSONValue = [
            "schema": 1, "machine": machineFacts(), "limit": JSONValue(limit),
            "processors": JSONValue(processors), "repetitions": JSONValue(repetitions),
            "swap": .array(
                areas.map {
                    [
                        "path": JSONValue($0.path), "bytes": JSONValue($0.size),
                        "used_bytes": JSONValue($0.used), "priority": JSONValue($0.priority),
                    ]
                }),
            "workloads": .array(series.map(json)),
        ]
        return value.rendered() + "\n"
    }

    private func json(_ one: RatioSeries) -> JSONValue {
        [
            "workload": JSONValue(one.workload.name),
            "command": .array(one.workload.command.map { JSONValue($0) }),
            "peak_bytes": JSONValue(one.peak.bytes), "unlimited": json(one.free, one.workload),
            "runs": .array(
                one.entries.map { entry in
                    .object(
                        [
                            .init("ratio_percent", JSONValue(entry.percent)),
                            .init("limit_bytes", JSONValue(entry.memory.bytes)),
                            .init("is_right", JSONValue(entry.fault == nil)),
                            .init("fault", entry.fault.map { JSONValue($0) } ?? .null),
                        ] + (json(entry.run, one.workload).members ?? []))
                }),
            "slowdown": .array(
                one.percents.map { percent in
                    [
                        "ratio_percent": JSONValue(percent),
                        "slowdown": one.slowdown(percent).map { JSONValue($0) } ?? .null,
                    ]
                }),
        ]
    }

    private func json(_ run: RatioRun, _ workload: RatioWorkload) -> JSONValue {
        [
            "wall_s": JSONValue(run.wall.seconds),
            "work_s": workload.work(of: run.output).map { JSONValue($0) } ?? .null,
            "user_s": JSONValue(run.user.seconds), "system_s": JSONValue(run.system.seconds),
            "major_faults": JSONValue(run.majorFaults),
            "host_pages_in": run.pagesIn.map { JSONValue($0) } ?? .null,
            "host_pages_out": run.pagesOut.map { JSONValue($0) } ?? .null,
            "peak_bytes": run.peak.map { JSONValue($0.bytes) } ?? .null,
            "limit_lifted": JSONValue(run.lifts),
        ]
    }
}
