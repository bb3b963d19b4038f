/// Why an export cannot be opened.
package enum NBDOpenFailure: Error, Equatable, Sendable {
    /// No such export, or not one that this key may know of.
    case unknown
    /// It is in use in a way that allows no other.
    case busy
    /// The pool cannot hold another lease.
    case noSpace
    /// The server is going down.
    case shuttingDown
}

/// An export that a connection uses until it calls `close`, once.
package struct NBDOpenExport: Sendable {
    package let memory: ExportMemory
    package let close: @Sendable () -> Void

    package init(memory: ExportMemory, close: @escaping @Sendable () -> Void) {
        self.memory = memory
        self.close = close
    }
}

/// What the NBD listeners serve. `key` is the identity that the client proved by TLS; nil without. Any thread.
package protocol NBDExports: Sendable {
    /// The exports that the key may list.
    func names(key: String?) -> [String]
    /// The size in bytes that `open` would give; nil when it would not.
    func size(_ name: String, key: String?) -> UInt64?
    /// Opens an export, making it when the server is told to.
    func open(_ name: String, key: String?) throws(NBDOpenFailure) -> NBDOpenExport
}
