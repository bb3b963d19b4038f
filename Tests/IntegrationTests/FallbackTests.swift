import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = Capability.all([SwapHost.needs, .command("mount"), .command("umount")])

/// What happens to the far memory under a mirrored device.
private enum Loss: String, CaseIterable, Sendable {
    /// The lease's files are gone from the pool, and nobody can give slabs.
    case poolOfShm
    /// An empty pool took its place.
    case leaseOfShm
    /// Nobody answers any more.
    case serverOfNBD
}

/// Swap devices with a fallback file on this machine's disk.
@Suite(.serialized, .enabled(if: needs.isUsable, "\(needs.reason)"), .timeLimit(.minutes(5)))
struct FallbackTests {
    /// Where the fallback file is: on a disk, for it is written with direct I/O.
    private let disk: TemporaryDirectory

    init() throws { disk = try TemporaryDirectory() }

    private func counter(_ host: SwapHost, _ name: String) throws -> Int64 {
        try #require(try host.device()["counters"]?["\(name)_total"]?.integer)
    }

    private func eventually(_ what: String, _ condition: () throws -> Bool) throws {
        let deadline = monotonicNow() + 60_000_000_000
        while try !condition() {
            try #require(monotonicNow() < deadline, "not within 60 s: \(what)")
            sleepNanoseconds(10_000_000)
        }
    }

    @Test func whatAFullPoolRefusesGoesToTheFileAndComesBack() throws {
        let host = try SwapHost()
        let server = try Memserver(capacity: "16MiB", slab: "64KiB")
        try host.attach(
            url: "shm:\(server.socket)", size: "96MiB", ["--fallback", disk.file("pages")])
        let result = try host.bench("swap", "--size", "64MiB", "--json")
        #expect(result.end == .exited(0), "\(result.error)")
        let report = try JSONValue.parse(result.output)
        #expect(report["wrong_pages"]?.integer == 0)
        #expect((report["major_faults"]?.integer ?? 0) > 16000)
        let (out, kept) = (
            try counter(host, "pages_out"), try counter(host, "fallback_pages_out")
        )
        // 16 MiB are 4096 pages; each page goes out at least once, and none is refused.
        #expect(out >= 16384)
        #expect(kept > 10000 && kept < out - 1000, "\(kept) of \(out)")
        #expect(try counter(host, "fallback_pages_in") > 10000)
        #expect(try counter(host, "store_no_space") == 0)
        #expect(try counter(host, "load_failed") == 0)
        #expect(try counter(host, "fallback_errors") == 0)
        let fabric = try #require(try host.device()["fabric"])
        #expect((fabric["refused_no_space_total"]?.integer ?? 0) > 0)
        #expect(try host.farswap("detach", "t0").end == .exited(0))
        #expect(try host.processes().isEmpty)
    }

    @Test(arguments: Loss.allCases)
    private func aMirrorOutlivesTheMemoryNode(_ loss: Loss) throws {
        let host = try SwapHost()
        let server = try Memserver(
            ["--auto-lease", "64MiB"], capacity: "128MiB", slab: "1MiB", nbd: .unix)
        let url =
            loss == .serverOfNBD
            ? "nbd+unix:///far?socket=\(server.nbdSocket)" : "shm:\(server.socket)"
        try host.attach(
            url: url, size: "64MiB",
            [
                "--frontend", "fuse", "--fallback", disk.file("pages"), "--fallback-mode", "mirror",
                "--store-deadline", "20ms",
            ])
        let bench = try TestProcess(
            "farmem",
            [
                "bench", "integrity", "--swap-ins", "100000000", "--size", "24MiB", "--seed", "3",
                "--time", "100s", "--stall", "20s", "--json",
            ], environment: host.environment)
        // It runs for as long as we need it: only requests show that an NBD server is gone.
        try eventually("pages come back") { try counter(host, "pages_in") > 1000 }
        try #require(bench.isRunning)
        try server.process.kill()
        removeTree(server.pool)
        if loss == .leaseOfShm {
            try server.restartAfterKill()
            try eventually("it knows") { try host.device()["state"]?.string == "lost" }
        } else {
            try eventually("it knows") { try host.device()["state"]?.string == "reconnecting" }
        }
        let (before, kept) = (
            try counter(host, "pages_in"), try counter(host, "fallback_pages_in")
        )
        try eventually("pages come back without the memory node") {
            try counter(host, "pages_in") > before + 1000
        }
        // The mapped files outlive their names: only the other two need the copy.
        if loss != .poolOfShm {
            try eventually("pages come back from the file") {
                try counter(host, "fallback_pages_in") > kept + 1000
            }
        }
        try bench.signal(SIGTERM)
        #expect(try bench.wait(seconds: 60) == .exited(0), "\(bench.standardError)")
        let report = try JSONValue.parse(bench.standardOutput)
        #expect(report["wrong_pages"]?.integer == 0)
        #expect(report["dead_processes"]?.integer == 0)
        #expect(try counter(host, "load_failed") == 0)
        #expect(try counter(host, "fallback_pages_out") > 1000)
        #expect(try host.farswap("detach", "t0").end == .exited(0))
        #expect(try host.processes().isEmpty)
    }

    @Test func aFileThatCannotBeIsOneLineAndChangesNothing() throws {
        let host = try SwapHost()
        let server = try Memserver(capacity: "16MiB")
        let full = disk.file("full")
        try makeDirectories(full)
        let mounted = try TestProcess.run(
            "/bin/mount", ["-t", "tmpfs", "-o", "size=1m", "farmem-test", full])
        try #require(mounted.end == .exited(0), "\(mounted.error)")
        defer { _ = try? TestProcess.run("/bin/umount", [full]) }
        for path in ["\(full)/pages", disk.file("nowhere/pages"), disk.path] {
            try host.expectNothingDone(
                by: WrongUse(
                    ["attach", "shm:\(server.socket)", "--size", "8MiB", "--fallback", path], 71))
        }
    }
}
