import CLinuxShims
import Glibc

/// What kind of file system a path is on, and what is free there.
package struct FileSystemFacts: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        case tmpfs, hugetlbfs, cgroup2, fuse
        case other(UInt64)
    }
    package var kind: Kind
    package var totalBytes: UInt64
    package var availableBytes: UInt64
    package var blockBytes: UInt64
}

package func fileSystemFacts(_ path: String) throws(SystemError) -> FileSystemFacts {
    var raw = fm_filesystem_facts()
    try check("statfs \(path)") { unsafe fm_statfs(path, &raw) }
    let kind: FileSystemFacts.Kind =
        switch raw.magic {
        case UInt64(FM_MAGIC_TMPFS): .tmpfs
        case UInt64(FM_MAGIC_HUGETLBFS): .hugetlbfs
        case UInt64(FM_MAGIC_CGROUP2): .cgroup2
        case UInt64(FM_MAGIC_FUSE): .fuse
        default: .other(raw.magic)
        }
    return FileSystemFacts(
        kind: kind, totalBytes: raw.blocks * raw.block_bytes,
        availableBytes: raw.blocks_available * raw.block_bytes, blockBytes: raw.block_bytes)
}

/// One line of /proc/swaps. Sizes in bytes.
package struct SwapArea: Equatable, Sendable {
    package var path: String
    package var size: UInt64
    package var used: UInt64
    package var priority: Int
}

/// The swap areas in use now.
package func swapAreas() throws(SystemError) -> [SwapArea] {
    try readSmallText("/proc/swaps").split(separator: "\n").dropFirst().compactMap { line in
        let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
        guard words.count >= 5, let size = UInt64(words[2]), let used = UInt64(words[3]),
            let priority = Int(words[4])
        else { return nil }
        return SwapArea(
            path: String(words[0]), size: size << 10, used: used << 10, priority: priority)
    }
}

/// A value of /proc/meminfo in bytes, nil when the kernel does not have the line.
package func memoryInformation(_ name: String) throws(SystemError) -> UInt64? {
    for line in try readSmallText("/proc/meminfo").split(separator: "\n") {
        guard line.hasPrefix("\(name):") else { continue }
        let words = line.split(separator: " ", omittingEmptySubsequences: true)
        return words.count >= 2 ? UInt64(words[1]).map { $0 << 10 } : nil
    }
    return nil
}

/// Effective user id 0.
package func runsAsRoot() -> Bool { geteuid() == 0 }
