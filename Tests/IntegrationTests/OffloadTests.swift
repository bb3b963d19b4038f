import FarMemory
import HTTPEndpoint
import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = Capability.all([
    .root, .swap, .loopDevices, .memoryControllerV1, .command("python3"),
])

/// The offload controller on real processes in a real control group with real swap.
@Suite(.serialized, .enabled(if: needs.isUsable, "\(needs.reason)"), .timeLimit(.minutes(5)))
struct OffloadTests {
    private func inWorld(_ body: (OffloadWorld) throws -> Void) throws {
        let world = try OffloadWorld()
        defer { world.tearDown() }
        try body(world)
    }

    @Test func coldPagesLeaveHotPagesStayAndARequestBringsThemBack() throws {
        try inWorld { world in
            // On a busy machine the kernel may take the hot pages before the request, which would be a rest of 20 s.
            _ = try world.startController(["--refault-max", "1"])
            let worker = try world.startWorker("a", mebibytes: 64)
            try world.send("container_started")
            try world.send("init_done")
            for _ in 0..<2 {
                // A quarter of the pages is hot.
                try world.request(worker, touching: 4096)
                sleepNanoseconds(400_000_000)
            }
            try world.wait(5, "the untouched pages have left") {
                (try world.container()?["far_bytes"]?.integer ?? 0) > 40 << 20
            }
            let hot = try world.container()?["hot_touches"]?.integer ?? 0
            #expect(hot >= 4096 && hot < 8192, "the hot pages, and the interpreter's own")
            try world.wait(20, "the idle container is drained") {
                try world.container()?["state"]?.string == "drained"
            }
            #expect((try world.container()?["local_bytes"]?.integer ?? .max) < 24 << 20)
            try world.send("request_start")
            try world.wait(5, "the working set is prefetched") {
                (try world.container()?["recalled_bytes"]?.integer ?? 0) >= 8 << 20
            }
            #expect(try worker.touch(first: 0, count: 16384) == 0, "no page may be wrong")
            try world.send("request_end")
            let rules = try world.get("/v1/events")["events"]?.array?.compactMap {
                $0["rule"]?.string
            }
            for rule in ["init-pucket", "semi-warm", "prefetch"] {
                #expect(rules?.contains(rule) == true, "no event tells of \(rule)")
            }
        }
    }

    @Test func aWorkingSetStaysTogetherInTheSwapAreaFromWakeUpToWakeUp() throws {
        try inWorld { world in
            // The first window measures what is in use, so that the first wake-up can map it. Others would unmap pages for themselves.
            _ = try world.startController([
                "--refault-max", "1", "--request-window", "1", "--rollback-interval", "10m",
            ])
            let worker = try world.startWorker("t", mebibytes: 32)
            try world.send("container_started")
            try world.send("init_done")
            for _ in 0..<3 {
                try world.request(worker, touching: 8192)
                sleepNanoseconds(300_000_000)
            }
            var pagesAtOnce: [Int] = []
            for _ in 0..<4 {
                try world.wait(30, "the idle container is drained") {
                    try world.container()?["state"]?.string == "drained"
                }
                let known = try world.container()?["recalled_bytes"]?.integer ?? 0
                let before = try world.swapReads()
                try world.send("request_start")
                try world.wait(10, "the working set is back") {
                    (try world.container()?["recalled_bytes"]?.integer ?? 0) > known + (24 << 20)
                }
                // Every second page is written: without mapping they would move away from the others.
                #expect(try worker.touch(first: 0, count: 8192, writingEach: 2) == 0)
                let after = try world.swapReads()
                try world.send("request_end")
                pagesAtOnce.append(
                    (after.pages - before.pages) / max(1, after.requests - before.requests))
            }
            // One page alone is what comes at once of two areas in turn.
            #expect(pagesAtOnce.allSatisfy { $0 >= 3 }, "pages per read: \(pagesAtOnce)")
        }
    }

    @Test func aRequestInTheWindowOfAnExaminationTakesMinorFaultsAlone() throws {
        try inWorld { world in
            // Its pages have been far and were not changed since: there is nothing to write, and an examination alone would free them.
            _ = try world.startController([
                "--refault-max", "1", "--prefetch", "off", "--request-window", "1",
                "--rollback-interval", "1s", "--rollback-share", "1",
            ])
            let worker = try world.startWorker("g", mebibytes: 32)
            try world.send("container_started")
            try world.send("init_done")
            for _ in 0..<8 {
                try world.wait(20, "the idle container is drained") {
                    try world.container()?["state"]?.string == "drained"
                }
                let known = try world.examinations(of: 16 << 20)
                let far = try worker.majorFaults()
                try world.request(worker, touching: 8192)
                let ended = monotonicNow()
                let near = try worker.majorFaults()
                #expect(near - far > 100, "all of it had left")
                while try world.examinations(of: 16 << 20) == known,
                    monotonicNow() - ended < 500_000_000
                { sleepNanoseconds(5_000_000) }
                guard try world.examinations(of: 16 << 20) > known else { continue }
                try world.request(worker, touching: 8192)
                // On a slow machine it has been drained meanwhile.
                guard monotonicNow() - ended < 900_000_000 else { continue }
                #expect(try worker.majorFaults() - near < 100)
                return
            }
            Issue.record("no request came in time after an examination")
        }
    }

