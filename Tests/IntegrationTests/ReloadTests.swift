import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = Capability.all([
    .root, .swap, .loopDevices, .memoryControllerV1, .command("python3"),
])

/// SIGHUP to offloadd.
@Suite(.serialized, .enabled(if: needs.isUsable, "\(needs.reason)"), .timeLimit(.minutes(3)))
struct ReloadTests {
    @Test func functionsAreReadAgainAndAnErrorChangesNothing() throws {
        let world = try OffloadWorld()
        defer { world.tearDown() }
        let file = world.directory.file("offloadd.yaml")
        func configure(_ text: String) throws { try replaceFile(file, with: text) }
        try configure("functions:\n  f: {offload: false}\n")
        let controller = try world.startController(["--config", file])
        let worker = try world.startWorker("w", mebibytes: 48)
        try world.send("container_started")
        try world.send("init_done")
        try world.request(worker, touching: 12288)
        // The delay and the drain are over for anyone else: what is in its way is the rule.
        try world.wait(20, "its rule keeps it out") {
            try world.container()?["last_rule"]?.string == "opted-out"
        }
        func log(_ word: String) -> Int {
            controller.standardError.split(separator: "\n").count { $0.contains(word) }
        }
        try configure("functions:\n  f: {offlaod: true}\n")
        try controller.signal(SIGHUP)
        try world.wait(20, "the error is said") { log("reload_failed") == 1 }
        #expect(try worker.swapped() == 0)
        #expect(try world.container()?["last_rule"]?.string == "opted-out")

        try configure("tick: 200ms\nfunctions:\n  f: {floor: 24MiB}\n")
        try controller.signal(SIGHUP)
        try world.wait(20, "it is read") { log("event=reloaded ") == 1 }
        #expect(log("reload_partial") == 1, "the tick cannot change")
        try world.wait(60, "the running container is drained now, to its new floor") {
            try world.container()?["state"]?.string == "drained"
        }
        let local = try world.container()?["local_bytes"]?.integer ?? 0
        // Well above the 4 MiB of everyone else's; a drain's last step may go some way below.
        #expect(local >= 14 << 20 && local < 40 << 20, "\(local)")
        #expect(try worker.touch(first: 0, count: 12288) == 0)
        #expect(try controller.terminate() == .exited(0))
    }
}
