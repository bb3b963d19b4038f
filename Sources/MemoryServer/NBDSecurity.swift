/// What TLS a listener offers.
package struct NBDSecurity: Sendable {
    /// nil: no TLS.
    package var context: TLSContext?
    /// Nothing is told or served in the clear.
    package var isForced: Bool

    package init(context: TLSContext? = nil, isForced: Bool = false) {
        self.context = context
        self.isForced = isForced
    }
}

/// Keys and certificates of the server.
package final class TLSContext: Sendable {}
