import FarMemory
import JSONText
import LinuxSystem
import TestSupport
import Testing

/// The real server with clients that others have written, over unix sockets and TCP.
@Suite(
    .serialized, .timeLimit(.minutes(5)),
    .enabled(if: ForeignNBD.tools.isUsable, "\(ForeignNBD.tools.reason)"))
struct NBDForeignClientTests {
    private let server: Memserver
    private let seed = TestSeed(filter: "NBDForeignClientTests")

    init() throws {
        server = try Memserver(["--auto-lease", "16MiB"], capacity: "64MiB", nbd: .unixAndTCP)
    }

    @Test func nbdinfoSeesWhatIsOffered() throws {
        let output = try ForeignNBD.run("nbdinfo", "--json", server.uri("web"))
        let info = try JSONValue.parse(Array(output.utf8))
        #expect(info["protocol"]?.string == "newstyle-fixed")
        #expect(info["structured"]?.bool == true && info["TLS"]?.bool == false)
        let export = try #require(info["exports"]?.array?.first)
        #expect(export["export-size"]?.integer == 16 << 20)
        #expect(export["contexts"]?.array?.compactMap(\.string) == ["base:allocation"])
        for ability in [
            "can_cache", "can_df", "can_fast_zero", "can_flush", "can_fua", "can_multi_conn",
            "can_trim", "can_zero",
        ] {
            #expect(export[ability]?.bool == true, "\(ability)")
        }
        #expect(export["is_read_only"]?.bool == false && export["is_rotational"]?.bool == false)
        #expect(export["block_size_minimum"]?.integer == 1)
        #expect(export["block_size_preferred"]?.integer == 4096)
        #expect(export["block_size_maximum"]?.integer == 32 << 20)
    }

    @Test func leasesAreListedUnderTheirNames() throws {
        for name in ["web", "db.main"] {
            #expect(try server.run(["lease", "create", name, "--size", "1MiB"]).end == .exited(0))
        }
        let output = try ForeignNBD.run("nbdinfo", "--list", "--json", server.uri(""))
        let exports = try JSONValue.parse(Array(output.utf8))["exports"]?.array ?? []
        #expect(exports.compactMap { $0["export-name"]?.string }.sorted() == ["db.main", "web"])
        #expect(exports.allSatisfy { $0["export-size"]?.integer == 1 << 20 })
        let listed = try ForeignNBD.run("nbd-client", "-l", "-u", server.nbdSocket)
        let names = listed.split(separator: "\n").dropFirst().map(String.init)
        #expect(names.sorted() == ["db.main", "web"], "\(listed)")
        // An unknown name becomes a lease, a name that none can have does not.
        #expect(try ForeignNBD.attempt("nbdinfo", [server.uri("no%2Fname")]).end == .exited(1))
        #expect(try server.status()["leases"]?.array?.count == 2)
    }

