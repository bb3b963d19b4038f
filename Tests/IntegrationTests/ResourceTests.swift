import Fabric
import FabricShm
import FarMemory
import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = Capability.all([.command("fio"), .command("nbdkit")])

/// What the programs take of the machine beside the memory they lend. The figures are those of the release build, which
/// `tools/check` runs (FARMEM_BIN_DIR); a debug build maps more of itself and is allowed more memory, and no more time.
@Suite(.serialized, .timeLimit(.minutes(5)), .enabled(if: needs.isUsable, "\(needs.reason)"))
struct ResourceTests {
    private static let isRelease = TestProcess.binaryDirectory.split(separator: "/").contains(
        "release")

    /// Processor time of a process and all its threads, in ticks of 10 ms.
    private func ticks(_ pid: Int32) throws -> Int {
        let text = try readSmallText("/proc/\(pid)/stat")
        let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
        try #require(fields.count > 12)
        return (Int(fields[11]) ?? 0) + (Int(fields[12]) ?? 0)
    }

    /// Ticks that each process uses within `seconds`.
    private func ticks(_ pids: [Int32], within seconds: Int64) throws -> [Int] {
        let before = try pids.map(ticks)
        sleepNanoseconds(seconds * 1_000_000_000)
        return try zip(pids, before).map { try ticks($0) - $1 }
    }

    @Test func aServerOfOneGibibyteTakesLittleBesideItAndNoTime() throws {
        let server = try Memserver(
            ["--auto-lease", "512MiB"], capacity: "1GiB", slab: "1MiB", nbd: .unix)
        let user = try PageUser(server, lease: "mapped", size: .mib(512))
        for page in 0..<(512 << 8) { try user.store(page, 1) }
        let path = try #require(Capability.path(ofCommand: "fio"))
        let written = try TestProcess.run(
            path,
            [
                "--name=fill", "--ioengine=nbd", "--uri=\(server.uri("nbd"))", "--rw=write",
                "--bs=1m", "--iodepth=4", "--size=512m", "--thread",
            ], seconds: 120)
        #expect(written.end == .exited(0), "\(written.output)\(written.error)")
        #expect(try server.status()["granted_bytes"]?.integer == 1 << 30)
        #expect(try server.stored("nbd") == 512 << 20)
        #expect(try server.stored("mapped") == 512 << 20)
        let beside = try server.privateBytes()
        let allowed = Self.isRelease ? 16 << 20 : 64 << 20
        #expect(beside <= allowed, "\(beside >> 10) KiB beside the leases")

        // A client that holds its connection and asks for nothing, beside the one that has mapped its lease.
        let nbdkit = try #require(Capability.path(ofCommand: "nbdkit"))
        let idle = try TestProcess(
            nbdkit,
            [
                "-f", "-U", server.directory.file("idle"), "nbd", "socket=\(server.nbdSocket)",
                "export=nbd", "shared=1",
            ])
        let deadline = monotonicNow() + 5_000_000_000
        while try server.lease("nbd")?["clients"]?.integer != 1, monotonicNow() < deadline {
            sleepNanoseconds(10_000_000)
        }
        #expect(try server.lease("nbd")?["clients"]?.integer == 1)
        sleepNanoseconds(500_000_000)
        // A tick that falls into one of its wake-ups counts whole (CONFIG_TICK_CPU_ACCOUNTING).
        let used = try ticks([server.process.pid], within: 5)
        #expect(used[0] <= 1, "\(used)")
        #expect(try idle.wait(seconds: 0) == .running)
        user.fabric.close(releaseLease: true)
    }

    @Test(.enabled(if: Capability.farSwap.isUsable, "\(Capability.farSwap.reason)"))
    func anIdleSwapDeviceTakesNoTime() throws {
        // Swap devices are the whole machine's: one test at a time.
        try makeDirectories("/run/farmem")
        let lock = try FileDescriptor.open("/run/farmem/swap-tests.lock", O_RDWR | O_CREAT)
        _ = try lock.lock(wait: true)
        let server = try Memserver(capacity: "64MiB", slab: "1MiB")
        let runtime = try TemporaryDirectory(inMemory: true)
        let environment = ["FARMEM_RUNTIME_DIR": runtime.path]
        func farswap(_ arguments: String...) throws -> (
            end: ChildEnd, output: String, error: String
        ) {
            try TestProcess.run("farswap", arguments, environment: environment, seconds: 60)
        }
        // Used last, so that nothing else of the machine ends up there meanwhile.
        let attached = try farswap(
            "attach", "shm:\(server.socket)", "--size", "64MiB", "--name", "idle", "--priority",
            "0")
        defer {
            if (try? farswap("detach", "idle", "--force"))?.end != .exited(0) {
                _ = try? farswap("status", "idle", "--repair")
            }
        }
        try #require(attached.end == .exited(0), "\(attached.error)")
        let status = try JSONValue.parse(
            Array(try farswap("status", "idle", "--json").output.utf8))
        let device = try #require(status["devices"]?[0])
        let pids = try ["keeper_pid", "data_pid"].map {
            Int32(try #require(device[$0]?.integer))
        }
        sleepNanoseconds(500_000_000)
        let used = try ticks(pids + [server.process.pid], within: 5)
        #expect(used.allSatisfy { $0 <= 1 }, "keeper, data process, memserver: \(used)")
    }
}
