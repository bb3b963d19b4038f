// Containers: control groups and processes as the offload controller needs them.
//
// Thread model: values are free; `MemoryGroup` and `TargetProcess` hold descriptors that any thread
// may use, one at a time. Identity first: every read and write goes through a descriptor of the very
// group or process that was opened, so that a later one of the same name is never touched.
// Must not import policy, HTTP or command-line modules.

import CCgroup
import Glibc
package import LinuxSystem

/// Which of the kernel's two interfaces a hierarchy speaks.
package enum ControlGroupVersion: String, Sendable {
    case v1, v2
}

/// Where the memory controller, and the one that counts processor time, are mounted.
package struct ControlGroups: Equatable, Sendable {
    package var version: ControlGroupVersion
    /// Mount point of the memory controller (v1) or of the unified hierarchy (v2).
    package var memoryMount: String
    /// Mount point that has processor times; nil when the kernel does not count them.
    package var processorMount: String?

    package init(version: ControlGroupVersion, memoryMount: String, processorMount: String?) {
        self.version = version
        self.memoryMount = memoryMount
        self.processorMount = processorMount
    }

    /// Finds the hierarchies of this host: libcgroup knows the mounts; where it does not (it misses
    /// hybrid layouts on some releases), /proc/mounts does. Nil when no memory controller is mounted.
    package static func discover() throws(SystemError) -> ControlGroups? {
        if let memory = libcgroupMount("memory"), isVersion1(memory) {
            return ControlGroups(
                version: .v1, memoryMount: memory, processorMount: libcgroupMount("cpuacct"))
        }
        return parseMounts(try readSmallText("/proc/mounts", limit: 16 << 20)) { mount in
            (try? readSmallText("\(mount)/cgroup.controllers")) ?? ""
        }
    }

    /// Finds the hierarchies in a mount table; `controllers` gives the content of a v2 mount's
    /// cgroup.controllers. Pure, for captured tables.
    package static func parseMounts(
        _ table: String, controllers: (String) -> String
    ) -> ControlGroups? {
        var memory: String?
        var processor: String?
        var unified: String?
        for line in table.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count >= 4 else { continue }
            let options = words[3].split(separator: ",")
            if words[2] == "cgroup" {
                if options.contains("memory") { memory = memory ?? String(words[1]) }
                if options.contains("cpuacct") { processor = processor ?? String(words[1]) }
            } else if words[2] == "cgroup2" {
                unified = unified ?? String(words[1])
            }
        }
        if let memory {
            return ControlGroups(version: .v1, memoryMount: memory, processorMount: processor)
        }
        guard let unified,
            controllers(unified).split(whereSeparator: { $0 == " " || $0 == "\n" })
                .contains("memory")
        else { return nil }
        return ControlGroups(version: .v2, memoryMount: unified, processorMount: unified)
    }

    private static func isVersion1(_ mount: String) -> Bool {
        fileExists("\(mount)/memory.usage_in_bytes")
    }

    /// Opens a group by its path below the memory controller's mount ("/farmem/web-1").
    package func open(_ path: String) throws(SystemError) -> MemoryGroup {
        try MemoryGroup(
            version: version, mount: memoryMount, path: path, processorMount: processorMount)
    }

    /// The group of a process, as a path below the memory controller's mount.
    package func path(ofProcess pid: Int32) throws(SystemError) -> String? {
        parseProcessGroups(try readSmallText("/proc/\(pid)/cgroup"), version: version)
    }

    /// Paths of groups below `parent` (any depth up to `depth`), sorted, as `open` takes them.
    package func groups(below parent: String, depth: Int) throws(SystemError) -> [String] {
        guard depth > 0 else { return [] }
        let base = parent == "/" ? "" : parent
        var found: [String] = []
        for name in try directoryEntries("\(memoryMount)\(parent)") {
            let path = "\(base)/\(name)"
            guard isDirectory("\(memoryMount)\(path)") else { continue }
            found.append(path)
            // A group that is removed meanwhile has no children to report.
            found += (try? groups(below: path, depth: depth - 1)) ?? []
        }
        return found
    }
}

/// The path in /proc/PID/cgroup for the memory controller of the given version.
package func parseProcessGroups(_ text: String, version: ControlGroupVersion) -> String? {
    for line in text.split(separator: "\n") {
        let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3 else { continue }
        switch version {
        case .v1 where parts[1].split(separator: ",").contains("memory"): return String(parts[2])
        case .v2 where parts[0] == "0": return String(parts[2])
        default: continue
        }
    }
    return nil
}

func isDirectory(_ path: String) -> Bool {
    var facts = stat()
    return unsafe lstat(path, &facts) == 0 && facts.st_mode & S_IFMT == S_IFDIR
}

// MARK: libcgroup

/// Set up once: libcgroup reads the mount table into a global of its own.
private let libcgroupReady: Bool = cgroup_init() == 0

private func libcgroupMount(_ controller: String) -> String? {
    guard libcgroupReady else { return nil }
    var mount: UnsafeMutablePointer<CChar>?
    guard unsafe cgroup_get_subsys_mount_point(controller, &mount) == 0, let mount = unsafe mount
    else { return nil }
    // SAFETY: the library hands over a terminated text from malloc.
    defer { unsafe free(mount) }
    return unsafe String(cString: mount)
}

/// Why libcgroup did not do what it was asked.
package struct ControlGroupError: Error, Equatable, CustomStringConvertible {
    package var action: String
    package var reason: String
    package var description: String { "\(action): \(reason)" }
}

/// Creates a group ("farmem/web-1") under the given controllers, parents included.
package func createControlGroup(
    _ name: String, controllers: [String]
) throws(ControlGroupError) {
    unsafe try withControlGroup(name, controllers: controllers, "create control group \(name)") {
        unsafe cgroup_create_cgroup($0, 0)
    }
}

/// Removes a group that holds no process.
package func removeControlGroup(
    _ name: String, controllers: [String]
) throws(ControlGroupError) {
    unsafe try withControlGroup(name, controllers: controllers, "remove control group \(name)") {
        unsafe cgroup_delete_cgroup_ext($0, Int32(CGFLAG_DELETE_IGNORE_MIGRATION.rawValue))
    }
}

private func withControlGroup(
    _ name: String, controllers: [String], _ action: String,
    _ body: (OpaquePointer) -> Int32
) throws(ControlGroupError) {
    guard libcgroupReady else {
        throw ControlGroupError(action: action, reason: "no control groups are mounted")
    }
    var group = unsafe cgroup_new_cgroup(name)
    guard let handle = unsafe group else {
        throw ControlGroupError(action: action, reason: "out of memory")
    }
    defer { unsafe cgroup_free(&group) }
    for controller in controllers {
        guard unsafe cgroup_add_controller(handle, controller) != nil else {
            throw ControlGroupError(action: action, reason: "cannot use controller \(controller)")
        }
    }
    let code = unsafe body(handle)
    guard code == 0 else {
        let reason = unsafe cgroup_strerror(code).map { unsafe String(cString: $0) }
        throw ControlGroupError(action: action, reason: reason ?? "error \(code)")
    }
}
