import Glibc
import LinuxSystem

/// What a test needs of the machine. Use it as a trait, so that a skip says why:
///
///     @Suite(.enabled(if: Capability.fuse.isUsable, "\(Capability.fuse.reason)"))
///
/// On a machine that has the capability its tests cannot be skipped, for the probe decides, not the test. With
/// `FARMEM_REQUIRE_ALL=1` (CI) a missing capability is no skip either: the tests run and fail with the real reason.
package struct Capability: Sendable {
    package let name: String
    /// Why it is missing; nil when it is there.
    package let missing: String?

    /// Whether tests that need it should run.
    package var isUsable: Bool { missing == nil || Self.requiresAll }

    /// What the report says beside a skipped test.
    package var reason: String { missing.map { "needs \(name): \($0)" } ?? "has \(name)" }

    private static let requiresAll = environment("FARMEM_REQUIRE_ALL") == "1"

    init(_ name: String, missing: String?) {
        self.name = name
        self.missing = missing
    }

    /// Several at once; missing what the first missing one lacks.
    package static func all(_ capabilities: [Capability]) -> Capability {
        let lacking = capabilities.first { $0.missing != nil }
        return Capability(
            capabilities.map(\.name).joined(separator: ", "),
            missing: lacking.map { "\($0.name): \($0.missing ?? "")" })
    }

    package static let root = Capability(
        "root", missing: runsAsRoot() ? nil : "run as uid \(geteuid())")

    package static let fuse = Capability("FUSE", missing: openFailure("/dev/fuse", O_RDWR))

    package static let loopDevices = Capability(
        "loop devices", missing: openFailure("/dev/loop-control", O_RDWR))

    /// swapon(2) is allowed and the kernel has swap.
    package static let swap = Capability(
        "swap", missing: root.missing ?? (fileExists("/proc/swaps") ? nil : "no /proc/swaps"))

    /// FUSE, loop devices and swap: what a far swap device needs.
    package static let farSwap = all([root, fuse, loopDevices, swap])

    /// The version 1 memory controller, mounted and writable.
    package static let memoryControllerV1: Capability = {
        let name = "cgroup v1 memory controller"
        if let missing = root.missing { return Capability(name, missing: missing) }
        let mounts = (try? readSmallText("/proc/self/mounts")) ?? ""
        for line in mounts.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count >= 4, fields[2] == "cgroup" else { continue }
            guard fields[3].split(separator: ",").contains("memory") else { continue }
            let isWritable = unsafe access(String(fields[1]), W_OK) == 0
            return Capability(name, missing: isWritable ? nil : "\(fields[1]) is read-only")
        }
        return Capability(name, missing: "not mounted")
    }()

    /// runc is installed and may start containers.
    package static let runc = Capability(
        "runc", missing: root.missing ?? program("runc") ?? memoryControllerV1.missing)

    /// A program on the PATH.
    package static func command(_ name: String) -> Capability {
        Capability(name, missing: program(name))
    }

    /// Where a program of the PATH lies; nil when it is not installed.
    package static func path(ofCommand name: String) -> String? {
        let directories = environment("PATH") ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        for directory in directories.split(separator: ":")
        where unsafe access("\(directory)/\(name)", X_OK) == 0 { return "\(directory)/\(name)" }
        return nil
    }

    private static func program(_ name: String) -> String? {
        path(ofCommand: name) == nil ? "\(name) is not installed" : nil
    }

    private static func openFailure(_ path: String, _ flags: Int32) -> String? {
        do throws(SystemError) {
            _ = try FileDescriptor.open(path, flags)
            return nil
        } catch {
            return "\(path): \(error.reason)"
        }
    }
}
