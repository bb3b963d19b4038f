import Containers
package import FarMemory
import Glibc
package import LinuxSystem

/// A control group for one run of a program with less memory than it wants. One thread. Whoever makes one removes it.
package struct LimitedGroup: Sendable {
    /// How a limit is enforced.
    package enum Limit: String, Sendable {
        /// Nothing above it, reclaim in the faulting task: memory.max, or memory.limit_in_bytes.
        case max
        /// Above it tasks are slowed down while memory is reclaimed: memory.high, which only version 2 has.
        case high
    }

    private let version: ControlGroupVersion
    private let directory: String

    private static let prefix = "farmem-ratio-"

    /// Makes the group below the root. Removes empty ones that a killed run left.
    package init() throws(SystemError) {
        guard let groups = try ControlGroups.discover() else {
            throw SystemError(call: "find the memory controller", code: ENODEV)
        }
        version = groups.version
        let root = groups.memoryMount
        for name in (try? directoryEntries(root)) ?? [] where name.hasPrefix(Self.prefix) {
            _ = unsafe rmdir("\(root)/\(name)")
        }
        if version == .v2 {
            try writeKernelFile("\(root)/cgroup.subtree_control", "+memory")
        }
        directory = "\(root)/\(Self.prefix)\(getpid())"
        try makeDirectories(directory)
    }

    /// A process that writes 0 here joins the group.
    package var processesFile: String { "\(directory)/cgroup.procs" }

    package func set(_ limit: Limit, to size: ByteCount) throws(SystemError) {
        switch (version, limit) {
        case (.v1, .max):
            try writeKernelFile("\(directory)/memory.limit_in_bytes", "\(size.bytes)")
        case (.v1, .high):
            throw SystemError(call: "limit a group of version 1 by memory.high", code: ENOTSUP)
        case (.v2, _):
            try writeKernelFile("\(directory)/memory.\(limit.rawValue)", "\(size.bytes)")
        }
    }

    /// Has the group wait when reclaim finds nothing in time, instead of killing the program, where the controller can (version 1): a swap
    /// device that is slower than the program is no reason to end it. `liftIfWaiting` must be called from time to time then.
    package func waitInsteadOfKilling() throws(SystemError) {
        guard version == .v1 else { return }
        try writeKernelFile("\(directory)/memory.oom_control", "1")
    }

    /// Tasks of a group that waits sleep until its limit is raised: so it is, by a mebibyte for a moment. True when it was needed.
    package func liftIfWaiting(from limit: ByteCount) throws(SystemError) -> Bool {
        guard version == .v1,
            try readSmallText("\(directory)/memory.oom_control").contains("under_oom 1")
        else { return false }
        try set(.max, to: ByteCount(limit.bytes + (1 << 20)))
        do throws(SystemError) {
            try set(.max, to: limit)
        } catch {
            // Not all of it could be reclaimed at once: it stays a little higher until the next time.
        }
        return true
    }

    /// The most that was charged to the group, nil when this kernel does not keep it.
    package func peak() -> ByteCount? {
        let name = version == .v1 ? "memory.max_usage_in_bytes" : "memory.peak"
        guard let text = try? readSmallText("\(directory)/\(name)") else { return nil }
        return UInt64(text.prefix { $0.isNumber }).map { ByteCount($0) }
    }

    /// Kills whatever is in the group, until nothing is; false when something is left after ten seconds.
    package func killAll() -> Bool {
        let deadline = monotonicNow() + 10_000_000_000
        while true {
            let living = parseProcessList((try? readSmallText(processesFile)) ?? "")
            if living.isEmpty { return true }
            for pid in living { _ = kill(pid, SIGKILL) }
            if monotonicNow() > deadline { return false }
            sleepNanoseconds(5_000_000)
        }
    }

    /// Removes the group, which holds no process. What is charged to it goes to its parent.
    package func remove() throws(SystemError) {
        let deadline = monotonicNow() + 5_000_000_000
        // The last process may be on its way out.
        while unsafe rmdir(directory) != 0 {
            guard errno == EBUSY, monotonicNow() < deadline else {
                throw SystemError.last("remove \(directory)")
            }
            sleepNanoseconds(5_000_000)
        }
    }
}
