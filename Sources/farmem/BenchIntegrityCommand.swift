import CommandLineKit
import FarMemory
import Glibc
import JSONText
import LinuxSystem
import Measurement
import SwapDevice

/// `farmem bench integrity`: verified swap-ins while the processes behind them are killed.
enum BenchIntegrityCommand {
    private static let sizeOption = Option(
        "size", .size, default: "64MiB", help: "Memory of each process.")

    static let command = Command(
        name: "integrity", summary: "verify every page that comes back while servers are killed",
        discussion: """
            Processes in a memory group of their own, allowed half of what they use, touch pages in random order and \
            check all bytes of each. Meanwhile the data process of a swap device, and any process named by --kill-pid-file, \
            is killed (SIGKILL) at random moments. A wrong page, a dead process or a stall longer than --stall fails the run.
            SIGTERM and SIGINT end it early: it is then judged by what it saw.
            """,
        options: [
            .json, sizeOption,
            Option("swap-ins", .integer(1...1_000_000_000), default: "100000", help: "How many."),
            Option("processes", .integer(1...64), default: "2", help: "How many touch pages."),
            Option("seed", .integer(0...Int64.max), default: "1", help: "Replays a run's choices."),
            Option("device", .string, help: "Kill the data process of this swap device."),
            Option(
                "kill-pid-file", .string, repeatable: true,
                help:
                    "Kill the process whose pid this file holds; whoever wrote it starts it again."),
            Option(
                "kill-interval", .duration, default: "200ms", help: "Between two kills, on average."
            ),
            Option("stall", .duration, default: "1s", help: "The longest stall allowed."),
            Option("time", .duration, default: "10m", help: "Give up after this long."),
        ],
        run: run)

    static let worker = Command(
        name: "integrity-worker", summary: "one process of an integrity run",
        options: [
            sizeOption,
            Option("swap-ins", .integer(1...1_000_000_000), required: true, help: "How many."),
            Option("seed", .integer(0...Int64.max), required: true, help: "Seed."),
            Option("time", .duration, required: true, help: "Give up after this long."),
        ], hidden: true,
        run: { invocation in
            let signals = try SignalEvents([SIGTERM, SIGINT])
            var worker = try IntegrityWorker(
                size: invocation.size("size"), seed: UInt64(invocation.integer("seed")))
            let report = worker.run(
                swapIns: UInt64(invocation.integer("swap-ins")),
                deadline: monotonicNow() + invocation.duration("time").nanoseconds,
                stopped: { signals.next() != nil })
            printOut(report.line + "\n")
            return .done
        })

    private static let run: @Sendable (Invocation) throws -> ExitStatus = { invocation in
        let signals = try SignalEvents([SIGTERM, SIGINT])
        let processes = invocation.integer("processes")
        let own = OwnMemoryGroup()
        let size = invocation.size("size")
        // Less than even the last process alone wants, so that it too has to swap to the end.
        let limit = Int(size.bytes) / 4 * 3 + processes * 2 << 20
        try own.setLimit(limit)
        defer { own.clearLimit() }
        own.waitInsteadOfKilling()
        var killer = Killer(
            device: invocation.stringIfSet("device"), files: invocation.strings("kill-pid-file"),
            interval: invocation.duration("kill-interval").nanoseconds,
            seed: UInt64(invocation.integer("seed")))
        var woken = 0
        // This process leaves the group once its workers are in it: somebody must be awake when all of them wait for memory.
        let outcome = try IntegrityRun(invocation).run(
            started: { try own.leave() },
            tick: {
                killer.tick()
                if own.wakeWaiting(limit: limit) { woken += 1 }
            }, stopped: { signals.next() != nil })
        printOut(
            invocation.flag("json")
                ? json(outcome, kills: killer.kills, woken: woken)
                : text(outcome, kills: killer.kills, woken: woken))
        let good =
            outcome.report.wrongPages == 0 && outcome.deadProcesses == 0
            && (outcome.endedEarly
                || outcome.report.swapIns >= UInt64(invocation.integer("swap-ins")))
            && outcome.report.worstStall <= invocation.duration("stall")
        if !good {
            printError(
                "farmem: the run failed; replay it with farmem bench integrity --seed \(invocation.integer("seed"))"
            )
        }
        return good ? .done : .checkFailed
    }

    private static func text(_ outcome: IntegrityOutcome, kills: Int, woken: Int) -> String {
        let report = outcome.report
        var table = TextTable([.init("WHAT"), .right("FIGURE")])
        table.append(["verified touches", "\(report.touches)"])
        table.append(["verified swap-ins", "\(report.swapIns)"])
        table.append(["kills", "\(kills)"])
        table.append(["memory group woken", "\(woken)"])
        table.append(["wrong pages", "\(report.wrongPages)"])
        table.append(["dead processes", "\(outcome.deadProcesses)"])
        table.append(["worst stall, ms", "\(report.worstStall.milliseconds)"])
        return table.rendered()
    }

