import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

/// A group of the pids controller in which no further process or thread can begin, and that counts who tries.
private final class ClosedGroup {
    private static let mount = "/sys/fs/cgroup/pids"
    static let isUsable = runsAsRoot() && fileExists("\(mount)/cgroup.procs")

    private let path: String

    init(_ name: String) throws {
        path = "\(Self.mount)/farmem-\(name)-\(getpid())"
        try makeDirectories(path)
    }

    private func write(_ file: String, _ text: String) throws {
        let descriptor = try FileDescriptor.open("\(path)/\(file)", O_WRONLY)
        try descriptor.writeAll(text)
    }

    private func number(_ text: String) -> Int {
        Int(text.split(whereSeparator: { $0 == " " || $0 == "\n" }).last ?? "") ?? -1
    }

    /// Takes a process with all of its threads, and closes.
    func take(_ pid: Int32) throws {
        try write("cgroup.procs", "\(pid)")
        try write("pids.max", "\(number(try readSmallText("\(path)/pids.current")))")
    }

    /// How many forks and clones were refused.
    func refused() throws -> Int { number(try readSmallText("\(path)/pids.events")) }

    func remove() {
        for _ in 0..<100 where unsafe rmdir(path) != 0 { sleepNanoseconds(20_000_000) }
    }
}

private let needs = Capability.all([
    .root, .swap, .loopDevices, .memoryControllerV1, .command("python3"),
])

/// No action of the controller begins a process, nor a thread.
@Suite(
    .serialized, .enabled(if: needs.isUsable, "\(needs.reason)"),
    .enabled(if: ClosedGroup.isUsable, "needs the pids controller of cgroup v1"),
    .timeLimit(.minutes(3)))
struct ForkTests {
    @Test func aForkInAClosedGroupIsCounted() throws {
        let group = try ClosedGroup("fork-control")
        defer { group.remove() }
        let directory = try TemporaryDirectory()
        let process = try TestProcess(
            "/usr/bin/python3",
            [
                "-c",
                """
                import os, sys, time
                while not os.path.exists(sys.argv[1]): time.sleep(0.01)
                try: os.fork()
                except OSError: sys.exit(3)
                """, directory.file("go"),
            ])
        try group.take(process.pid)
        try replaceFile(directory.file("go"), with: "")
        #expect(try process.wait(seconds: 30) == .exited(3))
        #expect(try group.refused() == 1)
    }

    @Test func windowsDrainsAndPrefetchesForkNothing() throws {
        let world = try OffloadWorld()
        defer { world.tearDown() }
        let group = try ClosedGroup("fork")
        defer { group.remove() }
        let controller = try world.startController()
        defer { _ = try? controller.kill() }
        // Its API has answered: what a server begins with its first connection is there.
        _ = try world.get("/v1/status")
        try group.take(controller.pid)
        let worker = try world.startWorker("w", mebibytes: 48)
        try world.send("container_started")
        try world.send("runtime_ready")
        try world.send("init_done")
        for _ in 0..<2 {
            try world.request(worker, touching: 2048)
        }
        try world.wait(60, "the idle container is drained") {
            try world.container()?["state"]?.string == "drained"
        }
        try world.send("request_start")
        try world.wait(10, "the working set is prefetched") {
            (try world.container()?["recalled_bytes"]?.integer ?? 0) > 0
        }
        #expect(try worker.touch(first: 0, count: 12288) == 0)
        try world.send("request_end")
        // Where the second request came before the first examination was done, the window is over with the last one only, and its
        // release is told when it has been carried out.
        for action in ["examine-init", "release-init", "drain", "recall"] {
            try world.wait(10, "\(action) is seen") {
                try world.get("/v1/events")["events"]?.array?.contains {
                    $0["action"]?.string == action
                } == true
            }
        }
        #expect(try group.refused() == 0, "something was to be forked, or a thread begun")
        #expect(try controller.terminate() == .exited(0))
        #expect(try group.refused() == 0)
    }
}
