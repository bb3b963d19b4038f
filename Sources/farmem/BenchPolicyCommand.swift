import CommandLineKit
import Containers
import FarMemory
import Glibc
import JSONText
import LinuxSystem
import OffloadPolicy

/// `farmem bench policy`: what decisions and measures cost.
enum BenchPolicyCommand {
    static let command = Command(
        name: "policy", summary: "measure what deciding for many containers costs",
        discussion: """
            Drives the policy with made-up containers, half of them waiting, a quarter draining, a quarter serving requests, each with a request \
            every ten seconds and a measure every second, and tells the processor time of a tick of 100 ms: the tick alone, and with the events \
            between two ticks. Then reads the figures of as many control groups in a made-up tree. Judged at 10,000 containers: a tick with its \
            events within 10 ms, 64 MiB resident, and no more than three times the time per container at the largest count than at the smallest.
            """,
        options: [
            .json,
            Option(
                "containers", .integer(1...1_000_000), repeatable: true,
                help: "How many (default 1000, 10000 and 100000)."),
            Option("ticks", .integer(1...100_000), default: "200", help: "Ticks per count."),
            Option(
                "groups", .integer(0...60_000), default: "10000",
                help: "Groups of the made-up tree; 0 leaves it out."),
            Option(
                "directory", .string, default: "/dev/shm", help: "Where the tree is made."),
            Option(
                "policy", .choice(PolicyKind.allCases.map(\.rawValue)), default: "farmem",
                help: "Which law."),
        ],
        run: run)

    private static let run: @Sendable (Invocation) throws -> ExitStatus = { invocation in
        var counts = invocation.strings("containers").compactMap { Int($0) }.sorted()
        if counts.isEmpty { counts = [1000, 10_000, 100_000] }
        let kind = PolicyKind(rawValue: invocation.string("policy")) ?? .farmem
        var costs: [PolicyCost] = []
        for count in counts {
            var load = PolicyLoad(containers: count, kind: kind)
            costs.append(load.measure(ticks: invocation.integer("ticks")))
        }
        var reading: GroupReadingCost?
        if invocation.integer("groups") > 0 {
            reading = try measureGroupReading(
                invocation.integer("groups"), below: invocation.string("directory"))
        }
        let faults = judge(costs)
        report(invocation, costs, reading, faults)
        return faults.isEmpty ? .done : .checkFailed
    }

    private static func judge(_ costs: [PolicyCost]) -> [String] {
        var faults: [String] = []
        if let cost = costs.first(where: { $0.containers == 10_000 }) {
            if cost.whole.p99 > 10_000_000 { faults.append("10,000 containers: over 10 ms a tick") }
            if cost.resident > .mib(64) { faults.append("10,000 containers: over 64 MiB") }
        }
        if let first = costs.first, let last = costs.last, first.containers < last.containers {
            let small = Double(first.whole.median) / Double(first.containers)
            let large = Double(last.whole.median) / Double(last.containers)
            if large > 3 * small {
                faults.append("not linear: time per container more than triples")
            }
        }
        return faults
    }

    private static func report(
        _ invocation: Invocation, _ costs: [PolicyCost], _ reading: GroupReadingCost?,
        _ faults: [String]
    ) {
        if invocation.flag("json") {
            let result: JSONValue = [
                "schema": 1, "machine": machineFacts(),
                "policy": JSONValue(invocation.string("policy")),
                "counts": .array(costs.map(\.json)), "groups": reading?.json ?? .null,
                "faults": .array(faults.map { JSONValue($0) }),
            ]
            printOut(result.rendered() + "\n")
            return
        }
        var table = TextTable([
            .right("containers"), .right("tick p50 ms"), .right("p99 ms"),
            .right("with events p50 ms"),
            .right("p99 ms"), .right("ns per container"), .right("decisions per tick"),
            .right("resident"),
        ])
        for cost in costs {
            table.append([
                "\(cost.containers)", milliseconds(cost.tick.median), milliseconds(cost.tick.p99),
                milliseconds(cost.whole.median), milliseconds(cost.whole.p99),
                "\(cost.whole.median / Int64(cost.containers))",
                "\(cost.decisions)", "\(cost.resident.bytes >> 20)MiB",
            ])
        }
        printOut(table.rendered())
        if let reading {
            printOut(
                "\(reading.groups) groups read in \(milliseconds(reading.nanoseconds)) ms of processor time,"
                    + " \(reading.nanoseconds / Int64(reading.groups) / 1000) us each\n")
        }
        for fault in faults { printOut("FAILED: \(fault)\n") }
    }
}

