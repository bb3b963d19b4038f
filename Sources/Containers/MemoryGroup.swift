package import FarMemory
import Glibc
package import LinuxSystem

/// What a group uses. Nil: this kernel or version does not say, which is not zero.
package struct MemoryUse: Equatable, Sendable {
    /// All local memory that is charged to the group.
    package var local = ByteCount.zero
    package var anonymous = ByteCount.zero
    /// File cache, without the pages of tmpfs files, which go to swap and not to a file.
    package var file = ByteCount.zero
    /// Pages of tmpfs files and of shared anonymous mappings: swap takes them, and no process owns them alone.
    package var shared = ByteCount.zero
    /// Memory that is in swap only.
    package var far: ByteCount?
    /// Part of `local`: pages that also have a copy in swap.
    package var swapCached: ByteCount?
    package var writeback: ByteCount?
    /// Anonymous pages read back from swap since the group was made.
    package var refaults: UInt64?
    package var majorFaults: UInt64?

    package init() {}
}

/// One control group of the memory controller, held by a descriptor of its directory: when the group
/// is removed, and even when another of the same name is made, calls fail with ENODEV or ENOENT.
/// Any thread may read; writes belong to the one that runs reclaim.
package final class MemoryGroup: Sendable {
    package let version: ControlGroupVersion
    /// Path below the mount.
    package let path: String
    /// The directory's inode, which names the group in the journal.
    package let inode: UInt64
    let mount: String
    private let directory: FileDescriptor
    private let processorDirectory: FileDescriptor?

    init(
        version: ControlGroupVersion, mount: String, path: String, processorMount: String?
    ) throws(SystemError) {
        guard isAbsolutePath(path), !pathComponents(path).contains("..") else {
            throw SystemError(call: "open control group \(path)", code: EINVAL)
        }
        self.version = version
        self.mount = mount
        self.path = path
        directory = try FileDescriptor.open(mount + path, O_RDONLY | O_DIRECTORY)
        var facts = stat()
        let raw = directory.rawValue
        try check("fstat \(path)") { unsafe fstat(raw, &facts) }
        inode = UInt64(facts.st_ino)
        if let processorMount, processorMount != mount {
            processorDirectory = try? FileDescriptor.open(
                processorMount + path, O_RDONLY | O_DIRECTORY)
        } else {
            processorDirectory = nil
        }
    }

    /// Whether the group still exists under its path, and is this one.
    package var isCurrent: Bool {
        var facts = stat()
        return unsafe stat(mount + path, &facts) == 0 && UInt64(facts.st_ino) == inode
    }

    /// What the group, with those below it, uses now.
    package func use() throws(SystemError) -> MemoryUse {
        let usageFile = version == .v1 ? "memory.usage_in_bytes" : "memory.current"
        var use = parseMemoryStatistics(try text("memory.stat"), version: version)
        use.local = ByteCount(try number(usageFile))
        switch version {
        case .v1:
            // Counters are exact; memory.stat's may lag by some hundred pages for two seconds, which is all that a small container has.
            if let both = try? number("memory.memsw.usage_in_bytes") {
                use.far = ByteCount(both) - use.local
            }
        case .v2:
            if let swap = try? number("memory.swap.current") {
                use.far = ByteCount(swap) - (use.swapCached ?? .zero)
            }
        }
        return use
    }

    /// Processes of the group and of those below it, as pids of this namespace.
    package func processes() throws(SystemError) -> [Int32] {
        var all = parseProcessList(try text("cgroup.procs"))
        for name in (try? directoryEntries("\(mount)\(path)")) ?? [] {
            guard isDirectory("\(mount)\(path)/\(name)"),
                let below = try? MemoryGroup(
                    version: version, mount: mount, path: "\(path)/\(name)", processorMount: nil)
            else { continue }
            all += (try? below.processes()) ?? []
        }
        return all
    }

    /// Processor time used so far, nil when the kernel does not count it here.
    package func processorTime() -> Nanoseconds? {
        switch version {
        case .v1:
            guard let used = processorUsage() else { return nil }
            return Int64(trimmed(used)).map { Nanoseconds($0) }
        case .v2:
            guard let text = try? text("cpu.stat") else { return nil }
            return statistic("usage_usec", in: text).map { .microseconds(Int64(clamping: $0)) }
        }
    }

    private func processorUsage() -> String? {
        switch processorDirectory {
        case .some(let directory): try? Self.read(directory, "cpuacct.usage")
        case .none: nil
        }
    }

    /// Total time that some task of the group waited for memory; v2 only.
    package func pressureTotal() -> Nanoseconds? {
        guard version == .v2, let text = try? text("memory.pressure") else { return nil }
        return parsePressureTotal(text)
    }

    /// Share of the last 10 s in which some task of the group waited for memory, in millionths; v2 only.
    package func pressureMillionths() -> UInt64? {
        guard version == .v2, let text = try? text("memory.pressure") else { return nil }
        return parsePressureMillionths(text)
    }

    /// The limit as the kernel prints it ("max" on v2, a very large number on v1).
    package func limitText() throws(SystemError) -> String {
        trimmed(try text(version == .v1 ? "memory.limit_in_bytes" : "memory.max"))
    }

    /// Writes one of the group's files in one write(2).
    package func write(_ file: String, _ value: String) throws(SystemError) {
        let fd = try FileDescriptor.open(file, below: directory, O_WRONLY)
        let bytes = Array(value.utf8)
        let raw = fd.rawValue
        // Not retried on EINTR: an interrupted reclaim did part of its work.
        let done = unsafe bytes.withUnsafeBytes {
            unsafe Glibc.write(raw, $0.baseAddress, $0.count)
        }
        if done < 0 { throw SystemError.last("write \(path)/\(file)") }
    }

    /// Reads one of the group's files whole.
    package func text(_ file: String) throws(SystemError) -> String {
        try Self.read(directory, file)
    }

    private func number(_ file: String) throws(SystemError) -> UInt64 {
        guard let value = UInt64(trimmed(try text(file))) else {
            throw SystemError(call: "read \(path)/\(file)", code: EINVAL)
        }
        return value
    }

    private static func read(
        _ directory: borrowing FileDescriptor, _ file: String
    ) throws(SystemError) -> String {
        let fd = try FileDescriptor.open(file, below: directory, O_RDONLY)
        return String(decoding: try readAll(fd, limit: 1 << 20, named: file), as: UTF8.self)
    }
}

