import Glibc
package import LinuxSystem

/// Why the kernel's generations cannot be used, or did not do what they were told.
package enum GenerationError: Error, Equatable, CustomStringConvertible {
    /// The file is not there: debugfs is not mounted, or the kernel has no MGLRU.
    case missing(path: String)
    /// The kernel has MGLRU and it is turned off.
    case disabled
    /// The kernel lists no such group.
    case groupNotListed(path: String)
    /// Fewer than two younger generations would be left: EINVAL.
    case tooYoung(GenerationListName, generation: UInt64)
    /// A signal ended the work early.
    case interrupted
    case malformed(GenerationParseError)
    case system(SystemError)

    package var description: String {
        switch self {
        case .missing(let path):
            "\(path) does not exist; mount debugfs (mount -t debugfs debugfs /sys/kernel/debug) on a kernel with MGLRU (6.1)"
        case .disabled: "MGLRU is off; turn it on: echo y > /sys/kernel/mm/lru_gen/enabled"
        case .groupNotListed(let path): "lru_gen does not list the group \(path)"
        case .tooYoung(let list, let generation):
            "generation \(generation) of group \(list.group) on node \(list.node) is too young to be evicted"
        case .interrupted: "interrupted by a signal"
        case .malformed(let error): error.description
        case .system(let error): error.description
        }
    }
}

/// The kernel's multi-generational lists, by the file lru_gen: read whole, told what to do by a line. Nothing is remembered
/// here: whoever gives an order reads first, so that what the kernel did by itself meanwhile is known. One thread at a time.
package final class GenerationControl: Sendable {
    private let path: String
    private let enabledPath: String
    private let file: FileDescriptor

    /// Some 300 bytes per group and node; this is for 100,000.
    private static let textMax = 32 << 20

    /// Opens the file; throws when the kernel has no MGLRU or it is off.
    package init(
        path: String = "/sys/kernel/debug/lru_gen",
        enabledPath: String = "/sys/kernel/mm/lru_gen/enabled"
    ) throws(GenerationError) {
        self.path = path
        self.enabledPath = enabledPath
        do throws(SystemError) {
            file = try FileDescriptor.open(path, O_RDWR)
        } catch {
            throw error.code == ENOENT ? .missing(path: path) : .system(error)
        }
        try checkEnabled()
    }

    /// The lists of a group, and of those below it, on all nodes, as they are now.
    package func lists(of group: MemoryGroup) throws(GenerationError) -> [GenerationList] {
        try checkEnabled()
        let text = try readText()
        let lists: [GenerationList]
        do throws(GenerationParseError) {
            lists = try parseGenerations(text, of: group.path)
        } catch {
            throw .malformed(error)
        }
        // A group made anew under this name has other pages: its lists are not this one's.
        guard !lists.isEmpty, group.isCurrent else { throw .groupNotListed(path: group.path) }
        return lists
    }

    private func readText() throws(GenerationError) -> [UInt8] {
        do throws(SystemError) {
            return try readSmallFile(path, limit: Self.textMax)
        } catch {
            throw .system(error)
        }
    }

    /// Opens a new generation: what was used since the last one moves to the youngest there was, `youngest`. Nothing happens when
    /// the kernel has opened one meanwhile; the next reading tells.
    package func age(
        _ list: GenerationListName, youngest: UInt64
    ) throws(GenerationError) {
        // Anonymous pages too, by a walk of the page tables even when four generations exist already.
        try order("+ \(list.group) \(list.node) \(youngest) 1 1", list, youngest)
    }

    /// Evicts from the oldest generation on up to `last`, until about `pages` are free: of one generation anonymous pages first, but file
    /// pages of older ones before them, for the kernel keeps both kinds in step. It counts a page when it is free: on a swap device
    /// that writes asynchronously it may unmap more.
    package func evict(
        _ list: GenerationListName, through last: UInt64, pages: UInt64
    ) throws(GenerationError) {
        try order("- \(list.group) \(list.node) \(last) 200 \(pages)", list, last)
    }

    private func order(
        _ line: String, _ list: GenerationListName, _ generation: UInt64
    ) throws(GenerationError) {
        let bytes = Array(line.utf8)
        let raw = file.rawValue
        let done = unsafe bytes.withUnsafeBytes {
            unsafe Glibc.write(raw, $0.baseAddress, $0.count)
        }
        guard done < 0 else { return }
        switch errno {
        case EINVAL: throw .tooYoung(list, generation: generation)
        case EINTR: throw .interrupted
        default: throw .system(SystemError.last("write \(path)"))
        }
    }

    private func checkEnabled() throws(GenerationError) {
        guard let text = try? readSmallText(enabledPath) else {
            throw .missing(path: enabledPath)
        }
        // "0x0007": the lowest bit is the switch.
        let digits = text.split(separator: "\n").first?.dropFirst(2) ?? ""
        guard let bits = UInt64(digits, radix: 16) else { throw .missing(path: enabledPath) }
        guard bits & 1 == 1 else { throw .disabled }
    }
}
