import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = Capability.all([SwapHost.needs, .command("nbdkit"), .command("psktool")])

/// A memserver that offers NBD on a unix socket and on a pool that outlives it.
private final class NBDMemserver {
    private let arguments: [String]
    let socket: String
    private(set) var process: TestProcess

    init(_ host: SwapHost, autoLease: String, _ more: [String] = []) throws {
        let directory = host.directory
        socket = directory.file("nbd")
        arguments =
            [
                "serve", "--capacity", "512MiB", "--pool", directory.file("pool"), "--nbd",
                "unix:\(directory.file("nbd"))", "--shm", directory.file("shm"), "--admin",
                "unix:\(directory.file("admin"))", "--auto-lease", autoLease,
            ] + more
        process = try TestProcess("memserver", arguments, ready: true)
        try process.waitReady()
    }

    /// Bytes of the pool's files that are there.
    func storedBytes(_ host: SwapHost) throws -> UInt64 {
        let pool = host.directory.file("pool")
        return try directoryEntries(pool).reduce(0) { sum, name in
            let file = try FileDescriptor.open("\(pool)/\(name)", O_RDONLY)
            return sum + (try file.allocatedBytes())
        }
    }

    func restartAfterKill() throws {
        try process.kill()
        process = try TestProcess("memserver", arguments, ready: true)
        try process.waitReady()
    }
}

/// Real swap devices whose far memory is an NBD export.
@Suite(.serialized, .enabled(if: needs.isUsable, "\(needs.reason)"), .timeLimit(.minutes(5)))
struct FarswapNBDTests {
    private func url(_ path: String, _ export: String = "") -> String {
        "nbd+unix:///\(export)?socket=\(path)"
    }

    private func expectVerifiedSwap(_ host: SwapHost) throws {
        let result = try host.bench("swap", "--size", "64MiB", "--json")
        #expect(result.end == .exited(0), "\(result.error)")
        let report = try JSONValue.parse(result.output)
        #expect(report["wrong_pages"]?.integer == 0)
        #expect((report["major_faults"]?.integer ?? 0) > 16000)
    }

    @Test func pagesComeBackThroughMemserverAndDetachGivesThemBack() throws {
        let host = try SwapHost()
        let server = try NBDMemserver(host, autoLease: "256MiB")
        let before = try swapAreas()
        // The export takes the device's name.
        try host.attach(url: url(server.socket), ["--frontend", "fuse"])
        try expectVerifiedSwap(host)
        #expect(try server.storedBytes(host) > 0)
        #expect((try host.device()["counters"]?["pages_out_total"]?.integer ?? 0) >= 16384)
        let list = try TestProcess.run(
            "memserver",
            ["lease", "list", "--json", "--admin", "unix:\(host.directory.file("admin"))"])
        #expect(list.output.contains("\"t0\""), "\(list.output)\(list.error)")
        #expect(try host.farswap("detach", "t0").end == .exited(0))
        #expect(try swapAreas() == before)
        #expect(try host.processes().isEmpty)
        #expect(try server.storedBytes(host) < 1 << 20)
        #expect(try server.process.terminate() == .exited(0))
    }

    @Test func killingMemserverAndTheDataProcessUnderLoadCostsNoPage() throws {
        let host = try SwapHost()
        let server = try NBDMemserver(host, autoLease: "256MiB")
        try host.attach(url: url(server.socket, "far"), ["--frontend", "fuse"])
        let bench = try TestProcess(
            "farmem",
            [
                "bench", "integrity", "--device", "t0", "--swap-ins", "100000000", "--size",
                "32MiB",
                "--kill-interval", "400ms", "--seed", "5", "--time", "100s", "--stall", "5s",
                "--json",
            ], environment: host.environment)
        // Its first start, and as many again as shall have been killed.
        var (restarts, starts) = (0, Int64(0))
        while restarts < 6 || starts < 5, try bench.wait(seconds: 0.3) == .running {
            try server.restartAfterKill()
            restarts += 1
            starts = try host.device()["data_starts_total"]?.integer ?? 0
        }
        try bench.signal(SIGTERM)
        #expect(try bench.wait(seconds: 60) == .exited(0), "\(bench.standardError)")
        let report = try JSONValue.parse(bench.standardOutput)
        #expect(report["wrong_pages"]?.integer == 0)
        #expect(report["dead_processes"]?.integer == 0)
        #expect((report["kills"]?.integer ?? 0) >= 4)
        #expect((report["swap_ins"]?.integer ?? 0) > 1000)
        #expect(try host.device()["state"]?.string == "attached")
        #expect(try host.farswap("detach", "t0").end == .exited(0))
    }