private func milliseconds(_ nanoseconds: Int64) -> String {
    let micros = nanoseconds / 1000
    let rest = "\(micros % 1000)"
    return "\(micros / 1000)." + String(repeating: "0", count: 3 - rest.utf8.count) + rest
}

/// Processor time of this thread in nanoseconds.
private func processorTime() -> Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// Quantiles of a series, in nanoseconds.
struct CostQuantiles: Sendable {
    let median: Int64
    let p99: Int64
    let maximum: Int64

    init(_ values: [Int64]) {
        let sorted = values.sorted()
        median = sorted[sorted.count / 2]
        p99 = sorted[min(sorted.count - 1, sorted.count * 99 / 100)]
        maximum = sorted[sorted.count - 1]
    }

    var json: JSONValue {
        ["p50_ns": JSONValue(median), "p99_ns": JSONValue(p99), "max_ns": JSONValue(maximum)]
    }
}

struct PolicyCost: Sendable {
    let containers: Int
    let tick: CostQuantiles
    let whole: CostQuantiles
    let decisions: Int
    let resident: ByteCount

    var json: JSONValue {
        [
            "containers": JSONValue(containers), "tick": tick.json, "tick_with_events": whole.json,
            "decisions_per_tick": JSONValue(decisions), "resident_bytes": JSONValue(resident.bytes),
        ]
    }
}

/// Containers that the policy decides for.
struct PolicyLoad {
    private static let interval = Nanoseconds.milliseconds(100)
    private static let perFunction = 10

    private var policy: PolicyMachine
    private let count: Int
    private var now = Nanoseconds.seconds(1000)
    private var random = SeededRandom(seed: 1)
    private var reports: [Decision] = []
    private var decisions: [Decision] = []
    private let host = HostMeasure(pressurePermille: 0, farFree: .gib(4096))

    init(containers: Int, kind: PolicyKind) {
        count = containers
        var settings = PolicySettings(kind)
        // A quarter drains for the whole measurement, the other idle ones wait.
        settings.semiWarmPrior = .seconds(3600)
        settings.drainRate = .bytesPerSecond(.kib(512))
        settings.semiWarmDelays = Dictionary(
            uniqueKeysWithValues: (0..<max(1, containers / Self.perFunction)).filter { $0 % 4 == 0 }
                .map { ("function-\($0)", Nanoseconds.zero) })
        policy = PolicyMachine(settings: settings, at: now)
        policy.tick(host: host, at: now, into: &decisions)
        for number in 0..<containers {
            send(.started(function: "function-\(number / Self.perFunction)"), number)
            measureContainer(number)
            send(.runtimeReady, number)
            send(.initDone(recycledAt: nil), number)
        }
        finish()
    }

    private mutating func send(_ event: ContainerEvent, _ number: Int) {
        policy.handle(event, of: ContainerHandle(UInt64(number)), at: now, into: &decisions)
    }

    private mutating func measureContainer(_ number: Int) {
        send(
            .measured(
                ContainerMeasure(
                    local: .gib(1), far: .mib(64), anonymous: .mib(256), refaults: 0)), number)
    }

    /// The engine is done before the next tick.
    private mutating func finish() {
        swap(&reports, &decisions)
        decisions.removeAll(keepingCapacity: true)
        for decision in reports {
            var report = ActionReport(action: decision.action)
            switch decision.action {
            case .examine(_, let grant), .drain(let grant), .reclaim(let grant):
                report.written = grant
            case .release:
                report.released = PageCount(1000)
                report.hot = PageCount(1000)
            default: continue
            }
            policy.handle(
                .reported(report), of: decision.container, at: now, into: &decisions)
        }
        decisions.removeAll(keepingCapacity: true)
    }

