package import FarMemory
import Glibc
import JSONText
import LinuxSystem

/// Containers by runc. Each has a directory of its own below the state directory: bundle, root, socket and log.
package final class RuncRuntime: ContainerRuntime {
    private let program: String
    private let directory: String
    private let controlGroupParent: String
    private let timeout: Nanoseconds
    /// Nobody: owns the socket's directory and runs the function.
    private static let user = 65_534

    /// `directory` is the gateway's own state directory, absolute. Fails when runc is not installed.
    package init(
        directory: String, controlGroupParent: String, timeout: Nanoseconds = .seconds(20)
    ) throws(RuntimeError) {
        let places = [
            "/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc",
        ]
        guard let program = places.first(where: { fileExists($0) }) else {
            throw RuntimeError("runc is not installed; run tools/setup, or apt-get install runc")
        }
        self.program = program
        self.directory = directory
        self.controlGroupParent = controlGroupParent
        self.timeout = timeout
    }

    package func start(_ spec: ContainerSpec) throws(RuntimeError) -> StartedContainer {
        let home = home(of: spec.id)
        do {
            try prepare(spec, home: home)
        } catch {
            throw RuntimeError("prepare container \(spec.id): \(error)")
        }
        try run(
            ["run", "--detach", "--bundle", home, "--pid-file", "\(home)/pid", spec.id],
            log: "\(home)/log")
        guard let text = try? readSmallText("\(home)/pid"), let pid = Int32(text) else {
            throw RuntimeError("runc gave no pid for \(spec.id)")
        }
        return StartedContainer(pid: pid, socket: "\(home)/run/\(AgentPaths.socketName)")
    }

    package func remove(_ id: String) throws(RuntimeError) {
        // What is not there is removed already.
        if fileExists("\(directory)/runc/\(id)") {
            try run(["delete", "--force", id], log: "\(directory)/remove.log")
        }
        removeFiles(home(of: id))
    }

    package func leftovers() -> [String] {
        let known = (try? directoryEntries("\(directory)/runc")) ?? []
        let made = (try? directoryEntries("\(directory)/containers")) ?? []
        return Set(known + made).sorted()
    }

    /// Removes the shared control group, which must be empty, from every hierarchy.
    package func cleanUp() {
        let mounts = (try? readSmallText("/proc/self/mounts", limit: 16 << 20)) ?? ""
        for line in mounts.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count > 2, words[2] == "cgroup" || words[2] == "cgroup2" else { continue }
            _ = unsafe rmdir("\(words[1])\(controlGroupParent)")
        }
        for name in ["containers", "runc", "remove.log"] { removeFiles("\(directory)/\(name)") }
    }

    private func home(of id: String) -> String { "\(directory)/containers/\(id)" }

    private func prepare(_ spec: ContainerSpec, home: String) throws(SystemError) {
        removeFiles(home)
        for part in ["usr", "etc", "proc", "dev", "tmp"] {
            try makeDirectories("\(home)/root/\(part)")
        }
        for inside in [
            AgentPaths.agentInside, AgentPaths.functionInside, AgentPaths.directoryInside,
        ] {
            try makeDirectories("\(home)/root\(inside)")
        }
        // runc gives a tmpfs the mode of the directory that it covers.
        try check("chmod \(home)/root/tmp") { unsafe chmod("\(home)/root/tmp", 0o1777) }
        // A merged /usr has links at the top; on other systems these directories would have to be bound.
        for name in RuncConfiguration.usrLinks where fileExists("/usr/\(name)") {
            let link = "\(home)/root/\(name)"
            try check("symlink \(link)") { unsafe symlink("usr/\(name)", link) }
        }
        let sockets = "\(home)/run"
        try makeDirectories(sockets, mode: 0o700)
        try check("chown \(sockets)") {
            unsafe chown(sockets, uid_t(Self.user), gid_t(Self.user))
        }
        let configuration = RuncConfiguration(
            spec: spec, rootDirectory: "\(home)/root", socketDirectory: sockets, user: Self.user)
        let etc = RuncConfiguration.etcFiles.filter { fileExists($0) }
        try replaceFile(
            "\(home)/config.json", with: configuration.json(etc: etc).rendered(), mode: 0o600)
    }

    /// Runs runc to its end, its output going to `log`, which the container inherits.
    private func run(_ arguments: [String], log: String) throws(RuntimeError) {
        let what = "runc \(arguments[0]) \(arguments.last ?? "")"
        let end: ChildEnd
        do {
            let null = try FileDescriptor.open("/dev/null", O_RDONLY)
            let output = try FileDescriptor.open(
                log, O_WRONLY | O_CREAT | O_APPEND, mode: 0o600)
            let child = try ChildProcess(
                program, [program, "--root", "\(directory)/runc"] + arguments,
                descriptors: [
                    (null.rawValue, 0), (output.rawValue, 1), (output.rawValue, 2),
                ])
            var result = try child.wait(timeout: timeout.nanoseconds)
            if result == .running {
                try child.signal(SIGKILL)
                _ = try child.wait(timeout: 5_000_000_000)
                result = .running
            }
            end = result
        } catch {
            throw RuntimeError("\(what): \(error)")
        }
        switch end {
        case .exited(0): return
        case .running: throw RuntimeError("\(what) did not end within \(timeout)")
        default: throw RuntimeError("\(what) failed: \(lastLine(of: log))")
        }
    }

    private func lastLine(of log: String) -> String {
        let text = (try? readSmallText(log, limit: 1 << 20)) ?? ""
        return text.split(separator: "\n").last.map(String.init) ?? "it said nothing"
    }
}

/// Removes a tree without following links; what cannot be removed stays.
func removeFiles(_ path: String) {
    if unsafe unlink(path) == 0 || errno == ENOENT { return }
    for name in (try? directoryEntries(path)) ?? [] { removeFiles("\(path)/\(name)") }
    _ = unsafe rmdir(path)
}
