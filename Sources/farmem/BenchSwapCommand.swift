import CommandLineKit
import FarMemory
import JSONText
import LinuxSystem
import Measurement

/// `farmem bench swap`: what the kernel's present swap costs this process.
enum BenchSwapCommand {
    static let command = Command(
        name: "swap", summary: "time page-out and swap-in against the swap in use",
        discussion: """
            Uses whatever swap the kernel prefers now: attach one and only one, or give it the highest priority. \
            tools/bench swap compares devices in one run.
            """,
        options: [
            .json,
            Option(
                "pressure", .flag,
                help:
                    "Touch it while only half of it may be in memory: page-out happens at the same time."
            ),
            Option(
                "fragmented", .flag,
                help:
                    "Fill the swap area first and free every other page: hardly two pages of the measured memory are neighbours in it then. It must be three times as large as --size, and this memory's alone."
            ),
            Option("size", .size, default: "200MiB", help: "How much memory to page out."),
            Option(
                "seed", .integer(0...Int64.max), default: "1", help: "Order of the random touches."),
        ],
        run: { invocation in
            let group = OwnMemoryGroup()
            var exerciser = try SwapExerciser(size: invocation.size("size"), group: group.path)
            let seed = UInt64(invocation.integer("seed"))
            if invocation.flag("fragmented") { try exerciser.fragment() }
            let result =
                invocation.flag("pressure")
                ? try exerciser.runUnderPressure(seed: seed, in: group)
                : try exerciser.run(seed: seed)
            printOut(invocation.flag("json") ? json(result) : text(result))
            return result.wrongPages == 0 ? .done : .checkFailed
        })

    private static func json(_ result: SwapMeasurement) -> String {
        let value: JSONValue = [
            "schema": 1, "pages": JSONValue(result.pages),
            "page_out_pages_per_second": JSONValue(result.pageOutPerSecond),
            "page_out_complete_pages_per_second": JSONValue(result.pageOutCompletePerSecond),
            "random_in_p50_us": JSONValue(Double(result.percentile(0.5)) / 1000),
            "random_in_p99_us": JSONValue(Double(result.percentile(0.99)) / 1000),
            "random_faults": JSONValue(result.faults.count),
            "random_in_pages_per_second": JSONValue(result.randomPerSecond),
            "sequential_in_pages_per_second": JSONValue(result.sequentialPerSecond),
            "prefetch_in_pages_per_second": JSONValue(result.prefetchPerSecond),
            "major_faults": JSONValue(result.majorFaults),
            "wrong_pages": JSONValue(result.wrongPages),
        ]
        return value.rendered() + "\n"
    }

    private static func text(_ result: SwapMeasurement) -> String {
        var table = TextTable([.init("WHAT"), .right("FIGURE"), .init("UNIT")])
        table.append(["page-out", "\(Int(result.pageOutPerSecond))", "pages/s"])
        table.append([
            "page-out until gone", "\(Int(result.pageOutCompletePerSecond))", "pages/s",
        ])
        table.append(["random swap-in p50", "\(result.percentile(0.5) / 100)", "0.1 us"])
        table.append(["random swap-in p99", "\(result.percentile(0.99) / 100)", "0.1 us"])
        table.append(["random faults", "\(result.faults.count)", "of \(result.pages)"])
        table.append(["random swap-in", "\(Int(result.randomPerSecond))", "pages/s"])
        table.append(["sequential swap-in", "\(Int(result.sequentialPerSecond))", "pages/s"])
        table.append(["prefetched swap-in", "\(Int(result.prefetchPerSecond))", "pages/s"])
        table.append(["wrong pages", "\(result.wrongPages)", ""])
        return table.rendered()
    }
}
