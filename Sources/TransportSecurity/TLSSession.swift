import CGnuTLS
import CLinuxShims
import Glibc
import LinuxSystem
import PoolProtocol
import Synchronization

/// Host names that sessions verify against (TLSCredentials.keep).
let keptTexts = Mutex<[String: UInt]>([:])

/// One encrypted connection over a non-blocking socket that the caller owns and keeps open. One thread.
@safe package final class TLSSession {
    /// How a record was or was not moved.
    package enum Moved: Equatable {
        case bytes(Int)
        /// Nothing can be moved now; the socket says when.
        case wouldBlock(writing: Bool)
        /// The peer said goodbye, or the connection or the encryption broke.
        case ended
    }

    private let session: gnutls_session_t
    private let credentials: TLSCredentials
    private let descriptor: Int32
    /// Who the peer proved to be: the name of its key, or of its verified certificate. nil: nobody.
    package private(set) var identity: String?

    /// Prepares a session; `handshake` comes next.
    /// - Parameter host: whose certificate a client wants to see.
    package init(
        _ credentials: TLSCredentials, descriptor: Int32, host: String? = nil
    ) throws(TLSError) {
        var made: gnutls_session_t?
        let flags = UInt32(credentials.isServer ? FM_TLS_SERVER : FM_TLS_CLIENT)
        try TLSCredentials.check("TLS session", unsafe gnutls_init(&made, flags))
        guard let session = unsafe made else { throw TLSError("TLS session: none was made") }
        unsafe self.session = unsafe session
        self.credentials = credentials
        self.descriptor = descriptor
        unsafe gnutls_transport_set_int2(session, descriptor, descriptor)
        unsafe try credentials.apply(to: session, host: host)
    }

    deinit { unsafe gnutls_deinit(session) }

    /// Agrees with the peer before the deadline (monotonic), or throws why not.
    package func handshake(deadline: Int64) throws(TLSError) {
        while true {
            let code = unsafe gnutls_handshake(session)
            if code == GNUTLS_E_SUCCESS { break }
            if code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED {
                guard waitReady(writing: isWriting, until: deadline) else {
                    throw TLSError("the peer did not finish the TLS handshake in time")
                }
            } else if gnutls_error_is_fatal(code) != 0 {
                // The peer's own message is better for it than "connection closed"; it may be gone already.
                unsafe _ = gnutls_alert_send_appropriate(session, code)
                throw TLSError(verificationFailure ?? TLSError("handshake", code).description)
            } else if monotonicNow() > deadline {
                throw TLSError("the peer did not finish the TLS handshake in time")
            }
        }
        identity = findIdentity()
    }

    private var isWriting: Bool { unsafe gnutls_record_get_direction(session) == 1 }

    /// What was wrong with the peer's certificate, when that is what failed.
    private var verificationFailure: String? {
        let status = unsafe gnutls_session_get_verify_cert_status(session)
        guard status != 0, status != UInt32.max else { return nil }
        var text = unsafe gnutls_datum_t(data: nil, size: 0)
        guard
            unsafe gnutls_certificate_verification_status_print(
                status, GNUTLS_CRT_X509, &text, 0) == 0, let data = unsafe text.data
        else { return nil }
        defer { unsafe free(data) }
        return unsafe "certificate: " + String(cString: data)
    }

    private func findIdentity() -> String? {
        guard credentials.isServer else { return nil }
        if unsafe gnutls_auth_get_type(session) == GNUTLS_CRD_PSK {
            return unsafe gnutls_psk_server_get_username(session).map {
                unsafe String(cString: $0)
            }
        }
        return credentials.verifiesPeer ? commonName() : nil
    }

    /// The common name of the peer's verified certificate, when it can be a lease's owner.
    private func commonName() -> String? {
        var count: UInt32 = 0
        var certificate: gnutls_x509_crt_t?
        guard let list = unsafe gnutls_certificate_get_peers(session, &count), count > 0,
            unsafe gnutls_x509_crt_init(&certificate) == 0
        else { return nil }
        defer { unsafe gnutls_x509_crt_deinit(certificate) }
        guard unsafe gnutls_x509_crt_import(certificate, list, GNUTLS_X509_FMT_DER) == 0 else {
            return nil
        }
        var name = [CChar](repeating: 0, count: 256)
        var length = name.count
        let code = unsafe gnutls_x509_crt_get_dn_by_oid(
            certificate, "2.5.4.3", 0, 0, &name, &length)
        guard code == 0, length < name.count else { return nil }
        let bytes = name[..<length].map { UInt8(bitPattern: $0) }
        guard let text = String(validating: bytes, as: UTF8.self), isLeaseName(text) else {
            return nil
        }
        return text
    }

    /// Decrypts what is there into at most `count` bytes.
    package func receive(_ bytes: UnsafeMutableRawPointer, _ count: Int) -> Moved {
        moved(unsafe gnutls_record_recv(session, bytes, count), isReceiving: true)
    }

    /// Encrypts and sends at most `count` bytes. After `wouldBlock` the same bytes must be given again.
    package func send(_ bytes: UnsafeRawPointer, _ count: Int) -> Moved {
        moved(unsafe gnutls_record_send(session, bytes, count), isReceiving: false)
    }

    /// Waits for the socket after `wouldBlock`; false when the deadline (monotonic) passed.
    package func waitReady(writing: Bool, until deadline: Int64) -> Bool {
        let left = deadline - monotonicNow()
        let events = UInt32(writing ? FM_POLL_OUT : FM_POLL_IN)
        return left > 0 && fm_poll_one(descriptor, events, left) != 0
    }

    private func moved(_ result: Int, isReceiving: Bool) -> Moved {
        if result > 0 { return .bytes(result) }
        if result == 0 { return isReceiving ? .ended : .bytes(0) }
        let code = Int32(truncatingIfNeeded: result)
        if code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED {
            return .wouldBlock(writing: isWriting)
        }
        // A warning or a request to renegotiate, which nobody here makes: try again later.
        return gnutls_error_is_fatal(code) == 0 ? .wouldBlock(writing: false) : .ended
    }

    /// Decrypted bytes that wait: the socket does not tell of them.
    package var hasPending: Bool { unsafe gnutls_record_check_pending(session) > 0 }

    /// Says goodbye, without waiting for an answer.
    package func end() { unsafe _ = gnutls_bye(session, GNUTLS_SHUT_WR) }
}
