// TransportSecurity: TLS by GnuTLS over sockets that somebody else owns, with keys (PSK) or certificates.
//
// Thread model: credentials are made once and only read afterwards, by any thread; a session belongs to one
// thread. Invariant: whoever has a session with an identity has proved it. Must not import: Foundation.

import CGnuTLS
import Glibc
import LinuxSystem
package import PoolProtocol
import Synchronization

/// Why TLS cannot be set up or was not agreed on.
package struct TLSError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }

    /// A system call on the socket that failed.
    package init(system code: Int32) { description = errnoText(code) }

    init(_ what: String, _ code: Int32) {
        let reason = unsafe gnutls_strerror(code).map { unsafe String(cString: $0) }
        description = "\(what): \(reason ?? "error \(code)")"
    }
}

/// Keys and certificates of one end.
@safe package final class TLSCredentials: @unchecked Sendable {
    // SAFETY of @unchecked Sendable: nothing is changed after `init`; GnuTLS allows sessions of several
    // threads to share credentials.

    /// TLS 1.2 and 1.3; with keys also the exchanges that use them, forward secret ones first.
    private static let priorityWithKeys =
        "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:"
        + "+ECDHE-PSK:+DHE-PSK:+PSK"
    private static let priorityPlain = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

    let isServer: Bool
    /// The server's keys, by name.
    private let keys: [String: [UInt8]]
    let verifiesPeer: Bool
    private var serverKeys: gnutls_psk_server_credentials_t?
    private var clientKey: gnutls_psk_client_credentials_t?
    private var certificates: gnutls_certificate_credentials_t?

    /// A server's: `keys` from --auth-file; `certificates` is a directory with ca-cert.pem (for
    /// `verifyPeer`), server-cert.pem and server-key.pem.
    package init(
        serverKeys keys: [SharedKey], certificates directory: String?, verifyPeer: Bool
    ) throws(TLSError) {
        isServer = true
        verifiesPeer = verifyPeer && directory != nil
        self.keys = Dictionary(
            keys.map { ($0.name, $0.secret) }, uniquingKeysWith: { first, _ in first })
        if !keys.isEmpty {
            var credentials: gnutls_psk_server_credentials_t?
            try Self.check(
                "keys", unsafe gnutls_psk_allocate_server_credentials(&credentials))
            unsafe serverKeys = unsafe credentials
            unsafe gnutls_psk_set_server_credentials_function(credentials) {
                unsafe TLSCredentials.giveKey(session: $0, name: $1, key: $2)
            }
        }
        if let directory {
            try loadCertificates(directory, name: "server", authority: verifyPeer, own: true)
        }
    }

    /// A client's with a key of its own.
    package init(clientKey key: SharedKey) throws(TLSError) {
        isServer = false
        verifiesPeer = false
        keys = [:]
        var credentials: gnutls_psk_client_credentials_t?
        try Self.check("key", unsafe gnutls_psk_allocate_client_credentials(&credentials))
        unsafe clientKey = unsafe credentials
        // SAFETY: GnuTLS copies name and secret.
        var secret = key.secret
        let code = unsafe secret.withUnsafeMutableBufferPointer {
            var datum = unsafe gnutls_datum_t(data: $0.baseAddress, size: UInt32($0.count))
            return unsafe gnutls_psk_set_client_credentials(
                credentials, key.name, &datum, GNUTLS_PSK_KEY_RAW)
        }
        try Self.check("key '\(key.name)'", code)
    }

    /// A client's with a directory: ca-cert.pem says whom to believe; client-cert.pem and client-key.pem
    /// are presented where they are there.
    package init(clientCertificates directory: String) throws(TLSError) {
        isServer = false
        verifiesPeer = true
        keys = [:]
        let hasOwn = unsafe access("\(directory)/client-cert.pem", R_OK) == 0
        try loadCertificates(directory, name: "client", authority: true, own: hasOwn)
    }

    deinit {
        if let credentials = unsafe serverKeys {
            unsafe gnutls_psk_free_server_credentials(credentials)
        }
        if let credentials = unsafe clientKey {
            unsafe gnutls_psk_free_client_credentials(credentials)
        }
        if let credentials = unsafe certificates {
            unsafe gnutls_certificate_free_credentials(credentials)
        }
    }

    private func loadCertificates(
        _ directory: String, name: String, authority: Bool, own: Bool
    ) throws(TLSError) {
        var credentials: gnutls_certificate_credentials_t?
        try Self.check("certificates", unsafe gnutls_certificate_allocate_credentials(&credentials))
        unsafe certificates = unsafe credentials
        if authority {
            let path = "\(directory)/ca-cert.pem"
            let count = unsafe gnutls_certificate_set_x509_trust_file(
                credentials, path, GNUTLS_X509_FMT_PEM)
            guard count > 0 else { throw TLSError("\(path): no certificate could be read from it") }
        }
        if own {
            let (cert, key) = ("\(directory)/\(name)-cert.pem", "\(directory)/\(name)-key.pem")
            try Self.check(
                "\(cert), \(key)",
                unsafe gnutls_certificate_set_x509_key_file(
                    credentials, cert, key, GNUTLS_X509_FMT_PEM))
        }
    }

    static func check(_ what: String, _ code: Int32) throws(TLSError) {
        if code < 0 { throw TLSError(what, code) }
    }

    /// Gives a new session what this end has.
    func apply(to session: gnutls_session_t, host: String?) throws(TLSError) {
        let usesKeys = unsafe serverKeys != nil || clientKey != nil
        try Self.check(
            "TLS priorities",
            unsafe gnutls_priority_set_direct(
                session, usesKeys ? Self.priorityWithKeys : Self.priorityPlain, nil))
        if let credentials = unsafe serverKeys {
            unsafe gnutls_session_set_ptr(session, Unmanaged.passUnretained(self).toOpaque())
            try Self.check(
                "keys",
                unsafe gnutls_credentials_set(
                    session, GNUTLS_CRD_PSK, UnsafeMutableRawPointer(credentials)))
        }
        if let credentials = unsafe clientKey {
            try Self.check(
                "key",
                unsafe gnutls_credentials_set(
                    session, GNUTLS_CRD_PSK, UnsafeMutableRawPointer(credentials)))
        }
        guard let credentials = unsafe certificates else { return }
        try Self.check(
            "certificates",
            unsafe gnutls_credentials_set(
                session, GNUTLS_CRD_CERTIFICATE, UnsafeMutableRawPointer(credentials)))
        if isServer {
            if verifiesPeer {
                unsafe gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE)
                unsafe gnutls_session_set_verify_cert(session, nil, 0)
            }
        } else {
            // GnuTLS keeps the pointer: it must live as long as the session.
            unsafe gnutls_session_set_verify_cert(session, Self.keep(host ?? "localhost"), 0)
        }
    }

    /// Texts that sessions point to: few (one per host name), kept for the process's life.
    private static func keep(_ text: String) -> UnsafePointer<CChar>? {
        unsafe keptTexts.withLock { kept in
            if let known = kept[text] { return unsafe UnsafePointer(bitPattern: known) }
            let copy = unsafe strdup(text)
            kept[text] = UInt(bitPattern: copy)
            return unsafe UnsafePointer(copy)
        }
    }

    /// GnuTLS asks for the key of a name; -1: there is none.
    private static func giveKey(
        session: gnutls_session_t?, name: UnsafePointer<CChar>?,
        key: UnsafeMutablePointer<gnutls_datum_t>?
    ) -> Int32 {
        guard let raw = unsafe gnutls_session_get_ptr(session), let name = unsafe name,
            let key = unsafe key
        else { return -1 }
        // SAFETY: the session's owner keeps the credentials alive (TLSSession).
        let credentials = unsafe Unmanaged<TLSCredentials>.fromOpaque(raw).takeUnretainedValue()
        guard let secret = unsafe credentials.keys[String(cString: name)],
            let copy = unsafe malloc(secret.count)
        else { return -1 }
        unsafe copy.copyMemory(from: secret, byteCount: secret.count)
        // GnuTLS frees it.
        unsafe key.pointee.data = unsafe copy.assumingMemoryBound(to: UInt8.self)
        unsafe key.pointee.size = UInt32(secret.count)
        return 0
    }
}
