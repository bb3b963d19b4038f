// SwapDevice: far memory as a swap device of the kernel.
//
// Thread model: a data process has one worker thread per slot and a main thread that only watches.
// Workers allocate nothing after start. All that must survive a killed data process lies in a
// `SharedRegion`, which the keeper holds too.
//
// It imports no transport: whoever wires it hands in a `Fabric`.

package import FarMemory

/// Bounds and defaults of this module.
package enum SwapLimits {
    /// Worker threads of one device; more than the processors never helps.
    package static let workers = 16
    /// The largest read or write the kernel may send, bytes (FUSE_MAX_PAGES: 256 pages).
    package static let requestBytes = 1 << 20
    package static let requestPages = requestBytes / pageBytes
    /// Requests that the kernel may have queued or with us at once (fuse_init_out.max_background).
    package static let background: UInt16 = 512
    /// Stores fail fast: the kernel keeps the page.
    package static let storeDeadline = Nanoseconds.seconds(1)
    /// Loads are tried for long: a failed one kills a process.
    package static let loadDeadline = Nanoseconds.seconds(30)
    /// Between two tries of a request, nanoseconds: from the first to the last, doubling.
    package static let retryPause: ClosedRange<Int64> = 200_000...20_000_000
    /// Of a request of the kernel's NBD client, before its connection is given up. Requests that were under way
    /// when a server went away are sent again only after this long (nbd_xmit_timeout), so it is short, but for servers
    /// without fences, where giving up a connection that still carries stores is not safe.
    package static let kernelRequestTimeout = Nanoseconds.seconds(2)
    package static let kernelRequestTimeoutUnfenced = Nanoseconds.seconds(10)
    /// How long attach waits for the data process to be ready.
    package static let startDeadline = Nanoseconds.seconds(15)
    /// Smallest device that swapon(2) takes with room to spare.
    package static let minimumSize = ByteCount.mib(1)
}