    mutating func measure(ticks: Int) -> PolicyCost {
        var ticking: [Int64] = []
        var whole: [Int64] = []
        var decided = 0
        let quarter = count - count / 4
        for tick in 0..<(ticks + 20) {
            now += Self.interval
            let began = processorTime()
            // A quarter is busy: one in a hundred begins, and one ends, at each tick.
            for _ in 0..<(count / 100) {
                let number = quarter + random.below(max(1, count / 4))
                if number < count {
                    send(
                        random.chance(1, in: 2) ? .requestStarted : .requestEnded(recycledAt: nil),
                        number)
                }
            }
            var number = tick % 10
            while number < count {
                measureContainer(number)
                number += 10
            }
            let ticked = processorTime()
            policy.tick(host: host, at: now, into: &decisions)
            let ended = processorTime()
            decided += decisions.count
            finish()
            // What the first ticks allocate is there from then on.
            guard tick >= 20 else { continue }
            ticking.append(ended - ticked)
            whole.append(processorTime() - began)
        }
        return PolicyCost(
            containers: count, tick: CostQuantiles(ticking), whole: CostQuantiles(whole),
            decisions: decided / (ticks + 20), resident: residentMemory())
    }
}

private func residentMemory() -> ByteCount {
    for line in (try? readSmallText("/proc/self/status"))?.split(separator: "\n") ?? []
    where line.hasPrefix("VmRSS:") {
        let words = line.split(separator: " ", omittingEmptySubsequences: true)
        return ByteCount((words.count > 1 ? UInt64(words[1]) ?? 0 : 0) << 10)
    }
    return .zero
}

// MARK: Groups

struct GroupReadingCost: Sendable {
    let groups: Int
    let nanoseconds: Int64

    var json: JSONValue {
        ["groups": JSONValue(groups), "processor_ns": JSONValue(nanoseconds)]
    }
}

/// Makes a tree with the files that Containers reads, and reads them all once as the daemon does each second.
private func measureGroupReading(
    _ count: Int, below parent: String
) throws -> GroupReadingCost {
    var limit = rlimit(rlim_cur: 0, rlim_max: 0)
    unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = limit.rlim_max
    unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    let root = "\(parent)/farmem-bench-policy-\(getpid())"
    let fields = [
        "anon 67108864", "file 8388608", "swapcached 4096", "file_writeback 0",
        "workingset_refault_anon 17", "pgmajfault 9",
    ]
    let filler = (0..<45).map { "other_figure_\($0) \($0 * 4096)" }
    let statistics = (fields + filler).joined(separator: "\n") + "\n"
    defer { removeTree(root, count) }
    try makeDirectories(root)
    var groups: [MemoryGroup] = []
    let tree = ControlGroups(version: .v2, memoryMount: root, processorMount: nil)
    for number in 0..<count {
        let path = "/group-\(number)"
        try makeDirectories(root + path)
        for (name, content) in [
            ("memory.stat", statistics), ("memory.current", "75497472\n"),
            ("memory.swap.current", "1048576\n"), ("cgroup.procs", ""),
        ] {
            let file = try FileDescriptor.open(
                "\(root)\(path)/\(name)", O_WRONLY | O_CREAT, mode: 0o600)
            try file.writeAll(content)
        }
        groups.append(try tree.open(path))
    }
    let began = processorTime()
    var sum: UInt64 = 0
    for group in groups where group.isCurrent { sum += try group.use().local.bytes }
    let ended = processorTime()
    guard sum == UInt64(count) * 75_497_472 else {
        throw CommandFailure(.bug, "the made-up groups were not read right")
    }
    return GroupReadingCost(groups: count, nanoseconds: ended - began)
}

private func removeTree(_ root: String, _ count: Int) {
    for number in 0..<count {
        for name in ["memory.stat", "memory.current", "memory.swap.current", "cgroup.procs"] {
            unsafe unlink("\(root)/group-\(number)/\(name)")
        }
        unsafe rmdir("\(root)/group-\(number)")
    }
    unsafe rmdir(root)
}