    @Test func mapShowsWhatIsStored() throws {
        let written = try ForeignNBD.qemuIO(
            server.uri("web"), "write -P 1 4k 8k", "write -P 2 1M 64k", "discard 1M 4k")
        try #require(written.end == .exited(0), "\(written.error)")
        let output = try ForeignNBD.run("nbdinfo", "--map", "--json", server.uri("web"))
        let extents = try #require(JSONValue.parse(Array(output.utf8)).array).map {
            [
                $0["offset"]?.integer ?? -1, $0["length"]?.integer ?? -1,
                $0["type"]?.integer ?? -1,
            ]
        }
        let mib: Int64 = 1 << 20
        #expect(
            extents == [
                [0, 4096, 3], [4096, 8192, 0], [12288, mib - 12288 + 4096, 3],
                [mib + 4096, 61440, 0], [mib + 65536, 15 * mib - 65536, 3],
            ])
    }

    @Test(arguments: [false, true])
    func nbdcopyBringsBackTheSameBytes(tcp: Bool) throws {
        var random = seed.random
        let uri = try tcp ? server.tcpURI("img") : server.uri("img")
        let (image, back) = (server.directory.file("image"), server.directory.file("back"))
        try ForeignNBD.makeImage(image, mebibytes: 16, &random)
        try ForeignNBD.run("nbdcopy", image, uri)
        // Holes stay holes: every fourth MiB was one.
        #expect(try server.stored("img") == 12 << 20)
        try ForeignNBD.run("nbdcopy", uri, back)
        #expect(try ForeignNBD.sameBytes(image, back), "\(seed)")
        // From export to export, both ends on this server.
        try ForeignNBD.run("nbdcopy", uri, server.uri("copy"))
        try ForeignNBD.run("nbdcopy", server.uri("copy"), back)
        #expect(try ForeignNBD.sameBytes(image, back), "\(seed)")
    }

    @Test func qemuImgConvertsAndCompares() throws {
        var random = seed.random
        let image = server.directory.file("image")
        try ForeignNBD.makeImage(image, mebibytes: 16, &random)
        let uri = server.uri("img")
        try ForeignNBD.run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri)
        try ForeignNBD.run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)
        let back = server.directory.file("back.qcow2")
        try ForeignNBD.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, back)
        try ForeignNBD.run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, back)
        let changed = try ForeignNBD.qemuIO(uri, "write -P 85 5M 512")
        try #require(changed.end == .exited(0), "\(changed.error)")
        let differ = try ForeignNBD.attempt(
            "qemu-img", ["compare", "-f", "raw", "-F", "raw", image, uri])
        #expect(differ.end == .exited(1), "one changed sector is seen: \(seed)")
    }

    @Test func qemuIOReadsItsPatternsAndGivesMemoryBack() throws {
        let uri = server.uri("web")
        // Odd offsets and lengths: the least block is one byte.
        let writes = try ForeignNBD.qemuIO(
            uri, "write -P 0x5a 0 1M", "write -P 0xa5 70001 4097", "write -f -P 3 3M 512",
            "flush", "read -P 0x5a 0 70001", "read -P 0xa5 70001 4097",
            "read -P 0x5a 74098 974478", "read -P 3 3M 512", "read -P 0 3146240 3584",
            "read -P 0 8M 4M")
        #expect(writes.end == .exited(0), "\(writes.output)\(writes.error)")
        #expect(try server.stored("web") == 1 << 20 + 4096)
        #expect(try ForeignNBD.qemuIO(uri, "read -P 1 0 512").end == .exited(1))
        // Zeros that keep their memory, zeros that give it back, discards.
        let zeros = try ForeignNBD.qemuIO(
            uri, "write -z 0 64k", "read -P 0 0 64k", "read -P 0x5a 80k 4k")
        #expect(zeros.end == .exited(0), "\(zeros.output)\(zeros.error)")
        #expect(try server.stored("web") == 1 << 20 + 4096)
        let unmapped = try ForeignNBD.qemuIO(
            uri, "write -z -u 0 64k", "discard 64k 960k", "read -P 0 0 1M")
        #expect(unmapped.end == .exited(0), "\(unmapped.output)\(unmapped.error)")
        #expect(try server.stored("web") == 4096)
        let left = try #require(try server.lease("web")?["granted_bytes"]?.integer)
        #expect(left == 64 << 10, "one slab holds the last page")
        let outside = try ForeignNBD.qemuIO(uri, "write -P 1 16M 4k")
        #expect(outside.end == .exited(1), "\(outside.output)")
    }

    @Test(arguments: [false, true])
    func fioVerifiesRandomWrites(tcp: Bool) throws {
        let uri = try tcp ? server.tcpURI("bench") : server.uri("bench")
        let arguments = ForeignNBD.fio(uri, seed: seed.value)
        let run = try ForeignNBD.attempt("fio", arguments)
        #expect(run.end == .exited(0), "\(seed)\n\(run.output)\(run.error)")
        // Several connections to one export.
        let many = ForeignNBD.fio(
            uri, seed: seed.value, mebibytes: 4, "--numjobs=4", "--offset_increment=4m",
            "--group_reporting")
        let together = try ForeignNBD.attempt("fio", many)
        #expect(together.end == .exited(0), "\(seed)\n\(together.output)\(together.error)")
        // The check can fail: one page written by somebody else.
        #expect(try ForeignNBD.qemuIO(uri, "write -P 9 1M 4k").end == .exited(0))
        let spoilt = try ForeignNBD.attempt(
            "fio", ForeignNBD.fio(uri, seed: seed.value, mebibytes: 4, "--verify_only"))
        #expect(spoilt.end != .exited(0), "\(seed)")
    }

    @Test func nbdkitsClientPluginPassesEverythingOn() throws {
        var random = seed.random
        let (image, back) = (server.directory.file("image"), server.directory.file("back"))
        try ForeignNBD.makeImage(image, mebibytes: 16, &random)
        // nbdkit ends with the command it runs.
        let plugin = ["-U", "-", "nbd", "socket=\(server.nbdSocket)", "export=proxied", "--run"]
        let there = try ForeignNBD.attempt("nbdkit", plugin + ["nbdcopy '\(image)' \"$uri\""])
        #expect(there.end == .exited(0), "\(there.error)")
        let returned = try ForeignNBD.attempt("nbdkit", plugin + ["nbdcopy \"$uri\" '\(back)'"])
        #expect(returned.end == .exited(0), "\(returned.error)")
        #expect(try ForeignNBD.sameBytes(image, back), "\(seed)")
        #expect(try server.stored("proxied") == 12 << 20)
    }

    @Test func aFullPoolRefusesTheWriterAndNobodyElse() throws {
        let uri = server.uri("kept")
        #expect(try ForeignNBD.qemuIO(uri, "write -P 7 0 1M").end == .exited(0))
        #expect(try server.run(["lease", "create", "big", "--size", "128MiB"]).end == .exited(0))
        let filling = try ForeignNBD.attempt(
            "qemu-io",
            ["-f", "raw", "-c", "write -P 1 0 32M", "-c", "write -P 2 32M 32M", server.uri("big")])
        #expect(filling.end == .exited(1))
        #expect(
            (filling.output + filling.error).contains("No space left on device"),
            "\(filling.output)\(filling.error)")
        #expect(try ForeignNBD.qemuIO(uri, "read -P 7 0 1M").end == .exited(0))
        #expect(try ForeignNBD.qemuIO(server.uri("big"), "read -P 1 0 32M").end == .exited(0))
    }
}
