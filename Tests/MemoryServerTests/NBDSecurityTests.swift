import CLinuxShims
import Fabric
import FabricNBD
import FarMemory
import LinuxSystem
import MemoryServer
import PoolProtocol
import TestSupport
import Testing
import TransportSecurity

private func soon(_ seconds: Double = 10) -> Int64 { monotonicNow() + Int64(seconds * 1e9) }

/// Keys by psktool, certificates by certtool: a server, a client that is known, and one of another authority.
private final class Secrets {
    let directory: TemporaryDirectory
    var psk: String { directory.file("keys") }

    init() throws {
        directory = try TemporaryDirectory()
        for name in ["alice", "bob"] { try tool("psktool", ["-u", name, "-p", psk]) }
        for place in ["good", "other"] {
            let path = directory.file(place)
            try makeDirectories(path)
            try authority(path)
        }
        try certificate("good", "server", "dns_name = localhost\ntls_www_server\n", cn: "localhost")
        try certificate("good", "client", "tls_www_client\n", cn: "alice")
        try certificate("other", "client", "tls_www_client\n", cn: "alice")
    }

    private func tool(_ name: String, _ arguments: [String]) throws {
        let result = try TestProcess.run("/usr/bin/\(name)", arguments)
        guard result.end == .exited(0) else {
            throw TestProcessFailure("\(name) \(arguments): \(result.error)")
        }
    }

    private func authority(_ path: String) throws {
        try tool("certtool", ["--generate-privkey", "--ecc", "--outfile", "\(path)/ca-key.pem"])
        try write("\(path)/ca.info", "cn = authority\nca\ncert_signing_key\nexpiration_days = 2\n")
        try tool(
            "certtool",
            [
                "--generate-self-signed", "--load-privkey", "\(path)/ca-key.pem", "--template",
                "\(path)/ca.info", "--outfile", "\(path)/ca-cert.pem",
            ])
    }

    private func certificate(_ place: String, _ name: String, _ usage: String, cn: String) throws {
        let path = directory.file(place)
        try tool(
            "certtool", ["--generate-privkey", "--ecc", "--outfile", "\(path)/\(name)-key.pem"])
        try write(
            "\(path)/\(name).info", "cn = \(cn)\n\(usage)signing_key\nexpiration_days = 2\n")
        try tool(
            "certtool",
            [
                "--generate-certificate", "--load-privkey", "\(path)/\(name)-key.pem",
                "--load-ca-certificate", "\(path)/ca-cert.pem", "--load-ca-privkey",
                "\(path)/ca-key.pem", "--template", "\(path)/\(name).info", "--outfile",
                "\(path)/\(name)-cert.pem",
            ])
    }

    private func write(_ path: String, _ text: String) throws {
        try FileDescriptor.open(path, 0o1101, mode: 0o600).writeAll(text)
    }

    func keys() throws -> [SharedKey] { try SharedKey.parse(readSmallText(psk)) }
}

private struct TestProcessFailure: Error {
    let text: String
    init(_ text: String) { self.text = text }
}

private let tools = Capability.all([.command("certtool"), .command("psktool")])

@Suite(.enabled(if: tools.isUsable, "\(tools.reason)"))
struct NBDSecurityTests {
    private func uri(_ served: ServedScratch, _ export: String, _ query: (inout NBDURI) -> Void)
        -> NBDURI
    {
        var uri = NBDURI(endpoint: .unix(path: served.path), export: export, usesTLS: true)
        query(&uri)
        return uri
    }

    private func pagesPass(_ uri: NBDURI) throws {
        let fabric = try FabricNBD(uri, deadline: soon())
        let channel = try fabric.makeChannel()
        let memory = try MemoryMapping(anonymous: 256 * pageBytes, populate: true)
        let back = try MemoryMapping(anonymous: 256 * pageBytes, populate: true)
        let seed = TestSeed(filter: "NBDSecurityTests")
        var random = seed.random
        unsafe memory.bytes.copyBytes(from: random.bytes(256 * pageBytes))
        unsafe try channel.store(
            PageRange(first: 3, count: 256), from: memory.base, deadline: soon())
        unsafe try withUnsafeTemporaryAllocation(of: iovec.self, capacity: 256) {
            _ = unsafe try channel.load(
                PageRange(first: 3, count: 256), staging: back.base, vectors: $0.baseAddress!,
                deadline: soon())
        }
        unsafe #expect(back.bytes.elementsEqual(memory.bytes), "\(seed)")
    }

