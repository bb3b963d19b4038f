import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = SwapHost.needs

private let wrongUses = [
    WrongUse(["attach", "shm:/nonexistent/socket", "--size", "64MiB"], 69),
    WrongUse(["attach", "ftp://far/away", "--size", "64MiB"], 64),
    WrongUse(["attach", "rdma://host:0/lease", "--size", "64MiB"], 64),
    WrongUse(["attach", "dram:/dev/shm/x", "--size", "64"], 64),
    WrongUse(["attach", "dram:/dev/shm/x", "--size", "5000B"], 64),
    WrongUse(["attach", "dram:/dev/shm/x", "--size", "64KiB"], 64),
    WrongUse(["attach", "dram:/dev/shm/x", "--size", "64MiB", "--name", "../x"], 64),
    WrongUse(["attach", "dram:/dev/shm/x", "--size", "64MiB", "--frontend", "module"], 64),
    WrongUse(["attach", "dram:64MiB", "--size", "64MiB", "--frontend", "frontswap"], 64),
    WrongUse(["attach", "dram:/nonexistent/x", "--size", "64MiB"], 71),
    WrongUse(["detach", "nothing"], 64),
]

/// Real swap devices over FUSE and a loop device, on this machine's kernel. The far memory is a file
/// on tmpfs (dram:), so that what fails here is the swap path; memserver's part has its own tests.
@Suite(.serialized, .enabled(if: needs.isUsable, "\(needs.reason)"), .timeLimit(.minutes(5)))
struct FarswapTests {
    @Test func detachLeavesNothing() throws {
        let host = try SwapHost()
        let before = try swapAreas()
        try host.attach()
        #expect(try swapAreas().count == before.count + 1)
        let path = try #require(try host.device()["device"]?.string)
        #expect(try host.farswap("detach", "t0").end == .exited(0))
        #expect(try swapAreas() == before)
        #expect(!fileExists("/sys/block/\(path.dropFirst(5))/loop"))
        #expect(try directoryEntries(host.directory.file("swap")).isEmpty)
        #expect(try !readSmallText("/proc/self/mounts").contains(host.directory.path))
        #expect(!fileExists(host.directory.file("far-t0")))
        #expect(try host.processes().isEmpty)
    }

    @Test func everyPageComesBackAndFarMemoryIsGivenBackAfterwards() throws {
        let host = try SwapHost()
        try host.attach()
        let result = try host.bench("swap", "--size", "64MiB", "--json")
        #expect(result.end == .exited(0), "\(result.error)")
        let report = try JSONValue.parse(result.output)
        #expect(report["wrong_pages"]?.integer == 0)
        #expect((report["major_faults"]?.integer ?? 0) > 16000)
        // The process is gone: the kernel discards its swap clusters, and the file has holes again. It keeps up to 64 freed slots for each
        // processor, and pages that were on their way out, each in a cluster of 2 MiB.
        let rest = 12 << 20
        let file = try FileDescriptor.open(host.directory.file("far-t0"), O_RDONLY)
        let deadline = monotonicNow() + 5_000_000_000
        while try file.allocatedBytes() > rest, monotonicNow() < deadline {
            sleepNanoseconds(20_000_000)
        }
        #expect(try file.allocatedBytes() <= rest)
        try host.farswap("detach", "t0")
    }

    @Test func killingTheDataProcessUnderLoadCostsNoPage() throws {
        let host = try SwapHost()
        try host.attach()
        let result = try host.bench(
            "integrity", "--device", "t0", "--swap-ins", "60000", "--size", "32MiB",
            "--kill-interval", "60ms", "--seed", "11", "--time", "100s", "--json")
        #expect(result.end == .exited(0), "\(result.output)\(result.error)")
        let report = try JSONValue.parse(result.output)
        #expect(report["wrong_pages"]?.integer == 0)
        #expect((report["kills"]?.integer ?? 0) > 3)
        #expect((try host.device()["data_starts_total"]?.integer ?? 0) > 3)
        try host.farswap("detach", "t0")
    }

    @Test func anUpgradeReplacesTheDataProcess() throws {
        let host = try SwapHost()
        try host.attach()
        let before = try host.device()["data_pid"]?.integer
        #expect(try host.farswap("upgrade", "t0").end == .exited(0))
        let deadline = monotonicNow() + 5_000_000_000
        while try host.device()["data_pid"]?.integer == before, monotonicNow() < deadline {
            sleepNanoseconds(20_000_000)
        }
        #expect(try host.device()["data_pid"]?.integer != before)
        #expect(try host.bench("swap", "--size", "16MiB").end == .exited(0))
        try host.farswap("detach", "t0")
    }

    @Test func aKilledKeeperIsReplacedByTheDataProcess() throws {
        let host = try SwapHost()
        try host.attach()
        let keeper = Int32(try #require(try host.device()["keeper_pid"]?.integer))
        kill(keeper, SIGKILL)
        let deadline = monotonicNow() + 5_000_000_000
        var now = keeper
        while now == keeper || now == 0, monotonicNow() < deadline {
            sleepNanoseconds(50_000_000)
            now = Int32(try host.device()["keeper_pid"]?.integer ?? 0)
        }
        #expect(now != keeper)
        #expect(try host.farswap("status", "--repair").end == .exited(0))
        // The new keeper does its work.
        kill(Int32(try #require(try host.device()["data_pid"]?.integer)), SIGKILL)
        #expect(try host.bench("swap", "--size", "16MiB").end == .exited(0))
        #expect(try host.farswap("detach", "t0").end == .exited(0))
    }

    @Test func whatADoubleCrashLeavesIsRepaired() throws {
        let host = try SwapHost()
        try host.attach()
        let before = try swapAreas().count
        let status = try host.device()
        // Keeper first, and the data process before it can start another.
        kill(Int32(try #require(status["keeper_pid"]?.integer)), SIGKILL)
        kill(Int32(try #require(status["data_pid"]?.integer)), SIGKILL)
        sleepNanoseconds(200_000_000)
        #expect(try host.farswap("status").end == .exited(1))
        let repair = try host.farswap("status", "--repair")
        #expect(repair.end == .exited(0), "\(repair.error)")
        #expect(try swapAreas().count == before - 1)
        #expect(try directoryEntries(host.directory.file("swap")).isEmpty)
        #expect(try !readSmallText("/proc/self/mounts").contains(host.directory.path))
    }

    @Test(arguments: wrongUses)
    func wrongUseIsOneLineAndChangesNothing(_ use: WrongUse) throws {
        try SwapHost().expectNothingDone(by: use)
    }

    @Test func aNameIsGivenOnce() throws {
        let host = try SwapHost()
        try host.attach()
        let second = try host.farswap(
            "attach", "dram:\(host.directory.file("other"))", "--size", "64MiB", "--name", "t0")
        #expect(second.end == .exited(75), "\(second.error)")
        #expect(try host.farswap("detach", "t0").end == .exited(0))
    }
}
