import CommandLineKit
import Glibc
import LinuxSystem

/// The programs that a benchmark runs, in a runtime directory of their own, so that it neither meets nor disturbs an installation on
/// the same host. One thread. Whatever was started is ended by `tearDown`, last first; if this process is killed, its children get SIGTERM and
/// clean up by themselves, and the next benchmark finishes what is left.
final class BenchProcesses {
    /// Sockets, state and logs.
    let directory: String
    private let lock: FileDescriptor
    private let binaries: String
    private let logLevel: String
    private var members: [Member] = []
    private var undo: [(name: String, action: () throws -> Void)] = []

    private final class Member {
        let name: String
        var child: ChildProcess?
        init(name: String, child: consuming ChildProcess) {
            self.name = name
            self.child = consume child
        }
    }

    private static let startTimeout: Int64 = 30_000_000_000
    private static let stopTimeout: Int64 = 60_000_000_000

    init(logLevel: String) throws {
        directory = "\(runtimeDirectory())/bench"
        self.logLevel = logLevel
        try makeDirectories(directory, mode: 0o700)
        lock = try FileDescriptor.open("\(directory)/lock", O_RDWR | O_CREAT, mode: 0o600)
        guard try lock.lock() else {
            throw CommandFailure(.tryAgain, "another benchmark runs; wait for its end")
        }
        let program = try Self.ownPath()
        binaries = String(program[..<(program.lastIndex(of: "/") ?? program.startIndex)])
    }

    private static func ownPath() throws(SystemError) -> String {
        guard let real = unsafe realpath("/proc/self/exe", nil) else {
            throw SystemError.last("find the program's own path")
        }
        defer { unsafe free(real) }
        return unsafe String(cString: real)
    }

    /// The path of a program of this package: beside this one.
    func binary(_ name: String) throws -> String {
        let path = "\(binaries)/\(name)"
        guard fileExists(path) else {
            throw CommandFailure(.systemError, "\(path) is not built; run: swift build -c release")
        }
        return path
    }

    /// Starts a daemon and waits until it says that it is ready.
    func start(_ name: String, _ arguments: [String]) throws {
        let path = try binary(name)
        let ends = try makeSocketPair()
        let ours = FileDescriptor(owning: ends.0)
        let theirs = FileDescriptor(owning: ends.1)
        let child = try spawn(
            path, arguments + ["--ready-fd", "3", "--log-level", logLevel], log: name,
            more: [(theirs.rawValue, 3)])
        members.append(Member(name: name, child: child))
        _ = consume theirs
        let isSilent = try !waitReady(ours.rawValue, .readable, timeout: Self.startTimeout)
        var line = [UInt8](repeating: 0, count: 16)
        let got =
            isSilent ? 0 : try unsafe line.withUnsafeMutableBytes { try unsafe ours.read(into: $0) }
        guard got > 0 else {
            throw CommandFailure(
                .peerUnavailable, "\(name) did not become ready: \(lastLine(of: name))")
        }
    }

    /// Runs a program of this package to its end; throws its last line when it fails.
    func run(_ name: String, _ arguments: [String], timeout: Int64 = stopTimeout) throws {
        let child = try spawn(try binary(name), arguments, log: name, more: [])
        var end = try child.wait(timeout: timeout)
        if end == .running {
            try child.signal(SIGKILL)
            end = try child.wait(timeout: 5_000_000_000)
        }
        guard end == .exited(0) else {
            throw CommandFailure(
                .systemError, "\(name) \(arguments.first ?? "") failed: \(lastLine(of: name))")
        }
    }

    private func spawn(
        _ path: String, _ arguments: [String], log: String, more: [(ours: Int32, theirs: Int32)]
    ) throws(SystemError) -> ChildProcess {
        let null = try FileDescriptor.open("/dev/null", O_RDONLY)
        let output = try FileDescriptor.open(
            "\(directory)/\(log).log", O_WRONLY | O_CREAT | O_APPEND, mode: 0o600)
        let variables =
            currentEnvironment().filter {
                !$0.hasPrefix("FARMEM_") && !$0.hasPrefix("NOTIFY_SOCKET=")
            }
            + ["FARMEM_RUNTIME_DIR=\(directory)"]
        // A session of its own: Ctrl-C is for us, and we end our children in order.
        return try ChildProcess(
            path, [path] + arguments, environment: variables,
            descriptors: [(null.rawValue, 0), (output.rawValue, 1), (output.rawValue, 2)] + more,
            newSession: true, diesWithParent: true)
    }

    private func lastLine(of name: String) -> String {
        let text = (try? readSmallText("\(directory)/\(name).log", limit: 64 << 20)) ?? ""
        return text.split(separator: "\n").last.map(String.init) ?? "it said nothing"
    }

    /// Something to be undone by `tearDown`, in reverse order among the daemons that are started.
    func onTearDown(_ name: String, _ action: @escaping () throws -> Void) {
        undo.append(("\(members.count)|\(name)", action))
    }

    /// Ends and undoes everything, last first. Returns what went wrong, a line each; goes on after each.
    func tearDown() -> [String] {
        var problems: [String] = []
        while !members.isEmpty || !undo.isEmpty {
            if let last = undo.last,
                last.name.split(separator: "|").first == "\(members.count)"[...]
            {
                undo.removeLast()
                do { try last.action() } catch { problems.append("\(error)") }
            } else if let member = members.popLast() {
                if let problem = end(member) { problems.append(problem) }
            } else {
                undo.removeLast()
            }
        }
        return problems
    }

    private func end(_ member: Member) -> String? {
        do {
            try member.child?.signal(SIGTERM)
            guard try member.child?.wait(timeout: Self.stopTimeout) == .running else { return nil }
            try member.child?.signal(SIGKILL)
            _ = try member.child?.wait(timeout: 5_000_000_000)
            return "\(member.name) did not end in time and was killed"
        } catch {
            return "\(member.name): \(error)"
        }
    }

    /// Removes the runtime directory, after `tearDown`; the logs stay when something failed.
    func removeDirectory() {
        Self.removeTree(directory)
    }

    private static func removeTree(_ path: String) {
        if unsafe unlink(path) == 0 || errno == ENOENT { return }
        for name in (try? directoryEntries(path)) ?? [] { removeTree("\(path)/\(name)") }
        _ = unsafe rmdir(path)
    }
}
