import Containers
import FarMemory
import Glibc
package import LinuxSystem
import OffloadPolicy
import Synchronization
import Telemetry

// DAMON's own pageout, as a baseline: one kernel thread (kdamond) watches the containers that asked for it and pages out regions that nobody
// accessed for a while. What it watches of them, and how, is DamonScope's. Documentation/admin-guide/mm/damon/usage.rst.
//
// There may be other users of DAMON on the host. A kdamond that is there already is theirs: it is never touched, and nothing is started
// beside it, for the kernel lets nobody add one while another runs. Ours is written down before it is made, so that the next start after
// a crash can end it, and it alone: the record holds the thread's pid, and DAMON's files must still say that pid. (To find out what the kernel
// can watch, a directory for a kdamond is made and removed again; nothing runs in it.)

/// Why DAMON cannot be used.
package enum ColdPageoutError: Error, Equatable, CustomStringConvertible {
    case missing(path: String)
    /// It is there, and can watch neither processes nor the physical memory of groups.
    case unable(operations: String)
    /// Somebody else uses it.
    case busy(kdamonds: UInt64)
    case system(SystemError)

    package var description: String {
        switch self {
        case .missing(let path):
            "\(path) is not there: the kernel needs CONFIG_DAMON_SYSFS and CONFIG_DAMON_VADDR (5.18 or later)"
        case .unable(let operations):
            "DAMON can watch '\(operations)' only: the kernel needs CONFIG_DAMON_VADDR, or CONFIG_DAMON_PADDR of 6.14 or later"
        case .busy(let count):
            "DAMON is in use: \(count) kdamond\(count == 1 ? "" : "s") of somebody else; stop what uses it first"
        case .system(let error): error.description
        }
    }
}

