/// How a client proves itself by TLS.
package struct NBDClientSecurity: Equatable, Sendable {
    package enum Proof: Equatable, Sendable {
        /// A key shared with the server: its name, and a file of lines `name:hexkey` (psktool).
        case sharedKey(name: String, file: String)
        /// A directory with ca-cert.pem, and client-cert.pem with client-key.pem where the server asks.
        case certificates(directory: String)
    }
    package var proof: Proof

    package init(_ proof: Proof) { self.proof = proof }
}

extension NBDSocket {
    /// Runs the TLS handshake.
    func encrypt(
        _ security: NBDClientSecurity, host: String, _ deadline: Int64
    ) throws(NBDSocketError) {
        throw .refused(.security("not built in"))
    }
}
