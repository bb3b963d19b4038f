import CommandLineKit
import FarMemory
import LinuxSystem
import MemoryPool
import MemoryServer
import PoolProtocol
import TransportSecurity

let serveOptions: [Option] =
    Option.daemon + [
        Option("capacity", .size, required: true, help: "How much memory to lend, never more."),
        Option(
            "pool", .string, placeholder: "DIR",
            help: "Keep pages in this directory on tmpfs, where they outlive this process."),
        Option(
            "slab", .size,
            help: "Unit of grant, a power of two (default 1MiB, or what the pool has)."),
        Option(
            "shm", .string, placeholder: "PATH",
            help: "Control socket of shared memory (default /run/farmem/memserver.sock)."),
        Option(
            "nbd", .endpoint, repeatable: true,
            help: "Serve NBD here: tcp://127.0.0.1:10809 or unix:PATH."),
        Option(
            "rdma", .string, placeholder: "ADDR[:PORT]",
            help: "Serve RDMA clients on this address of an RDMA device (default port 50000)."),
        Option(
            "admin", .endpoint,
            help: "Admin HTTP (default unix:/run/farmem/memserver-admin.sock)."),
        Option(
            "auth-file", .string, placeholder: "FILE",
            help: "Keys, one name:hexkey per line as psktool writes them."),
        Option(
            "tls-certificates", .string, placeholder: "DIR",
            help: "NBD over TLS with server-cert.pem and server-key.pem of this directory."),
        Option(
            "tls-verify-peer", .flag,
            help: "NBD clients must present a certificate that ca-cert.pem there has signed."),
        Option(
            "auto-lease", .size, help: "Make a lease of this size for an unknown NBD export."),
        Option(
            "grace", .duration, default: "1h", help: "Keep a lease this long without a client."),
    ]

/// What `memserver serve` was asked to do, checked.
struct ServeSettings {
    var pool: PoolOptions
    var shmPath: String
    var nbd: [Endpoint]
    /// Address and port; always TCP's form.
    var rdma: RDMAAddress?
    var admin: Endpoint
    var keys: [SharedKey]?
    var certificates: String?
    var verifiesPeer: Bool
    var autoLease: ByteCount?

    init(_ invocation: Invocation) throws {
        rdma = try invocation.stringIfSet("rdma").map { (text) throws(UsageError) in
            try RDMAAddress(text)
        }
        pool = PoolOptions(
            directory: invocation.stringIfSet("pool"), capacity: invocation.size("capacity"),
            slab: invocation.sizeIfSet("slab"), grace: invocation.duration("grace"))
        shmPath = invocation.stringIfSet("shm") ?? "\(runtimeDirectory())/memserver.sock"
        nbd = invocation.endpoints("nbd")
        admin = defaultAdmin(invocation)
        autoLease = invocation.sizeIfSet("auto-lease")
        certificates = invocation.stringIfSet("tls-certificates")
        verifiesPeer = invocation.flag("tls-verify-peer")
        if let path = invocation.stringIfSet("auth-file") { keys = try readKeys(path) }
        try check()
    }

    private func check() throws(UsageError) {
        let slab = pool.slab ?? ByteCount(UInt64(defaultSlabBytes))
        guard let bytes = UInt32(exactly: slab.bytes), ControlMessage.isSlabSize(bytes) else {
            throw UsageError("--slab \(slab) must be a power of two from 64KiB to 1GiB")
        }
        guard pool.capacity >= slab else {
            throw UsageError("--capacity \(pool.capacity) is less than one slab of \(slab)")
        }
        if let autoLease, autoLease.bytes == 0 || autoLease > PoolLimits.leaseBytesMax {
            throw UsageError("--auto-lease \(autoLease) must be 1B to \(PoolLimits.leaseBytesMax)")
        }
        if verifiesPeer && certificates == nil {
            throw UsageError("--tls-verify-peer needs --tls-certificates DIR with ca-cert.pem")
        }
        if keys == nil && !verifiesPeer, let open = nbd.first(where: { !$0.isLocal }) {
            throw UsageError(
                "--nbd \(open) can be reached from other machines; give --auth-file, or loopback")
        }
        if keys == nil, let rdma, !rdma.endpoint.isLocal {
            throw UsageError(
                "--rdma \(rdma) can be reached from other machines; give --auth-file, or loopback")
        }
        if !admin.isLocal {
            throw UsageError("--admin \(admin) is not local; use loopback or a unix socket")
        }
    }
}

/// `ADDR`, `ADDR:PORT`, `[ADDR6]:PORT`.
struct RDMAAddress: CustomStringConvertible {
    let host: String
    let port: UInt16

    init(_ text: String) throws(UsageError) {
        var rest = text[...]
        if rest.first == "[", let end = rest.firstIndex(of: "]") {
            host = String(rest[rest.index(after: rest.startIndex)..<end])
            rest = rest[rest.index(after: end)...]
        } else {
            let end = rest.firstIndex(of: ":") ?? rest.endIndex
            host = String(rest[..<end])
            rest = rest[end...]
        }
        let number = rest.isEmpty ? 50_000 : UInt16(rest.dropFirst())
        guard !host.isEmpty, rest.isEmpty || rest.first == ":", let number else {
            throw UsageError("--rdma \(text) is not an address and port, such as 10.0.0.1:50000")
        }
        port = number
    }

    var endpoint: Endpoint { .tcp(host: host, port: port) }
    var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

extension ServeSettings {
    /// What NBD clients must prove: nothing without keys and certificates, else TLS is forced.
    func makeSecurity() throws -> NBDSecurity {
        guard keys != nil || certificates != nil else { return NBDSecurity() }
        do throws(TLSError) {
            let credentials = try TLSCredentials(
                serverKeys: keys ?? [], certificates: certificates, verifyPeer: verifiesPeer)
            return NBDSecurity(
                credentials: credentials, needsIdentity: keys != nil || verifiesPeer)
        } catch {
            throw CommandFailure(.badConfiguration, "--tls-certificates, --auth-file: \(error)")
        }
    }
}

/// Where the admin API is.
func defaultAdmin(_ invocation: Invocation) -> Endpoint {
    invocation.endpointIfSet("admin")
        ?? .unix(path: "\(runtimeDirectory())/memserver-admin.sock")
}

private func readKeys(_ path: String) throws -> [SharedKey] {
    let text: String
    do throws(SystemError) {
        text = try readSmallText(path)
    } catch {
        throw CommandFailure(
            .badConfiguration, "--auth-file \(path): \(error.reason); make it with psktool")
    }
    let keys: [SharedKey]
    do throws(KeyFileError) {
        keys = try SharedKey.parse(text)
    } catch {
        throw CommandFailure(.badConfiguration, "--auth-file \(path): \(error)")
    }
    guard !keys.isEmpty else {
        throw CommandFailure(
            .badConfiguration, "--auth-file \(path) has no key; add one with psktool")
    }
    return keys
}
