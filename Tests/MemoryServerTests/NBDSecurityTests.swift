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

extension TestSecrets {
    fileprivate func keys() throws -> [SharedKey] { try SharedKey.parse(readSmallText(psk)) }
}

@Suite(.enabled(if: TestSecrets.tools.isUsable, "\(TestSecrets.tools.reason)"))
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
        let secrets = try TestSecrets()
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
        let secrets = try TestSecrets()
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
        let secrets = try TestSecrets()
        let served = try ServedScratch(
            security: NBDSecurity(
                credentials: TLSCredentials(
                    serverKeys: [], certificates: secrets.good, verifyPeer: true),
                needsIdentity: true))
        try pagesPass(uri(served, "mine") { $0.certificates = secrets.good })
        // A client that does not believe the server's authority.
        #expect {
            try FabricNBD(uri(served, "x") { $0.certificates = secrets.other }, deadline: soon())
        } throws: { if case .security? = $0 as? NBDConnectError { true } else { false } }
        // One with the right name, signed by another authority, that believes ours; and one without any.
        for certificates in [secrets.mixed, secrets.none] {
            #expect(throws: NBDConnectError.self) {
                try FabricNBD(
                    uri(served, "x") { $0.certificates = certificates }, deadline: soon())
            }
        }
    }

    @Test func aServerWithoutTLSSaysSo() throws {
        let secrets = try TestSecrets()
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