    private static func json(_ outcome: IntegrityOutcome, kills: Int, woken: Int) -> String {
        let value: JSONValue = [
            "schema": 1, "touches": JSONValue(outcome.report.touches),
            "swap_ins": JSONValue(outcome.report.swapIns), "kills": JSONValue(kills),
            "group_woken": JSONValue(woken),
            "wrong_pages": JSONValue(outcome.report.wrongPages),
            "dead_processes": JSONValue(outcome.deadProcesses),
            "worst_stall_ms": JSONValue(Double(outcome.report.worstStall.nanoseconds) / 1e6),
        ]
        return value.rendered() + "\n"
    }
}

/// What all processes of a run saw together.
struct IntegrityOutcome {
    var report = IntegrityReport()
    var deadProcesses = 0
    /// Somebody asked for the end before all swap-ins were done.
    var endedEarly = false
}

/// Starts the processes and gathers what they say.
struct IntegrityRun {
    private let invocation: Invocation

    init(_ invocation: Invocation) { self.invocation = invocation }

    /// - Parameters:
    ///   - started: called once, when all processes are there.
    ///   - tick: called every few milliseconds while they run.
    ///   - stopped: whether the processes are to end now.
    func run(
        started: () throws -> Void, tick: () -> Void, stopped: () -> Bool
    ) throws -> IntegrityOutcome {
        let processes = invocation.integer("processes")
        let share = (invocation.integer("swap-ins") + processes - 1) / processes
        let program = try readLink("/proc/self/exe")
        var outputs: [Int32] = []
        var pids: [Int32] = []
        defer { for fd in outputs { close(fd) } }
        for index in 0..<processes {
            let (ours, theirs) = try makeSocketPair()
            outputs.append(ours)
            defer { close(theirs) }
            let child = try ChildProcess(
                program,
                [
                    program, "bench", "integrity-worker", "--size",
                    invocation.size("size").description, "--swap-ins", "\(share)", "--seed",
                    "\(invocation.integer("seed") &+ index)", "--time",
                    invocation.duration("time").description,
                ], descriptors: [(theirs, 1)], diesWithParent: true)
            pids.append(child.pid)
        }
        try started()
        return try gather(outputs, pids, tick, stopped)
    }

    private func gather(
        _ outputs: [Int32], _ pids: [Int32], _ tick: () -> Void, _ stopped: () -> Bool
    ) throws -> IntegrityOutcome {
        var outcome = IntegrityOutcome()
        var texts = [[UInt8]](repeating: [], count: outputs.count)
        var open = Set(outputs.indices)
        while !open.isEmpty {
            tick()
            if stopped() {
                outcome.endedEarly = true
                for index in open { kill(pids[index], SIGTERM) }
            }
            for index in open where try waitReady(outputs[index], .readable, timeout: 5_000_000) {
                var chunk = [UInt8](repeating: 0, count: 256)
                let got = unsafe chunk.withUnsafeMutableBytes {
                    unsafe read(outputs[index], $0.baseAddress, $0.count)
                }
                if got <= 0 { open.remove(index) } else { texts[index] += chunk[..<got] }
            }
        }
        for (index, pid) in pids.enumerated() {
            var status: Int32 = 0
            unsafe waitpid(pid, &status, 0)
            let line = String(decoding: texts[index], as: UTF8.self)
            guard status == 0, let report = IntegrityReport(line: line) else {
                outcome.deadProcesses += 1
                continue
            }
            outcome.report.add(report)
        }
        return outcome
    }
}

/// Kills what stands behind the pages, at seeded random moments.
struct Killer {
    private let device: String?
    private let files: [String]
    private let interval: Int64
    private var random: SeededRandom
    private var next: Int64
    private(set) var kills = 0

    init(device: String?, files: [String], interval: Int64, seed: UInt64) {
        self.device = device
        self.files = files
        self.interval = interval
        random = SeededRandom(seed: seed &+ 1_000_003)
        next = monotonicNow() + interval
    }

    /// Call often: kills one victim when its time has come.
    mutating func tick() {
        let victims = files.count + (device == nil ? 0 : 1)
        guard victims > 0, monotonicNow() >= next else { return }
        next = monotonicNow() + Int64(random.below(Int(2 * interval)) + 1)
        let choice = random.below(victims)
        guard let pid = choice < files.count ? pid(inFile: files[choice]) : dataPid(), pid > 1,
            kill(pid, SIGKILL) == 0
        else { return }
        kills += 1
    }

    private func pid(inFile path: String) -> Int32? {
        do throws(SystemError) {
            return Int32(try readSmallText(path).split(whereSeparator: \.isWhitespace).first ?? "")
        } catch {
            return nil
        }
    }

    private func dataPid() -> Int32? {
        guard let device else { return nil }
        do {
            let record = try DeviceDirectory().load(device)
            return try DeviceStatus(of: record).dataPid
        } catch {
            return nil
        }
    }
}
