import FarMemory
import HTTPEndpoint
import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = Capability.all([
    .root, .swap, .loopDevices, .memoryControllerV1, .runc, .command("podman"),
    .command("busybox"),
])

/// offloadd finds real containers through podman's API, which is Docker's.
@Suite(.serialized, .enabled(if: needs.isUsable, "\(needs.reason)"), .timeLimit(.minutes(5)))
struct DiscoveryTests {
    private func inWorlds(_ body: (OffloadWorld, PodmanWorld) throws -> Void) throws {
        let world = try OffloadWorld()
        defer { world.tearDown() }
        let podman = try PodmanWorld()
        defer { podman.tearDown() }
        try body(world, podman)
    }

    private func containers(_ world: OffloadWorld) throws -> [String: JSONValue] {
        var all: [String: JSONValue] = [:]
        for item in try world.get("/v1/containers")["containers"]?.array ?? [] {
            if let name = item["id"]?.string { all[name] = item }
        }
        return all
    }

    @Test func aContainerIsFoundDrainedByItsLabelsAndForgotten() throws {
        try inWorlds { world, podman in
            try podman.startService()
            try podman.start(
                "web-1", mebibytes: 48,
                labels: ["farmem.function=web", "farmem.floor=16MiB"])
            let controller = try world.startController(["--discover", "unix:\(podman.socket)"])
            try world.wait(20, "the running container is listed") {
                try containers(world)["docker:web-1"]?["function"]?.string == "web"
            }
            try podman.start("quiet", mebibytes: 48, labels: ["farmem.offload=false"])
            try podman.start("typo", mebibytes: 4, labels: ["farmem.ofload=true"])
            try world.wait(20, "events tell of those that start") {
                try Set(containers(world).keys)
                    == ["docker:web-1", "docker:quiet", "docker:typo"]
            }
            try world.wait(60, "the idle container gives memory away, down to its floor") {
                let web = try containers(world)["docker:web-1"]
                return web?["state"]?.string == "drained"
                    && (web?["far_bytes"]?.integer ?? 0) > 20 << 20
            }
            let web = try containers(world)["docker:web-1"]
            #expect((web?["local_bytes"]?.integer ?? 0) >= 12 << 20, "about the floor of its label")
            for name in ["docker:quiet", "docker:typo"] {
                let other = try containers(world)[name]
                #expect(other?["released_bytes"]?.integer == 0)
                #expect(other?["last_rule"]?.string == "opted-out")
            }
            #expect(controller.standardError.contains("did you mean farmem.offload?"))
            let metrics = try world.client().request(
                "GET", "/metrics", timeout: .seconds(5)
            ).text
            for line in [
                "containers_total{source=\"docker\"} 3", "opt_outs_total{source=\"docker\"} 1",
                "refused_total{source=\"docker\",reason=\"label\"} 1",
                "refused_total{source=\"docker\",reason=\"unlabelled\"} 0",
            ] {
                #expect(metrics.contains("\nfarmem_offload_discovery_\(line)\n"), "\(metrics)")
            }
            try podman.stop("quiet")
            try world.wait(20, "an event tells of its end") {
                try containers(world)["docker:quiet"] == nil
            }
            #expect(try controller.terminate() == .exited(0))
        }
    }

    @Test func aRestartOfTheRuntimeIsSurvivedAndWhatItMissedMadeGood() throws {
        try inWorlds { world, podman in
            try podman.startService()
            try podman.start("stays")
            try podman.start("ends")
            let controller = try world.startController([
                "--dry-run", "--discover", "unix:\(podman.socket)",
            ])
            try world.wait(20, "both are listed") { try containers(world).count == 2 }
            try podman.podman(["restart", "-t", "0", "stays"])
            try world.wait(20, "the restarted one is another, and is found again") {
                let forgotten = try world.get("/v1/events")["events"]?.array?.contains {
                    $0["container"]?.string == "docker:stays" && $0["action"]?.string == "forget"
                }
                return try forgotten == true && containers(world)["docker:stays"] != nil
            }
            try podman.stopService()
            try world.wait(20, "the loss is noted") {
                controller.standardError.contains("runtime_lost")
            }
            try podman.stop("ends")
            try podman.start("begins")
            try world.wait(20, "the one that ended lost its group") {
                try Set(containers(world).keys) == ["docker:stays"]
            }
            try podman.startService()
            try world.wait(30, "the listing shows the one that began") {
                try Set(containers(world).keys) == ["docker:stays", "docker:begins"]
            }
        }
    }

    @Test func groupsAreFoundByTheirNamesWithoutAnyRuntime() throws {
        try inWorlds { world, podman in
            try podman.start("plain")
            _ = try world.startController(["--dry-run", "--discover", "cgroups"])
            try world.wait(20, "the container is found by its group") {
                try containers(world).contains {
                    $0.key.hasPrefix("podman:")
                        && $0.value["cgroup"]?.string?.contains(PodmanWorld.parent) == true
                }
            }
            try podman.stop("plain")
            try world.wait(20, "its end too") {
                try !containers(world).contains {
                    $0.value["cgroup"]?.string?.contains(PodmanWorld.parent) == true
                }
            }
        }
    }
}
