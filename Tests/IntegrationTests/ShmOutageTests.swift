import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = SwapHost.needs

/// Swap devices over shared memory whose memserver is away, so that the processes behind a device have only
/// what they leave each other.
@Suite(.serialized, .enabled(if: needs.isUsable, "\(needs.reason)"), .timeLimit(.minutes(5)))
struct ShmOutageTests {
    private func dataPid(_ host: SwapHost) throws -> Int32 {
        Int32(try #require(try host.device()["data_pid"]?.integer))
    }

    private func keeperPid(_ host: SwapHost) throws -> Int32 {
        Int32(try #require(try host.device()["keeper_pid"]?.integer))
    }

    private func eventually(
        _ what: String, within seconds: Int64 = 10, _ condition: () throws -> Bool
    ) throws {
        let deadline = monotonicNow() + seconds * 1_000_000_000
        while try !condition() {
            try #require(monotonicNow() < deadline, "not within \(seconds) s: \(what)")
            sleepNanoseconds(2_000_000)
        }
    }

    private func awaitState(_ host: SwapHost, _ state: String) throws {
        try eventually("the state is \(state)") { try host.device()["state"]?.string == state }
    }

    /// Kills the data process and waits until another one serves without a server.
    private func replaceDataProcess(_ host: SwapHost) throws {
        let old = try dataPid(host)
        kill(old, SIGKILL)
        try eventually("a successor serves") {
            let status = try host.device()
            return status["data_pid"]?.integer != Int64(old)
                && status["state"]?.string == "reconnecting"
        }
    }

    private func openDescriptors(_ pid: Int32) throws -> Int {
        try directoryEntries("/proc/\(pid)/fd").count
    }

    @Test func successorsServeWhileMemserverIsAway() throws {
        let host = try SwapHost()
        let server = try Memserver(capacity: "256MiB", slab: "1MiB")
        try host.attach(url: "shm:\(server.socket)", size: "48MiB")
        let bench = try TestProcess(
            "farmem",
            [
                "bench", "integrity", "--swap-ins", "100000000", "--size", "32MiB", "--seed", "7",
                "--time", "100s", "--stall", "5s", "--json",
            ], environment: host.environment)
        // With all slabs granted no store can fail, which would leave the processes without memory.
        try eventually("pages are in every slab", within: 30) {
            let status = try host.device()
            return status["fabric"]?["slabs"]?.integer == 48
                && (status["counters"]?["pages_in_total"]?.integer ?? 0) > 5000
        }
        try server.process.kill()
        try awaitState(host, "reconnecting")
        var kills = 0
        let before = try #require(try host.device()["counters"]?["pages_in_total"]?.integer)
        while kills < 12 {
            try replaceDataProcess(host)
            kills += 1
            if kills == 6 {
                let keeper = try keeperPid(host)
                kill(keeper, SIGKILL)
                try eventually("a new keeper") { try keeperPid(host) != keeper }
            }
            sleepNanoseconds(50_000_000)
        }
        // Pages came back in the meantime, and only from what was left.
        let after = try #require(try host.device()["counters"]?["pages_in_total"]?.integer)
        #expect(after > before + 1000)
        try bench.signal(SIGTERM)
        #expect(try bench.wait(seconds: 110) == .exited(0), "\(bench.standardError)")
        let report = try JSONValue.parse(bench.standardOutput)
        #expect(report["wrong_pages"]?.integer == 0)
        #expect(report["dead_processes"]?.integer == 0)
        #expect(try host.device()["counters"]?["load_failed_total"]?.integer == 0)

        try server.restartAfterKill()
        try awaitState(host, "attached")
        // Most slabs were given back when the processes had ended: they are granted again.
        let swap = try host.bench("swap", "--size", "32MiB", "--json")
        #expect(swap.end == .exited(0), "\(swap.error)")
        #expect(try JSONValue.parse(swap.output)["wrong_pages"]?.integer == 0)
        #expect(try host.farswap("status", "--repair").end == .exited(0))
        #expect(try host.farswap("detach", "t0").end == .exited(0))
        #expect(try host.processes().isEmpty)
        // What was left is with nobody any more.
        #expect(try server.status()["leases"]?.array?.isEmpty == true)
        #expect(try server.process.terminate() == .exited(0))
    }

    @Test func successorsLeakNoDescriptor() throws {
        let host = try SwapHost()
        let server = try Memserver(capacity: "64MiB", slab: "1MiB")
        try host.attach(url: "shm:\(server.socket)", size: "32MiB")
        try server.process.kill()
        let keeper = try keeperPid(host)
        for _ in 0..<3 { try replaceDataProcess(host) }
        let before = (try openDescriptors(keeper), try openDescriptors(dataPid(host)))
        for _ in 0..<60 { try replaceDataProcess(host) }
        #expect(try keeperPid(host) == keeper)
        try eventually("no more descriptors than before") {
            (try openDescriptors(keeper), try openDescriptors(dataPid(host))) == before
        }
        try server.restartAfterKill()
        try awaitState(host, "attached")
        #expect(try host.farswap("detach", "t0").end == .exited(0))
    }

    @Test func anotherLeaseUnderTheOldNameIsAnErrorNotZeros() throws {
        let host = try SwapHost()
        let server = try Memserver(capacity: "64MiB", slab: "1MiB")
        try host.attach(url: "shm:\(server.socket)", size: "32MiB")
        try server.process.kill()
        removeTree(server.pool)
        kill(try dataPid(host), SIGKILL)
        try server.restartAfterKill()
        try awaitState(host, "lost")
        #expect(try server.status()["leases"]?.array?.isEmpty == true)
        #expect(try host.farswap("detach", "t0").end == .exited(0))
    }
}
