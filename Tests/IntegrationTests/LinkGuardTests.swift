import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = Capability.all([SwapHost.needs, .swap, .loopDevices, .command("python3")])

/// offloadd over farswap, whose memserver goes away and comes back.
@Suite(.serialized, .enabled(if: needs.isUsable, "\(needs.reason)"), .timeLimit(.minutes(3)))
struct LinkGuardTests {
    @Test func nothingLeavesWhileFarMemoryIsAwayAndGoesOnWhenItIsBack() throws {
        let host = try SwapHost()
        let server = try Memserver(capacity: "128MiB", slab: "1MiB")
        try host.attach(url: "shm:\(server.socket)", size: "96MiB")
        do {
            let world = try OffloadWorld()
            defer { world.tearDown() }
            _ = try world.startController(environment: host.environment)
            try world.wait(20, "the device is seen") {
                try world.get("/v1/status")["far_connected"]?.bool == true
            }
            #expect(try world.get("/v1/status")["paused_by"]?.string == nil)
            try server.process.kill()
            try world.wait(20, "the loss pauses it") {
                let status = try world.get("/v1/status")
                return status["paused_by"]?.string == "link-down"
                    && status["far_connected"]?.bool == false
            }
            let worker = try world.startWorker("w", mebibytes: 48)
            try world.send("container_started")
            try world.send("init_done")
            try world.request(worker, touching: 1024)
            try world.wait(20, "the idle container would be drained, but for the guard") {
                try world.container()?["last_rule"]?.string == "link-down"
            }
            #expect(try worker.swapped() == 0)
            #expect(try world.container()?["released_bytes"]?.integer == 0)
            #expect(
                try world.get("/v1/events")["events"]?.array?.contains {
                    let action = $0["action"]?.string ?? ""
                    return action.hasPrefix("examine") || ["drain", "reclaim"].contains(action)
                } == false)

            try server.restartAfterKill()
            try world.wait(30, "it goes on") {
                let status = try world.get("/v1/status")
                return status["paused_by"]?.string == nil
                    && status["far_connected"]?.bool == true
            }
            try world.wait(60, "the container is drained, to far memory") {
                try world.container()?["state"]?.string == "drained"
            }
            #expect((try world.container()?["far_bytes"]?.integer ?? 0) > 32 << 20)
            #expect((try host.device()["counters"]?["pages_out_total"]?.integer ?? 0) > 8192)
            #expect(try worker.touch(first: 0, count: 12288) == 0, "no page may be wrong")
        }
        #expect(try host.farswap("detach", "t0").end == .exited(0))
    }
}
