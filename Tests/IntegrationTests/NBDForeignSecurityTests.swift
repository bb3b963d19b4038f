import FarMemory
import JSONText
import LinuxSystem
import TestSupport
import Testing

private let needs = Capability.all([TestSecrets.tools, ForeignNBD.tools])

/// Keys and certificates as operators make them, given to the real server and to clients that others have written.
@Suite(.serialized, .timeLimit(.minutes(5)), .enabled(if: needs.isUsable, "\(needs.reason)"))
struct NBDForeignSecurityTests {
    private let secrets: TestSecrets
    private let seed = TestSeed(filter: "NBDForeignSecurityTests")

    init() throws { secrets = try TestSecrets() }

    private func keyServer() throws -> Memserver {
        try Memserver(
            ["--auto-lease", "16MiB", "--auth-file", secrets.psk], capacity: "64MiB", nbd: .unix)
    }

    private func certificateServer() throws -> Memserver {
        try Memserver(
            [
                "--auto-lease", "16MiB", "--tls-certificates", secrets.good, "--tls-verify-peer",
            ], capacity: "64MiB", nbd: .unixAndTCP)
    }

    private func keyURI(
        _ server: Memserver, _ export: String, account: String = "alice", file: String? = nil
    ) -> String {
        server.uri(
            export, tls: true, account: account, query: "&tls-psk-file=\(file ?? secrets.psk)")
    }

    /// The same bytes come back, and the server's export is the one that was asked for.
    private func bytesPass(_ uri: String) throws {
        var random = seed.random
        let directory = try TemporaryDirectory(inMemory: true)
        let (image, back) = (directory.file("image"), directory.file("back"))
        try ForeignNBD.makeImage(image, mebibytes: 16, &random)
        let output = try ForeignNBD.run("nbdinfo", "--json", uri)
        let info = try JSONValue.parse(Array(output.utf8))
        #expect(info["TLS"]?.bool == true)
        #expect(info["exports"]?[0]?["export-size"]?.integer == 16 << 20)
        try ForeignNBD.run("nbdcopy", image, uri)
        try ForeignNBD.run("nbdcopy", uri, back)
        #expect(try ForeignNBD.sameBytes(image, back), "\(seed)")
    }

    /// The client fails, hears of no export, and the server's log says why.
    private func isRefused(
        _ server: Memserver, _ uri: String, because words: String,
        at place: SourceLocation = #_sourceLocation
    ) throws {
        for arguments in [[uri], ["--list", uri]] {
            let run = try ForeignNBD.attempt("nbdinfo", arguments)
            #expect(run.end == .exited(1), "\(run.output)", sourceLocation: place)
            #expect(!run.output.contains("export"), "\(run.output)", sourceLocation: place)
        }
        let image = server.directory.file("image")
        let stolen = try ForeignNBD.attempt("nbdcopy", [uri, image])
        #expect(stolen.end == .exited(1), sourceLocation: place)
        #expect(!fileExists(image), sourceLocation: place)
        #expect(
            server.hasLogged("nbd_client_refused", words), "\(server.process.standardError)",
            sourceLocation: place)
    }

    @Test func aKeyOpensTheLeasesOfItsOwner() throws {
        let server = try keyServer()
        try bytesPass(keyURI(server, "hers"))
        #expect(try server.lease("hers")?["key"]?.string == "alice")
        try bytesPass(keyURI(server, "his", account: "bob"))
        // A good key, and the lease is another's: not even its name is told.
        let other = try ForeignNBD.attempt("nbdinfo", [keyURI(server, "hers", account: "bob")])
        #expect(other.end == .exited(1) && other.error.contains("No such file"), "\(other.error)")
        let listed = try ForeignNBD.run(
            "nbdinfo", "--list", "--json", keyURI(server, "", account: "bob"))
        let names = try JSONValue.parse(Array(listed.utf8))["exports"]?.array?.compactMap {
            $0["export-name"]?.string
        }
        #expect(names == ["his"])
    }

    @Test func qemuBringsAKeyToo() throws {
        let server = try keyServer()
        let credentials = [
            "--object",
            "tls-creds-psk,id=key,dir=\(secrets.directory.path),username=alice,endpoint=client",
        ]
        let image =
            "driver=raw,file.driver=nbd,file.export=q,file.server.type=unix,"
            + "file.server.path=\(server.nbdSocket),file.tls-creds=key"
        let run = try ForeignNBD.attempt(
            "qemu-io",
            credentials + [
                "-c", "write -P 0x5a 4k 300k", "-c", "read -P 0x5a 4k 300k", "--image-opts", image,
            ])
        #expect(run.end == .exited(0), "\(run.output)\(run.error)")
        #expect(try server.stored("q") == 300 << 10)
    }

    @Test func whoHasNoGoodKeyGetsNothingAndHarmsNobody() throws {
        let server = try keyServer()
        try ForeignNBD.run("nbdinfo", keyURI(server, "secret"))
        // Somebody with a good key works all the while.
        // fio cannot be given a key (libnbd wants to be asked for files in URIs): nbdkit's client brings it.
        let nbdkit = try #require(Capability.path(ofCommand: "nbdkit"))
        let load = ForeignNBD.fio("$uri", seed: seed.value, "--loops=20", "--rate_iops=8000")
            .map { $0.hasPrefix("--uri") ? "\"\($0)\"" : $0 }
        let worker = try TestProcess(
            nbdkit,
            [
                "-U", "-", "nbd", "socket=\(server.nbdSocket)", "export=busy", "tls=require",
                "tls-psk=\(secrets.psk)", "tls-username=alice", "--run",
                "timeout 60 fio \(load.joined(separator: " "))",
            ])
        for name in ["alice", "mallory"] {
            let file = try secrets.wrongKey(name: name)
            try isRefused(
                server, keyURI(server, "secret", account: name, file: file), because: "handshake")
        }
        try isRefused(server, server.uri("secret"), because: "without TLS")
        try isRefused(server, server.uri("another"), because: "without TLS")
        try isRefused(
            server,
            server.uri("secret", tls: true, query: "&tls-certificates=\(secrets.good)"),
            because: "handshake")
        #expect(try worker.wait(seconds: 0) == .running, "the good client was there meanwhile")
        #expect(try worker.wait(seconds: 60) == .exited(0), "\(seed) \(worker.standardOutput)")
        #expect(try server.status()["leases"]?.array?.count == 2, "no refusal made a lease")
        #expect(try server.stored("secret") == 0)
    }

    @Test func certificatesOpenAndTheirLackDoesNot() throws {
        let server = try certificateServer()
        func uri(_ certificates: String) throws -> String {
            "nbds://localhost:\(try server.nbdPort())/hers?tls-certificates=\(certificates)"
        }
        func unixURI(_ certificates: String) -> String {
            server.uri("hers", tls: true, query: "&tls-certificates=\(certificates)")
        }
        try bytesPass(uri(secrets.good))
        #expect(try server.lease("hers")?["key"]?.string == "alice")
        try bytesPass(unixURI(secrets.good))
        for place in [secrets.none, secrets.mixed] {
            try isRefused(server, uri(place), because: "handshake")
            try isRefused(server, unixURI(place), because: "handshake")
        }
        try isRefused(server, server.uri("hers"), because: "without TLS")
        try bytesPass(uri(secrets.good))
    }
}
