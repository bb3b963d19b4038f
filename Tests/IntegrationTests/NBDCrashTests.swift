import FarMemory
import HTTPEndpoint
import JSONText
import LinuxSystem
import TestSupport
import Testing

/// `kill -9` of the server under foreign clients: what was flushed before is all there afterwards.
@Suite(
    .serialized, .timeLimit(.minutes(5)),
    .enabled(if: ForeignNBD.tools.isUsable, "\(ForeignNBD.tools.reason)"))
struct NBDCrashTests {
    private let server: Memserver
    private let seed = TestSeed(filter: "NBDCrashTests")

    init() throws {
        server = try Memserver(["--auto-lease", "16MiB"], capacity: "64MiB", nbd: .unixAndTCP)
    }

    private func fio(_ arguments: [String]) throws {
        let run = try ForeignNBD.attempt("fio", arguments)
        try #require(run.end == .exited(0), "\(seed)\n\(run.output)\(run.error)")
    }

    /// Waits until somebody is at work: the counter began at zero with this server.
    private func waitForRequests() throws {
        let deadline = monotonicNow() + 10_000_000_000
        while try metric("farmem_nbd_requests_total") < 300 {
            try #require(monotonicNow() < deadline, "nobody asks for anything")
            sleepNanoseconds(5_000_000)
        }
    }

    private func metric(_ name: String) throws -> Double {
        let text = try HTTPClient(target: server.admin).request(
            "GET", "/metrics", timeout: .seconds(5)
        ).text
        let line = text.split(separator: "\n").first { $0.hasPrefix("\(name) ") }
        return Double(line?.split(separator: " ").last ?? "") ?? 0
    }

    @Test func writesOfOneRunAreVerifiedByTheNextServer() throws {
        for round in 0..<3 {
            let kept = ForeignNBD.fio(server.uri("kept"), seed: seed.value &+ UInt64(round))
            try fio(kept + ["--do_verify=0"])
            #expect(try server.stored("kept") == 8 << 20)
            try server.restartAfterKill()
            #expect(try server.stored("kept") == 8 << 20)
            try fio(kept + ["--verify_only"])
        }
    }

    @Test func aKillUnderLoadTouchesNoOtherExport() throws {
        var random = seed.random
        let program = try #require(Capability.path(ofCommand: "fio"))
        let (image, back) = (server.directory.file("image"), server.directory.file("back"))
        try ForeignNBD.makeImage(image, mebibytes: 16, &random)
        try ForeignNBD.run("nbdcopy", "--flush", image, server.uri("kept"))
        for round in 0..<3 {
            let written = try ForeignNBD.qemuIO(
                server.uri("marks"), "write -P \(round + 1) \(round)M 192k", "flush")
            try #require(written.end == .exited(0), "\(written.error)")
            let busy = try round % 2 == 0 ? server.uri("busy") : server.tcpURI("busy")
            let load = try TestProcess(
                program,
                ForeignNBD.fio(busy, seed: seed.value &+ UInt64(round), mebibytes: 16)
                    + ["--rate_iops=1000", "--time_based", "--runtime=60", "--verify=0"])
            try waitForRequests()
            // In the middle of its requests, at a moment that differs from run to run.
            sleepNanoseconds(Int64(random.below(200)) * 1_000_000)
            #expect(try load.wait(seconds: 0) == .running, "\(load.standardError)")
            try server.restartAfterKill()
            // fio 3.33 waits for the lost answers to the end of its time.
            try load.kill()
            for mark in 0...round {
                let read = try ForeignNBD.qemuIO(
                    server.uri("marks"), "read -P \(mark + 1) \(mark)M 192k",
                    "read -P 0 \(mark * 1024 + 192)k 4k")
                #expect(read.end == .exited(0), "\(seed): \(read.output)\(read.error)")
            }
            try ForeignNBD.run("nbdcopy", server.uri("kept"), back)
            #expect(try ForeignNBD.sameBytes(image, back), "\(seed)")
        }
        // The export of the interrupted run is as good as any.
        try fio(ForeignNBD.fio(server.uri("busy"), seed: seed.value, mebibytes: 16))
        #expect(try server.lease("busy")?["clients"]?.integer == 0)
    }
}
