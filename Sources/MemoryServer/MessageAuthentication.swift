import CGnuTLS
import Glibc
import PoolProtocol

/// HMAC-SHA256 of what a client must sign; nil when the library refuses (it never does in practice).
func controlAuthenticationCode(
    secret: [UInt8], challenge: [UInt8], keyName: String, over transport: ControlTransport
) -> [UInt8]? {
    let text = ControlMessage.authenticatedBytes(
        challenge: challenge, keyName: keyName, over: transport)
    var code = [UInt8](repeating: 0, count: 32)
    let result = unsafe gnutls_hmac_fast(
        GNUTLS_MAC_SHA256, secret, secret.count, text, text.count, &code)
    return result == 0 ? code : nil
}

/// Compares in a time that does not depend on where the two differ.
func equalInConstantTime(_ a: [UInt8], _ b: [UInt8]) -> Bool {
    guard a.count == b.count else { return false }
    return unsafe gnutls_memcmp(a, b, a.count) == 0
}

/// Bytes that nobody can guess, 32 for a challenge; nil when the library has no randomness.
func makeChallenge(_ count: Int = 32) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    return unsafe gnutls_rnd(GNUTLS_RND_NONCE, &bytes, bytes.count) == 0 ? bytes : nil
}
