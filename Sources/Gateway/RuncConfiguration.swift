import FarMemory
import JSONText

/// The OCI configuration of a function's container.
///
/// The root is an empty directory into which the host's /usr and the little of /etc that a dynamic linker needs are bound
/// read-only, so the container sees the host's Python and libraries and nothing else of the host. No capabilities, no
/// network, no devices; the function runs as nobody and can write to a bounded /tmp only.
struct RuncConfiguration {
    let spec: ContainerSpec
    let rootDirectory: String
    let socketDirectory: String
    let user: Int

    /// Links of a merged /usr, made by whoever makes the root directory.
    static let usrLinks = ["bin", "lib", "lib32", "lib64", "sbin"]
    /// Bound when the host has them.
    static let etcFiles = ["/etc/ld.so.cache", "/etc/alternatives", "/etc/python3.11"]

    /// `etc`: those of `etcFiles` that the host has.
    func json(etc: [String]) -> JSONValue {
        let manifest = spec.manifest
        return [
            "ociVersion": "1.0.2",
            "hostname": JSONValue(spec.id),
            "root": ["path": JSONValue(rootDirectory), "readonly": true],
            "process": process,
            "mounts": .array(fileSystems + etc.map { bind($0, at: $0) } + binds),
            "linux": [
                "cgroupsPath": JSONValue(spec.controlGroup),
                "resources": [
                    "memory": ["limit": JSONValue(manifest.memory.bytes)],
                    "cpu": .object(processor),
                    "pids": ["limit": 64],
                    "devices": [["allow": false, "access": "rwm"]],
                ],
                "namespaces": .array(
                    ["pid", "mount", "ipc", "uts", "network"].map { ["type": JSONValue($0)] }),
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"],
            ],
        ]
    }

    private var processor: [JSONValue.Member] {
        let manifest = spec.manifest
        var members = [
            JSONValue.Member("shares", JSONValue(max(2, manifest.cpuMillis * 1024 / 1000)))
        ]
        if let processors = manifest.processors {
            members.append(.init("cpus", JSONValue(processors)))
        }
        if let nodes = manifest.memoryNodes { members.append(.init("mems", JSONValue(nodes))) }
        return members
    }

    private var process: JSONValue {
        let arguments = [
            "/usr/bin/python3", "-s", "-B", "\(AgentPaths.agentInside)/agent.py", "--socket",
            "\(AgentPaths.directoryInside)/\(AgentPaths.socketName)", "--function",
            "\(AgentPaths.functionInside)/\(spec.manifest.entry)", "--name", spec.manifest.name,
        ]
        return [
            "terminal": false,
            "user": ["uid": JSONValue(user), "gid": JSONValue(user)],
            "args": .array(arguments.map { .string($0) }),
            // A fixed hash seed: what a function keeps in memory is the same in every container.
            "env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/tmp", "PYTHONHASHSEED=0"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": ["bounding": [], "effective": [], "permitted": []],
            "oomScoreAdj": 500,
            "rlimits": [
                ["type": "RLIMIT_NOFILE", "hard": 256, "soft": 256],
                ["type": "RLIMIT_CORE", "hard": 0, "soft": 0],
                // Bounds the log, too.
                ["type": "RLIMIT_FSIZE", "hard": 67_108_864, "soft": 67_108_864],
            ],
        ]
    }

    private var fileSystems: [JSONValue] {
        [
            mount("/proc", "proc", ["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", ["nosuid", "noexec", "mode=755", "size=64k"]),
            mount("/tmp", "tmpfs", ["nosuid", "nodev", "noexec", "mode=1777", "size=64m"]),
            bind("/usr", at: "/usr", recursive: true),
        ]
    }

    private var binds: [JSONValue] {
        [
            bind(spec.agentDirectory, at: AgentPaths.agentInside),
            bind(spec.manifest.directory, at: AgentPaths.functionInside),
            bind(socketDirectory, at: AgentPaths.directoryInside, writable: true),
        ]
    }

    private func mount(_ target: String, _ type: String, _ options: [String]) -> JSONValue {
        [
            "destination": JSONValue(target), "type": JSONValue(type), "source": JSONValue(type),
            "options": .array(options.map { .string($0) }),
        ]
    }

    private func bind(
        _ source: String, at target: String, recursive: Bool = false, writable: Bool = false
    ) -> JSONValue {
        let options = [recursive ? "rbind" : "bind", writable ? "rw" : "ro", "nosuid", "nodev"]
        return [
            "destination": JSONValue(target), "type": "bind", "source": JSONValue(source),
            "options": .array(options.map { .string($0) }),
        ]
    }
}
