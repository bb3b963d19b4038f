package import TransportSecurity

/// What TLS a listener asks of its clients.
package struct NBDSecurity: Sendable {
    /// nil: no TLS. Otherwise nothing is told or served in the clear.
    package var credentials: TLSCredentials?
    /// A client must have proved who it is, by a key or a certificate; encryption alone is not enough.
    package var needsIdentity: Bool

    package init(credentials: TLSCredentials? = nil, needsIdentity: Bool = false) {
        self.credentials = credentials
        self.needsIdentity = needsIdentity
    }
}
