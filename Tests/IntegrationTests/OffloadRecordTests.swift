import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = Capability.all([
    .root, .swap, .loopDevices, .memoryControllerV1, .command("python3"),
])

/// Same events, same actions: what the daemon recorded on real pages, asked again of the same code elsewhere.
@Suite(.serialized, .enabled(if: needs.isUsable, "\(needs.reason)"), .timeLimit(.minutes(5)))
struct OffloadRecordTests {
    @Test(arguments: ["farmem", "faasmem"])
    func aRecordOfTheDaemonReplaysToTheSameDecisions(policy: String) throws {
        let world = try OffloadWorld()
        defer { world.tearDown() }
        let path = world.directory.file("record")
        let daemon = try world.startController([
            "--record", path, "--policy", policy, "--semi-warm-delay", "1s",
            // So that semi-warm finds more than the floor.
            "--rollback-interval", "10m",
        ])
        let worker = try world.startWorker("a", mebibytes: 32)
        try world.send("container_started")
        try world.send("runtime_ready")
        try world.send("init_done", #","keep_alive_ms":600000"#)
        for _ in 0..<3 {
            try world.send("request_start")
            #expect(try worker.touch(first: 0, count: 2048) == 0)
            try world.send("request_end", #","keep_alive_ms":600000"#)
            sleepNanoseconds(200_000_000)
        }
        // Much has left before, with the windows.
        try world.wait(60, "the idle container is drained, and most of it has left") {
            let rules = try world.get("/v1/events")["events"]?.array?.map { $0["rule"]?.string }
            let far = try world.container()?["far_bytes"]?.integer ?? 0
            return rules?.contains("semi-warm") == true && far > 16 << 20
        }
        try world.send("request_start")
        #expect(try worker.touch(first: 0, count: 8192) == 0)
        try world.send("container_stopped")
        #expect(try world.get("/v1/status")["policy"]?.string == policy)
        try daemon.signal(SIGTERM)
        #expect(try daemon.wait(seconds: 20) == .exited(0))

        let replayed = try replay(path)
        #expect(replayed["same"]?.bool == true, "\(replayed.rendered())")
        #expect((replayed["decisions"]?.integer ?? 0) > 5, "\(replayed.rendered())")
        #expect((replayed["ticks"]?.integer ?? 0) > 10)

        // What was tampered with is found.
        let text = try readSmallText(path, limit: 64 << 20)
        let changed = text.replacing("semi-warm=1", with: "semi-warm=0")
        #expect(changed != text)
        let other = world.directory.file("changed")
        try FileDescriptor.open(other, O_WRONLY | O_CREAT, mode: 0o600).writeAll(changed)
        #expect(try replay(other)["same"]?.bool == false)
    }

    private func replay(_ path: String) throws -> JSONValue {
        let process = try TestProcess("farmem", ["replay", "--json", path])
        _ = try process.wait(seconds: 60)
        return try JSONValue.parse(Array(process.standardOutput.utf8))
    }
}