    @Test func aLimitLoweredByAKilledControllerIsRestoredAtTheNextStart() throws {
        try inWorld { world in
            let before = try world.limit()
            let first = try world.startController(["--fault-hold-limit", "20s"])
            let worker = try world.startWorker("b", mebibytes: 48, forks: true)
            try world.send("container_started")
            try world.send("init_done")
            try world.wait(30, "the controller lowers the limit") { try world.limit() != before }
            try first.kill()
            #expect(try world.limit() != before, "the limit is still low after kill -9")
            let second = try world.startController()
            #expect(try world.limit() == before)
            #expect(second.standardError.contains("knob_restored"))
            // One, or more when the controller had lowered it again before it was killed.
            #expect((try world.get("/v1/status")["knobs_restored_at_start"]?.integer ?? 0) >= 1)
            #expect(try worker.touch(first: 0, count: 12288) == 0)
        }
    }

    /// Of each thread of a process, by its name.
    private func threadNiceness(of process: TestProcess) throws -> [String: Int] {
        let tasks = "/proc/\(process.pid)/task"
        var niceness: [String: Int] = [:]
        for task in try directoryEntries(tasks) {
            let stat = try readSmallText("\(tasks)/\(task)/stat")
            guard let open = stat.firstIndex(of: "("), let close = stat.lastIndex(of: ")")
            else { continue }
            let name = String(stat[stat.index(after: open)..<close])
            // proc(5): the 19th field; the third follows the name.
            let fields = stat[stat.index(after: close)...].split(separator: " ")
            niceness[name] = Int(fields[16])
        }
        return niceness
    }

    @Test func nobodyWaitsForTheThreadThatMovesPagesOut() throws {
        try inWorld { world in
            let controller = try world.startController()
            // It is ready when its threads have been started, not when each has named itself.
            try world.wait(5, "the mover alone steps back") {
                let niceness = try threadNiceness(of: controller)
                return niceness["fm-mover"] == 10 && niceness["fm-recall-0"] == 0
                    && niceness["fm-control"] == 0
            }
        }
    }

    @Test func aSecondControllerIsRefused() throws {
        try inWorld { world in
            _ = try world.startController()
            let second = try TestProcess(
                "offloadd",
                [
                    "run", "--listen", "unix:\(world.directory.file("other.sock"))",
                    "--state-dir", world.directory.file("state"),
                ])
            #expect(try second.wait(seconds: 10) == .exited(75))
            #expect(second.standardError.contains("another offloadd uses"))
        }
    }

    @Test func aContainerThatVanishesMidDrainIsForgottenAndItsSuccessorLeftAlone() throws {
        try inWorld { world in
            let controller = try world.startController(drainPercent: 20)
            let worker = try world.startWorker("c", mebibytes: 64)
            try world.send("container_started")
            try world.send("init_done")
            try world.wait(10, "the drain begins") { try worker.swapped() > 4096 }
            try worker.process.kill()
            let path = OffloadWorld.mount + OffloadWorld.group
            try world.wait(10, "the group can be removed") {
                (try? world.run("rmdir", [path])) != nil
            }
            try makeDirectories(path)
            let successor = try world.startWorker("d", mebibytes: 32)
            try world.wait(5, "the container is forgotten") {
                try world.get("/v1/containers")["containers"]?.array?.isEmpty == true
            }
            sleepNanoseconds(2_000_000_000)
            #expect(try successor.swapped() == 0, "the new group of that name is another one")
            #expect(try successor.touch(first: 0, count: 8192) == 0)
            #expect(try controller.terminate() == .exited(0))
        }
    }

    @Test func aDrainBringsEverythingBackAndNothingLeavesUntilItIsTakenBack() throws {
        try inWorld { world in
            // So slow that it can be looked at.
            let controller = try world.startController(["--bandwidth", "32MiB/s"])
            let worker = try world.startWorker("m", mebibytes: 64)
            try world.send("container_started")
            try world.send("init_done")
            try world.wait(30, "the idle container is drained") {
                try world.container()?["state"]?.string == "drained"
            }
            #expect((try world.container()?["far_bytes"]?.integer ?? 0) > 48 << 20)
            let socket = "unix:\(world.directory.file("offloadd.sock"))"
            let drain = try TestProcess("farmem", ["drain", "--offloadd", socket])
            try world.wait(10, "somebody waits for the mover now") {
                try threadNiceness(of: controller)["fm-mover"] == 0
            }
            #expect(try drain.wait(seconds: 60) == .exited(0), "\(drain.standardError)")
            #expect((try world.container()?["far_bytes"]?.integer ?? .max) < 4 << 20)
            #expect(try world.get("/v1/status")["paused_by"]?.string == "maintenance")
            try world.wait(5, "nobody does any more") {
                try threadNiceness(of: controller)["fm-mover"] == 10
            }
            // A request comes and goes; it stays local.
            try world.request(worker, touching: 16384)
            sleepNanoseconds(2_500_000_000)
            #expect((try world.container()?["far_bytes"]?.integer ?? .max) < 4 << 20)
            let off = try TestProcess("farmem", ["drain", "--off", "--offloadd", socket])
            #expect(try off.wait(seconds: 20) == .exited(0))
            try world.wait(30, "it is drained again") {
                (try world.container()?["far_bytes"]?.integer ?? 0) > 48 << 20
            }
        }
    }

    @Test func nonsenseIsRefusedAndTheStatusStaysReadable() throws {
        try inWorld { world in
            _ = try world.startController(["--dry-run"])
            let client = world.client()
            let bad = try client.request(
                "POST", "/v1/events", body: Array("{".utf8), timeout: .seconds(5))
            #expect(bad.status == 400)
            #expect(try client.request("GET", "/nothing", timeout: .seconds(5)).status == 404)
            #expect(try client.request("GET", "/healthz", timeout: .seconds(5)).status == 200)
            let metrics = try client.request("GET", "/metrics", timeout: .seconds(5)).text
            #expect(metrics.contains("farmem_offload_containers 0"))
            #expect(try world.get("/v1/status")["dry_run"]?.bool == true)
        }
    }
}