    @Test func keysOpenTheirOwnLeasesOnly() throws {
        let secrets = try Secrets()
        let served = try ServedScratch(
            security: NBDSecurity(
                credentials: TLSCredentials(
                    serverKeys: try secrets.keys(), certificates: nil, verifyPeer: false),
                needsIdentity: true))
        try pagesPass(
            uri(served, "mine") {
                $0.user = "alice"
                $0.pskFile = secrets.psk
            })
        // Bob's key is good, and the export is not his.
        #expect(throws: NBDConnectError.unknownExport) {
            try FabricNBD(
                uri(served, "mine") {
                    $0.user = "bob"
                    $0.pskFile = secrets.psk
                }, deadline: soon())
        }
        // In the clear nothing is told, not even that an export exists.
        let bare = try BareClient(served.path)
        #expect(try bare.option(.list).map(\.0) == [.tlsRequired])
        #expect(try bare.option(.go, NBDExportRequest(name: "x").encoded).last?.0 == .tlsRequired)
        try bare.send(NBDOptionHeader.encode(.exportName, Array("x".utf8)))
        #expect(bare.isClosed())
    }

    @Test func wrongKeysAreRefusedAndOthersGoOn() throws {
        let secrets = try Secrets()
        let served = try ServedScratch(
            security: NBDSecurity(
                credentials: TLSCredentials(
                    serverKeys: try secrets.keys(), certificates: nil, verifyPeer: false),
                needsIdentity: true))
        for key in [
            SharedKey(name: "alice", secret: [UInt8](repeating: 1, count: 32)),
            SharedKey(name: "mallory", secret: [UInt8](repeating: 1, count: 32)),
        ] {
            let credentials = try TLSCredentials(clientKey: key)
            #expect {
                try FabricNBD(uri(served, "x") { _ in }, security: credentials, deadline: soon())
            } throws: { if case .security? = $0 as? NBDConnectError { true } else { false } }
        }
        try pagesPass(
            uri(served, "x") {
                $0.user = "alice"
                $0.pskFile = secrets.psk
            })
    }

    @Test func certificatesAreVerifiedOnBothSides() throws {
        let secrets = try Secrets()
        let good = secrets.directory.file("good")
        let served = try ServedScratch(
            security: NBDSecurity(
                credentials: TLSCredentials(
                    serverKeys: [], certificates: good, verifyPeer: true), needsIdentity: true))
        try pagesPass(uri(served, "mine") { $0.certificates = good })
        // A client that does not believe the server's authority.
        #expect {
            try FabricNBD(
                uri(served, "x") { $0.certificates = secrets.directory.file("other") },
                deadline: soon())
        } throws: { if case .security? = $0 as? NBDConnectError { true } else { false } }
        // A client with the right name, signed by another authority, that believes ours.
        let mixed = secrets.directory.file("mixed")
        try makeDirectories(mixed)
        for (file, from) in [
            ("ca-cert", "good"), ("client-cert", "other"), ("client-key", "other"),
        ] {
            let text = try readSmallText(secrets.directory.file("\(from)/\(file).pem"))
            try FileDescriptor.open("\(mixed)/\(file).pem", 0o1101).writeAll(text)
        }
        #expect(throws: NBDConnectError.self) {
            try FabricNBD(uri(served, "x") { $0.certificates = mixed }, deadline: soon())
        }
        // And one without any certificate.
        let none = secrets.directory.file("none")
        try makeDirectories(none)
        let authority = try readSmallText("\(good)/ca-cert.pem")
        try FileDescriptor.open("\(none)/ca-cert.pem", 0o1101).writeAll(authority)
        #expect(throws: NBDConnectError.self) {
            try FabricNBD(uri(served, "x") { $0.certificates = none }, deadline: soon())
        }
    }

    @Test func aServerWithoutTLSSaysSo() throws {
        let secrets = try Secrets()
        let served = try ServedScratch()
        #expect(throws: NBDConnectError.security("the server does not offer it")) {
            try FabricNBD(
                uri(served, "x") {
                    $0.user = "alice"
                    $0.pskFile = secrets.psk
                }, deadline: soon())
        }
    }
}