/// Parses memory.stat. v1 counts are taken over the group and those below it (`total_`).
package func parseMemoryStatistics(_ text: String, version: ControlGroupVersion) -> MemoryUse {
    var use = MemoryUse()
    let prefix = version == .v1 ? "total_" : ""
    for line in text.split(separator: "\n") {
        guard let space = line.firstIndex(of: " "), line[..<space].hasPrefix(prefix),
            let value = UInt64(line[line.index(after: space)...])
        else { continue }
        switch line[..<space].dropFirst(prefix.count) {
        case "rss", "anon": use.anonymous = ByteCount(value)
        case "cache", "file": use.file = ByteCount(value)
        case "shmem": use.shared = ByteCount(value)
        case "swap" where version == .v1: use.far = ByteCount(value)
        case "swapcached": use.swapCached = ByteCount(value)
        case "writeback", "file_writeback": use.writeback = ByteCount(value)
        case "workingset_refault_anon": use.refaults = value
        case "pgmajfault": use.majorFaults = value
        default: continue
        }
    }
    use.file = use.file - use.shared
    return use
}

/// Pids of a cgroup.procs; lines that are no pids of this namespace (0) are left out.
package func parseProcessList(_ text: String) -> [Int32] {
    text.split(separator: "\n").compactMap { Int32($0) }.filter { $0 > 0 }
}

/// The cumulative `some` time of a PSI file.
package func parsePressureTotal(_ text: String) -> Nanoseconds? {
    for line in text.split(separator: "\n") where line.hasPrefix("some ") {
        for word in line.split(separator: " ") where word.hasPrefix("total=") {
            return Int64(word.dropFirst(6)).map { .microseconds($0) }
        }
    }
    return nil
}

/// The `some` average of the last 10 s in millionths: "avg10=0.22", a percentage, is 2200.
package func parsePressureMillionths(_ text: String) -> UInt64? {
    for line in text.split(separator: "\n") where line.hasPrefix("some ") {
        for word in line.split(separator: " ") where word.hasPrefix("avg10=") {
            return Double(word.dropFirst(6)).map { UInt64(max(0, ($0 * 10_000).rounded())) }
        }
    }
    return nil
}

/// The `some` average of the last 10 s in thousandths, rounded up: "avg10=0.22" is 3.
package func parsePressureAverage(_ text: String) -> UInt64? {
    for line in text.split(separator: "\n") where line.hasPrefix("some ") {
        for word in line.split(separator: " ") where word.hasPrefix("avg10=") {
            return Double(word.dropFirst(6)).map { UInt64(max(0, ($0 * 10).rounded(.up))) }
        }
    }
    return nil
}

private func statistic(_ name: String, in text: String) -> UInt64? {
    for line in text.split(separator: "\n") where line.hasPrefix("\(name) ") {
        return UInt64(line.dropFirst(name.count + 1))
    }
    return nil
}

private func trimmed(_ text: String) -> String {
    String(text.split(whereSeparator: { $0 == "\n" || $0 == " " }).first ?? "")
}
