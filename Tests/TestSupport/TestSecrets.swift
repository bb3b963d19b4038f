import LinuxSystem

/// Keys by psktool and certificates by certtool, made anew for each test and removed with it.
package final class TestSecrets: Sendable {
    package let directory: TemporaryDirectory
    /// Keys of alice and bob, as `--auth-file`, `tls-psk-file` and QEMU want them.
    package var psk: String { directory.file("keys.psk") }
    /// Certificates of a server (localhost) and a client (alice), and of the authority that signed both.
    package var good: String { directory.file("good") }
    /// A client that calls itself alice as well, of another authority, which it believes.
    package var other: String { directory.file("other") }
    /// The same client, believing the good authority.
    package var mixed: String { directory.file("mixed") }
    /// A client without a certificate, believing the good authority.
    package var none: String { directory.file("none") }

    /// What a suite with secrets needs of the machine.
    package static let tools = Capability.all([.command("certtool"), .command("psktool")])

    package init() throws {
        directory = try TemporaryDirectory()
        for name in ["alice", "bob"] { try tool("psktool", ["-u", name, "-p", psk]) }
        for path in [good, other] {
            try makeDirectories(path)
            try authority(path)
        }
        try certificate(good, "server", "dns_name = localhost\ntls_www_server\n", cn: "localhost")
        for path in [good, other] {
            try certificate(path, "client", "tls_www_client\n", cn: "alice")
        }
        for path in [mixed, none] {
            try makeDirectories(path)
            try copy("ca-cert.pem", from: good, to: path)
        }
        for file in ["client-cert.pem", "client-key.pem"] {
            try copy(file, from: other, to: mixed)
        }
    }

    /// A file with one key: of a known name with a wrong secret, or of an unknown name.
    package func wrongKey(name: String) throws -> String {
        let path = directory.file("wrong-\(name)")
        try replaceFile(path, with: "\(name):00112233445566778899aabbccddeeff\n")
        return path
    }

    private func tool(_ name: String, _ arguments: [String]) throws {
        let result = try TestProcess.run("/usr/bin/\(name)", arguments)
        guard result.end == .exited(0) else {
            throw TestProcessError("\(name) \(arguments): \(result.error)")
        }
    }

    private func authority(_ path: String) throws {
        try tool("certtool", ["--generate-privkey", "--ecc", "--outfile", "\(path)/ca-key.pem"])
        try replaceFile(
            "\(path)/ca.info", with: "cn = authority\nca\ncert_signing_key\nexpiration_days = 2\n")
        try tool(
            "certtool",
            [
                "--generate-self-signed", "--load-privkey", "\(path)/ca-key.pem", "--template",
                "\(path)/ca.info", "--outfile", "\(path)/ca-cert.pem",
            ])
    }

    private func certificate(_ path: String, _ name: String, _ usage: String, cn: String) throws {
        try tool(
            "certtool", ["--generate-privkey", "--ecc", "--outfile", "\(path)/\(name)-key.pem"])
        try replaceFile(
            "\(path)/\(name).info",
            with: "cn = \(cn)\n\(usage)signing_key\nexpiration_days = 2\n")
        try tool(
            "certtool",
            [
                "--generate-certificate", "--load-privkey", "\(path)/\(name)-key.pem",
                "--load-ca-certificate", "\(path)/ca-cert.pem", "--load-ca-privkey",
                "\(path)/ca-key.pem", "--template", "\(path)/\(name).info", "--outfile",
                "\(path)/\(name)-cert.pem",
            ])
    }

    private func copy(_ file: String, from source: String, to target: String) throws {
        try replaceFile("\(target)/\(file)", with: readSmallText("\(source)/\(file)"))
    }
}
