import CWireFormat
import FarMemory
import Glibc
import LinuxSystem

/// Where a pool's files are: a directory on tmpfs, or nowhere (memory files that end with the process).
struct PoolStorage: ~Copyable, Sendable {
    /// nil: memory files.
    let directory: String?
    /// Held for the life of the process: a second server on the same directory does not get it.
    private let lock: FileDescriptor?

    /// Takes a directory, making it when it is not there.
    init(directory: String?, capacity: ByteCount) throws(PoolError) {
        self.directory = directory
        guard let directory else {
            lock = nil
            return
        }
        // Asked before the directory is made: a refusal changes nothing.
        let parent = Self.existingParent(of: directory)
        let facts = try wrapping { () throws(SystemError) in try fileSystemFacts(parent) }
        guard facts.kind == .tmpfs else { throw .notInMemory(directory) }
        // A tmpfs of size 0 has no limit of its own.
        if facts.totalBytes > 0 && facts.totalBytes < capacity.bytes {
            throw .fileSystemTooSmall(directory, ByteCount(facts.totalBytes))
        }
        try wrapping { () throws(SystemError) in try makeDirectories(directory, mode: 0o700) }
        let lock = try wrapping { () throws(SystemError) in
            try FileDescriptor.open("\(directory)/lock", O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600)
        }
        guard try Self.take(lock) else { throw .poolInUse(directory) }
        self.lock = consume lock
    }

    /// Takes the lock; false when another keeps it. A predecessor that was just killed keeps it until the
    /// kernel has taken its memory apart, so a second is worth waiting.
    private static func take(_ lock: borrowing FileDescriptor) throws(PoolError) -> Bool {
        let deadline = monotonicNow() + 1_000_000_000
        while true {
            let isOurs = try wrapping { () throws(SystemError) in try lock.lock() }
            if isOurs || monotonicNow() > deadline { return isOurs }
            sleepNanoseconds(5_000_000)
        }
    }

    /// The path itself when it exists, else the nearest directory above it that does.
    private static func existingParent(of path: String) -> String {
        var path = path[...]
        while !path.isEmpty && !fileExists(String(path)) {
            guard let slash = path.lastIndex(of: "/") else { return "." }
            path = path[..<slash]
        }
        return path.isEmpty ? "/" : String(path)
    }

    func path(_ name: String) -> String { "\(directory ?? "")/\(name)" }

    /// Makes a file of this length, or opens one that must exist with it. Mode 0600.
    func file(_ name: String, size: UInt64, create: Bool) throws(PoolError) -> FileDescriptor {
        let fd = FileDescriptor(owning: try openFile(name, size: size, create: create))
        if create && directory != nil {
            try wrapping { () throws(SystemError) in try fd.truncate(to: size) }
        }
        let found = try wrapping { () throws(SystemError) in try fd.size() }
        guard found == size else {
            throw .corrupt(file: path(name), reason: "it has \(found) bytes instead of \(size)")
        }
        return fd
    }

    /// The caller owns the descriptor. (A number, because Swift 6.3 cannot return an owner from two
    /// branches that throw.)
    private func openFile(_ name: String, size: UInt64, create: Bool) throws(PoolError) -> Int32 {
        do throws(SystemError) {
            if directory == nil {
                // The seal keeps a client that maps it from shrinking it.
                return try makeMemoryFile("farmem-\(name)", size: size, fixedSize: true).release()
            }
            let flags = O_RDWR | O_NOFOLLOW | (create ? O_CREAT | O_TRUNC : 0)
            return try FileDescriptor.open(path(name), flags, mode: 0o600).release()
        } catch {
            if error.code == ENOENT {
                throw .corrupt(file: path(name), reason: "the file is missing")
            }
            throw .system(error)
        }
    }

    /// Makes or opens a bitmap file; its blocks are allocated whole, so touching it cannot raise SIGBUS.
    func bitmapFile(
        _ name: String, magic: UInt64, bits: Int, epoch: UInt64, create: Bool
    ) throws(PoolError) -> FileDescriptor {
        let length = UInt64(Lease.bitmapFileBytes(bits))
        let fd = try file(name, size: length, create: create)
        do throws(SystemError) {
            try fd.allocate(offset: 0, length: length)
        } catch {
            throw error.code == ENOSPC ? .noSpace : .system(error)
        }
        let mapping = try mapWhole(fd, Int(length))
        // SAFETY: the mapping starts with room for the header and is aligned to a page.
        let header = unsafe mapping.base.assumingMemoryBound(to: fm_bitmap_header.self)
        if create {
            unsafe header.pointee.magic = magic
            unsafe header.pointee.version = UInt64(FM_BITMAP_VERSION)
            unsafe header.pointee.bits = UInt64(bits)
            unsafe header.pointee.epoch = epoch
        } else {
            let found = unsafe header.pointee
            guard found.magic == magic, found.version == UInt64(FM_BITMAP_VERSION),
                found.bits == UInt64(bits), found.epoch == epoch
            else { throw .corrupt(file: path(name), reason: "its header contradicts the manifest") }
        }
        return fd
    }

    /// Removes a file; one that is gone is fine.
    func remove(_ name: String) throws(PoolError) {
        guard directory != nil else { return }
        if unsafe unlink(path(name)) != 0 && errno != ENOENT {
            throw .system(SystemError.last("unlink \(path(name))"))
        }
    }

    func removeLease(_ id: UInt64) throws(PoolError) {
        let names = Lease.fileNames(id)
        try remove(names.data)
        try remove(names.pages)
        try remove(names.grants)
    }

    /// Removes files of leases that the manifest does not know: what a crash left of one that was
    /// being made or released.
    func removeStrangers(knowing known: [UInt64]) throws(PoolError) {
        guard let directory else { return }
        let expected = known.flatMap {
            let names = Lease.fileNames($0)
            return [names.data, names.pages, names.grants]
        }
        let found = try wrapping { () throws(SystemError) in try directoryEntries(directory) }
        for name in found where name.hasPrefix("lease-") && !expected.contains(name) {
            try remove(name)
        }
    }

    /// nil when there is none yet.
    func readManifest() throws(PoolError) -> PoolManifest? {
        guard directory != nil else { return nil }
        let path = path("manifest")
        let text: String
        do throws(SystemError) {
            text = try readSmallText(path, limit: PoolLimits.manifestBytesMax)
        } catch {
            if error.code == ENOENT { return nil }
            throw .system(error)
        }
        switch PoolManifest.parse(text) {
        case .success(let manifest): return manifest
        case .failure(let problem): throw .corrupt(file: path, reason: problem.reason)
        }
    }

    func writeManifest(_ manifest: PoolManifest) throws(PoolError) {
        guard directory != nil else { return }
        do throws(SystemError) {
            try replaceFile(path("manifest"), with: manifest.text(), mode: 0o600)
        } catch {
            throw error.code == ENOSPC ? .noSpace : .system(error)
        }
    }
}

/// A descriptor for the same open file that can only be read.
func readOnlyTwin(of fd: borrowing FileDescriptor) throws(PoolError) -> FileDescriptor {
    let number = fd.rawValue
    return try wrapping { () throws(SystemError) in
        try FileDescriptor.open("/proc/self/fd/\(number)", O_RDONLY)
    }
}

func mapWhole(
    _ fd: borrowing FileDescriptor, _ count: Int
) throws(PoolError) -> MemoryMapping {
    let number = fd.rawValue
    return try wrapping { () throws(SystemError) in
        try MemoryMapping(sharing: number, count: count)
    }
}