    @Test func anotherLeaseUnderTheOldNameIsAnErrorNotZeros() throws {
        let host = try SwapHost()
        let server = try NBDMemserver(host, autoLease: "64MiB")
        try host.attach(url: url(server.socket), size: "64MiB", ["--frontend", "fuse"])
        try server.process.kill()
        removeTree(host.directory.file("pool"))
        try server.restartAfterKill()
        // A successor, too, knows which lease was ours.
        kill(Int32(try #require(try host.device()["data_pid"]?.integer)), SIGKILL)
        let deadline = monotonicNow() + 10_000_000_000
        while try host.device()["state"]?.string != "lost", monotonicNow() < deadline {
            sleepNanoseconds(50_000_000)
        }
        #expect(try host.device()["state"]?.string == "lost")
        #expect(try host.farswap("detach", "t0").end == .exited(0))
    }

    @Test(arguments: [false, true])
    func swapOverTLS(keyInURL: Bool) throws {
        let host = try SwapHost()
        let keys = host.directory.file("keys")
        for name in ["alice", "bob"] {
            let made = try TestProcess.run("/usr/bin/psktool", ["-u", name, "-p", keys])
            try #require(made.end == .exited(0), "\(made.error)")
        }
        let server = try NBDMemserver(host, autoLease: "128MiB", ["--auth-file", keys])
        let place = "/far?socket=\(server.socket)"
        let plain = try host.farswap("attach", "nbd+unix://\(place)", "--size", "64MiB")
        #expect(plain.end == .exited(77), "\(plain.error)")
        let keyless = try host.farswap("attach", "nbds+unix://\(place)", "--size", "64MiB")
        #expect(keyless.end == .exited(64), "\(keyless.error)")
        if keyInURL {
            try host.attach(
                url: "nbds+unix://bob@\(place)&tls-psk-file=\(keys)", size: "128MiB",
                ["--frontend", "fuse"])
        } else {
            try host.attach(
                url: "nbds+unix://\(place)", size: "128MiB",
                ["--frontend", "fuse", "--auth-file", keys, "--key", "bob"])
        }
        try expectVerifiedSwap(host)
        #expect(try host.farswap("detach", "t0").end == .exited(0))
        // The lease is bob's now: alice's key does not open it.
        let other = try host.farswap(
            "attach", "nbds+unix://alice@\(place)&tls-psk-file=\(keys)", "--size", "64MiB")
        #expect(other.end == .exited(69), "\(other.error)")
    }

    @Test func aForeignServerWillDo() throws {
        let host = try SwapHost()
        let socket = host.directory.file("foreign")
        let process = try TestProcess("/usr/bin/nbdkit", ["-f", "-U", socket, "memory", "256M"])
        let deadline = monotonicNow() + 10_000_000_000
        while (try? connectUnix(socket)) == nil, monotonicNow() < deadline {
            sleepNanoseconds(10_000_000)
        }
        let large = try host.farswap("attach", url(socket), "--size", "1GiB")
        #expect(large.end == .exited(64), "\(large.error)")
        #expect(large.error.split(separator: "\n").count == 1, "\(large.error)")
        #expect(large.error.contains("256MiB"), "\(large.error)")
        try host.attach(url: url(socket), size: "128MiB", ["--frontend", "fuse"])
        try expectVerifiedSwap(host)
        #expect(try host.farswap("detach", "t0").end == .exited(0))
        _ = process.pid
    }

    @Test(arguments: [
        WrongUse(["attach", "nbd+unix:///far", "--size", "64MiB"], 64),
        WrongUse(["attach", "nbd+unix:///far?socket=relative", "--size", "64MiB"], 64),
        WrongUse(["attach", "nbd://host:1/far?what=1", "--size", "64MiB"], 64),
        WrongUse(["attach", "nbdx://host/far", "--size", "64MiB"], 64),
        WrongUse(["attach", "nbd://127.0.0.1:1/far", "--size", "64MiB"], 69),
        WrongUse(["attach", "nbd+unix:///far?socket=/nonexistent/s", "--size", "64MiB"], 69),
        WrongUse(["attach", "nbds://127.0.0.1:1/far", "--size", "64MiB"], 64),
        WrongUse(
            ["attach", "nbd://127.0.0.1:1/far", "--size", "64MiB", "--tls-certificates", "/x"], 64),
        WrongUse(
            ["attach", "nbds://127.0.0.1:1/far", "--size", "64MiB", "--auth-file", "/nonexistent"],
            71),
        WrongUse(["attach", "shm:/x", "--size", "64MiB", "--frontend", "nbd"], 64),
        WrongUse(["attach", "nbds://127.0.0.1:1/far", "--size", "64MiB", "--frontend", "nbd"], 64),
        WrongUse(
            [
                "attach", "nbd://127.0.0.1:1/far", "--size", "64MiB", "--frontend", "nbd",
                "--fallback", "/x",
            ], 64),
        // Without the module it is the kernel that is at fault, with it the server that is not there.
        WrongUse(
            ["attach", "nbd://127.0.0.1:1/far", "--size", "64MiB", "--frontend", "nbd"],
            fileExists("/sys/module/nbd") ? 69 : 71),
    ])
    func wrongUseIsOneLineAndChangesNothing(_ use: WrongUse) throws {
        try SwapHost().expectNothingDone(by: use)
    }
}