/// Our kdamond. Belongs to the mover thread; `recover` to whoever starts the controller.
package final class ColdPageout {
    private let root: String
    private let record: String
    private var regions: ColdRegions?
    private var containers: [ContainerHandle: EngineContainer] = [:]
    /// What the kernel can watch; found out before the first is.
    private var kind: DamonScope.Kind?
    private var watched: DamonScope?

    /// `root`: DAMON's directory; `stateDirectory`: where a running kdamond is written down.
    package init(
        stateDirectory: String, root: String = "/sys/kernel/mm/damon/admin/kdamonds"
    ) {
        self.root = root
        record = "\(stateDirectory)/damon"
    }

    /// Whether DAMON is there, nobody uses it, and it can watch containers. Leaves nothing changed.
    package func check() throws(ColdPageoutError) {
        guard let count = number("nr_kdamonds") else {
            throw .missing(path: root)
        }
        guard count == 0 || isOurs else { throw .busy(kdamonds: count) }
        if count == 0 {
            do throws(SystemError) { try makeDirectory() } catch { throw .system(error) }
            defer { try? write("nr_kdamonds", "0") }
            try findKind()
        }
    }

    /// Ends a kdamond that a former run left; true when there was one.
    package func recover() -> Bool {
        guard fileExists(record) else { return false }
        let ours = isOurs
        if ours { end() }
        try? replaceFile(record, with: "")
        return ours
    }

    /// The record has the thread's pid and those that it watches. The thread ends by itself with the last of them; then the directory that
    /// still watches the very same is ours.
    private var isOurs: Bool {
        guard let text = try? readSmallText(record), number("nr_kdamonds") == 1 else {
            return false
        }
        let pids = text.split(whereSeparator: { $0 == "\n" || $0 == " " }).compactMap { Int32($0) }
        guard pids.count > 1, pids[0] > 0 else { return false }
        let thread = (try? readSmallText("\(root)/0/pid")).flatMap { Int32(trimmed($0)) }
        if thread == pids[0] { return true }
        guard thread == -1, number("\(Self.targets)/nr_targets") == UInt64(pids.count - 1) else {
            return false
        }
        return pids.dropFirst().enumerated().allSatisfy { index, pid in
            number("\(Self.targets)/\(index)/pid_target") == UInt64(pid)
        }
    }

    private static let targets = "0/contexts/0/targets"

    func start(_ container: EngineContainer, _ regions: ColdRegions) throws(ColdPageoutError) {
        self.regions = regions
        containers[container.handle] = container
        try refresh()
    }

    func stop(_ container: EngineContainer) {
        guard containers.removeValue(forKey: container.handle) != nil else { return }
        try? refresh()
    }

    /// Lets DAMON watch the containers that there are now; ends it when there is none.
    func refresh() throws(ColdPageoutError) {
        guard let regions else { return }
        containers = containers.filter { $0.value.group.isCurrent }
        guard !containers.isEmpty else { return end() }
        let isNew = !isOurs || !isRunning
        do throws(SystemError) {
            if isNew {
                // Ours that has ended by itself.
                if isOurs { try write("nr_kdamonds", "0") }
                try makeDirectory()
            }
        } catch {
            throw .system(error)
        }
        do throws(ColdPageoutError) {
            let scope = try DamonScope(findKind(), of: Array(containers.values))
            guard isNew || scope != watched else { return }
            guard !scope.isEmpty else {
                // Made for nothing: left behind it would be taken for somebody else's.
                if isNew { try? write("nr_kdamonds", "0") }
                return end()
            }
            do throws(SystemError) { try run(scope, regions, isNew: isNew) } catch {
                throw .system(error)
            }
            watched = scope
        } catch {
            if isNew { try? write("nr_kdamonds", "0") }
            throw error
        }
    }

    /// Stops ours and leaves DAMON as it was found.
    func end() {
        guard watched != nil || isOurs else { return }
        try? write("0/state", "off")
        try? write("nr_kdamonds", "0")
        try? replaceFile(record, with: "")
        watched = nil
    }

    private func run(
        _ scope: DamonScope, _ regions: ColdRegions, isNew: Bool
    ) throws(SystemError) {
        if isNew {
            try write("0/contexts/0/operations", scope.kind.rawValue)
            try describe(regions)
        }
        for (file, text) in scope.files { try write("0/contexts/0/\(file)", text) }
        try write("0/state", isNew ? "on" : "commit")
        if let pid = number("0/pid") {
            let all = ["\(pid)"] + scope.targetPids.map { "\($0)" }
            try replaceFile(record, with: all.joined(separator: " ") + "\n")
        }
    }

    /// Makes the directory that a kdamond of ours would have, unless there is one.
    private func makeDirectory() throws(SystemError) {
        guard number("nr_kdamonds") == 0 else {
            throw SystemError(call: "DAMON is in use by somebody else", code: EBUSY)
        }
        try write("nr_kdamonds", "1")
        do throws(SystemError) { try write("0/contexts/nr_contexts", "1") } catch {
            try? write("nr_kdamonds", "0")
            throw error
        }
    }

    /// What the kernel can watch; asks it when there is a directory for a context and it is not known yet.
    @discardableResult
    private func findKind() throws(ColdPageoutError) -> DamonScope.Kind {
        if let kind { return kind }
        let context = "\(root)/0/contexts/0"
        let operations = (try? readSmallText("\(context)/avail_operations")) ?? ""
        let words = operations.split(whereSeparator: { $0 == "\n" || $0 == " " }).map(String.init)
        if words.contains(DamonScope.Kind.processes.rawValue) {
            kind = .processes
            return .processes
        }
        try? write("0/contexts/0/schemes/nr_schemes", "1")
        guard words.contains(DamonScope.Kind.groups.rawValue),
            fileExists("\(context)/schemes/0/ops_filters/nr_filters")
        else { throw .unable(operations: words.joined(separator: " ")) }
        kind = .groups
        return .groups
    }

    private func describe(_ regions: ColdRegions) throws(SystemError) {
        let attributes = "0/contexts/0/monitoring_attrs"
        try write("\(attributes)/intervals/sample_us", "\(regions.samplingInterval.microseconds)")
        try write("\(attributes)/intervals/aggr_us", "\(regions.aggregationInterval.microseconds)")
        try write("\(attributes)/intervals/update_us", "\(regions.updateInterval.microseconds)")
        try write("\(attributes)/nr_regions/max", "\(regions.regionsMaximum)")
        try write("\(attributes)/nr_regions/min", "\(regions.regionsMinimum)")
        let scheme = "0/contexts/0/schemes/0"
        try write("0/contexts/0/schemes/nr_schemes", "1")
        try write("\(scheme)/action", "pageout")
        let pattern = "\(scheme)/access_pattern"
        try write("\(pattern)/sz/max", "\(UInt64(Int64.max))")
        try write("\(pattern)/sz/min", "\(regions.sizeMinimum.bytes)")
        try write("\(pattern)/nr_accesses/max", "0")
        try write("\(pattern)/nr_accesses/min", "0")
        // Ages count aggregation intervals.
        let age = regions.age.nanoseconds / max(1, regions.aggregationInterval.nanoseconds)
        try write("\(pattern)/age/max", "\(UInt32.max)")
        try write("\(pattern)/age/min", "\(max(1, age))")
    }

    private var isRunning: Bool {
        (try? readSmallText("\(root)/0/state")).map { trimmed($0) == "on" } ?? false
    }

    private func write(_ file: String, _ text: String) throws(SystemError) {
        try writeKernelFile("\(root)/\(file)", text)
    }

    private func number(_ file: String) -> UInt64? {
        (try? readSmallText("\(root)/\(file)")).flatMap { UInt64(trimmed($0)) }
    }
}

private func trimmed(_ text: String) -> String {
    String(text.split(whereSeparator: { $0 == "\n" || $0 == " " }).first ?? "")
}
