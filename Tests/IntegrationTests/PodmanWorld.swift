import Glibc
import LinuxSystem
import TestSupport

/// podman with storage, state and control groups of its own, and its API served on a socket. Images are made here: nothing is
/// downloaded, and no network is set up.
final class PodmanWorld {
    static let parent = "farmem-podman-\(getpid())"

    private let directory: TemporaryDirectory
    private var service: TestProcess?
    var socket: String { directory.file("podman.sock") }

    init() throws {
        directory = try TemporaryDirectory()
        try makeDirectories(directory.file("image/bin"))
        try run("/bin/cp", ["/bin/busybox", directory.file("image/bin/busybox")])
        for name in ["sh", "sleep", "head", "tr", "cat"] {
            unsafe symlink("busybox", directory.file("image/bin/\(name)"))
        }
        try run("/bin/tar", ["-C", directory.file("image"), "-cf", directory.file("i.tar"), "."])
        try podman(["import", "-q", directory.file("i.tar"), "localhost/farmem-test:1"])
    }

    @discardableResult
    private func run(_ path: String, _ arguments: [String]) throws -> String {
        let process = try TestProcess(path, arguments)
        guard try process.wait(seconds: 60) == .exited(0) else {
            throw TestFailure("\(path) \(arguments): \(process.standardError)")
        }
        return process.standardOutput
    }

    private var global: [String] {
        [
            "--root", directory.file("root"), "--runroot", directory.file("run"),
            "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file",
            "--tmpdir", directory.file("tmp"),
        ]
    }

    @discardableResult
    func podman(_ arguments: [String]) throws -> String {
        try run(Capability.path(ofCommand: "podman") ?? "/usr/bin/podman", global + arguments)
    }

    /// Starts a container whose shell holds this much memory, after a busy start.
    func start(_ name: String, mebibytes: Int = 1, labels: [String] = []) throws {
        try podman(
            [
                "run", "-d", "--name", name, "--network", "none", "--cgroup-parent",
                "/\(Self.parent)", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
            ] + labels.flatMap { ["--label", $0] } + [
                "localhost/farmem-test:1", "/bin/sh", "-c",
                "x=$(head -c \(mebibytes << 20) /dev/zero | tr '\\0' a); sleep 1000; echo $x",
            ])
    }

    func stop(_ name: String) throws { try podman(["rm", "-f", "-t", "0", name]) }

    /// Serves the API until `stopService`; ready when its socket answers.
    func startService() throws {
        unsafe unlink(socket)
        service = try TestProcess(
            Capability.path(ofCommand: "podman") ?? "/usr/bin/podman",
            global + ["system", "service", "--time", "0", "unix://\(socket)"])
        let deadline = monotonicNow() + 20_000_000_000
        while (try? connectUnix(socket)) == nil {
            guard monotonicNow() < deadline else {
                throw TestFailure("podman does not serve: \(service?.standardError ?? "")")
            }
            sleepNanoseconds(20_000_000)
        }
    }

    func stopService() throws {
        try service?.kill()
        service = nil
    }

    func tearDown() {
        _ = try? podman(["rm", "-f", "-a", "-t", "0"])
        _ = try? service?.kill()
        for controller in (try? directoryEntries("/sys/fs/cgroup")) ?? [] {
            let parent = "/sys/fs/cgroup/\(controller)/\(Self.parent)"
            for child in (try? directoryEntries(parent)) ?? [] {
                unsafe rmdir("\(parent)/\(child)")
            }
            unsafe rmdir(parent)
        }
    }
}
