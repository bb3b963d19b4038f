import Containers
import LinuxSystem

// What DAMON watches of the containers, in the words of its sysfs directory of a context.
//
// processes (vaddr): the address spaces of their processes, a target each.
// groups (paddr): all of the machine's memory, for kernels without the former. Of what is cold there the scheme's filters let only pages of the
// containers' control groups leave. Filters are asked in turn and the first that matches decides; when the last one allows, what matches none
// is rejected (6.14 and later). DAMON's own check that a page was not accessed since comes first, for an explicit filter replaces it.

struct DamonScope: Equatable {
    enum Kind: String {
        case processes = "vaddr"
        case groups = "paddr"
    }

    let kind: Kind
    private let pids: [Int32]
    private let groups: [String]
    private let memory: [MemoryRange]

    init(_ kind: Kind, of containers: [EngineContainer]) {
        self.kind = kind
        pids =
            kind == .processes
            ? containers.flatMap { $0.processes().map(\.identity.pid) }.sorted() : []
        groups = kind == .groups ? containers.map(\.group.path).sorted() : []
        memory = kind == .groups ? MemoryRange.ofThisMachine() : []
    }

    var isEmpty: Bool { pids.isEmpty && (groups.isEmpty || memory.isEmpty) }

    /// The `pid_target` of each target, by which a directory is known again.
    var targetPids: [Int32] { kind == .processes ? pids : [0] }

    /// Files below the context's directory and what is to be written to them, in this order.
    var files: [(name: String, text: String)] {
        kind == .processes ? processFiles : memoryFiles + filterFiles
    }

    private var processFiles: [(name: String, text: String)] {
        [("targets/nr_targets", "\(pids.count)")]
            + pids.enumerated().map { ("targets/\($0.offset)/pid_target", "\($0.element)") }
    }

    private var memoryFiles: [(name: String, text: String)] {
        let regions = "targets/0/regions"
        return [("targets/nr_targets", "1"), ("\(regions)/nr_regions", "\(memory.count)")]
            + memory.enumerated().flatMap { index, range in
                [
                    ("\(regions)/\(index)/start", "\(range.start)"),
                    ("\(regions)/\(index)/end", "\(range.end)"),
                ]
            }
    }

    private var filterFiles: [(name: String, text: String)] {
        let filters = "schemes/0/ops_filters"
        let accessed = [
            ("\(filters)/nr_filters", "\(groups.count + 1)"), ("\(filters)/0/type", "young"),
            ("\(filters)/0/matching", "Y"), ("\(filters)/0/allow", "N"),
        ]
        return accessed
            + groups.enumerated().flatMap { index, group in
                [
                    ("\(filters)/\(index + 1)/type", "memcg"),
                    ("\(filters)/\(index + 1)/memcg_path", group),
                    ("\(filters)/\(index + 1)/matching", "Y"),
                    ("\(filters)/\(index + 1)/allow", "Y"),
                ]
            }
    }
}

/// Physical addresses from `start` up to, not including, `end`.
struct MemoryRange: Equatable {
    let start: UInt64
    let end: UInt64

    /// Where this machine's memory is; empty for who may not know (/proc/iomem without CAP_SYS_ADMIN).
    static func ofThisMachine() -> [MemoryRange] {
        (try? readSmallText("/proc/iomem")).map(parse) ?? []
    }

    /// The lines "start-end : System RAM" that are not parts of another, in hexadecimal, both ends included.
    static func parse(_ text: String) -> [MemoryRange] {
        text.split(separator: "\n").compactMap { line in
            guard line.hasSuffix(" : System RAM"), let first = line.first, first != " " else {
                return nil
            }
            let bounds = line.prefix { $0 != " " }.split(separator: "-")
            guard bounds.count == 2, let start = UInt64(bounds[0], radix: 16),
                let last = UInt64(bounds[1], radix: 16), start < last, last < .max
            else { return nil }
            return MemoryRange(start: start, end: last + 1)
        }
    }
}
