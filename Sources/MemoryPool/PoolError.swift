// MemoryPool: memory that is lent: slabs, leases, quotas, and the files that outlive the process.
//
// Purpose: one sparse file per lease on tmpfs; granting a slab allocates its blocks, giving it back punches
// a hole, so thinness and scrubbing are the file system's work. Knows no socket and no protocol.
// Thread model: every call may come from any thread. Control calls take a lock; access to pages
// (Lease+Pages.swift) takes none unless a slab has to be granted.
// Invariants: the sum of granted slabs never exceeds the capacity; a slab's memory is clear when it is
// granted; an open gate means blocks are allocated, so touching it cannot raise SIGBUS.
// Must not import: Foundation.

package import FarMemory
package import LinuxSystem

/// Why the pool did not do what was asked.
package enum PoolError: Error, Equatable, Sendable {
    /// Capacity or the file system's memory is used up.
    case noSpace
    /// The lease has all that its quota allows.
    case quotaUsedUp
    case noSuchLease(String)
    case leaseExists(String)
    /// Somebody has it open.
    case leaseBusy(String)
    /// It belongs to another key.
    case notOwner(String)
    case invalidName(String)
    /// Zero, or more than a lease can have.
    case invalidSize(ByteCount)
    /// It exists with this other size.
    case otherSize(ByteCount)
    case outOfRange
    /// A slab that should go back holds pages.
    case notEmpty
    case tooManyLeases
    /// Another memserver serves this pool.
    case poolInUse(String)
    /// The directory is not on tmpfs.
    case notInMemory(String)
    /// The file system is smaller than the capacity: how large it is.
    case fileSystemTooSmall(String, ByteCount)
    /// The pool was made with another slab size.
    case otherSlabSize(ByteCount)
    /// More is granted already than the new capacity: how much.
    case capacityBelowGranted(ByteCount)
    /// The manifest or a lease's file is not what this program wrote.
    case corrupt(file: String, reason: String)
    case system(SystemError)
}

extension PoolError: CustomStringConvertible {
    /// One line: what is wrong and what to do.
    package var description: String {
        switch self {
        case .noSpace: "the pool is full; release leases or serve with a larger --capacity"
        case .quotaUsedUp: "the lease's quota is used up"
        case .noSuchLease(let name): "there is no lease '\(name)'; see memserver lease list"
        case .leaseExists(let name): "lease '\(name)' exists already"
        case .leaseBusy(let name): "lease '\(name)' is in use; detach its client first"
        case .notOwner(let name): "lease '\(name)' belongs to another key"
        case .invalidName(let name):
            "'\(name)' is not a lease name; use 1 to 64 letters, digits, . _ - (no dot in front)"
        case .invalidSize(let size):
            "a lease cannot have \(size); use one page to \(PoolLimits.leaseBytesMax)"
        case .otherSize(let size): "the lease exists with size \(size); give that size"
        case .outOfRange: "the range does not lie in the lease"
        case .notEmpty: "a slab to be returned holds pages"
        case .tooManyLeases: "the pool has \(PoolLimits.leasesMax) leases already; release some"
        case .poolInUse(let path):
            "\(path) is served by another memserver; stop it or use another --pool"
        case .notInMemory(let path):
            "\(path) is not on tmpfs, so it would not be memory; use a directory below /dev/shm"
        case .fileSystemTooSmall(let path, let size):
            "the tmpfs at \(path) holds only \(size); lower --capacity, or remount it larger"
        case .otherSlabSize(let size):
            "the pool was made with slabs of \(size); give --slab \(size)"
        case .capacityBelowGranted(let granted):
            "\(granted) of the pool are granted already; give --capacity \(granted) at least"
        case .corrupt(let file, let reason):
            "\(file): \(reason); restore it, or empty the pool directory (its pages are lost then)"
        case .system(let error): "\(error)"
        }
    }
}

/// Bounds of a pool.
package enum PoolLimits {
    package static let leasesMax = 1024
    package static let leaseBytesMax = ByteCount.gib(4096)
    package static let manifestBytesMax = 1 << 20
    /// Slabs in one grant or return: keeps one session from holding a lease's lock for long.
    package static let slabsPerRequestMax = 1024
}

/// Runs a body and turns its system error into a pool error.
func wrapping<R: ~Copyable>(_ body: () throws(SystemError) -> R) throws(PoolError) -> R {
    do throws(SystemError) { return try body() } catch { throw .system(error) }
}
