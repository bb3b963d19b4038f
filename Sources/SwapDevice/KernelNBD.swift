import CNetlinkShims
import FarMemory
import Glibc
import LinuxSystem

/// The kernel's own NBD client (nbd.ko), over generic netlink. Control path: it allocates. Any thread.
package enum KernelNBD {
    /// Whether the running kernel has it, loaded.
    package static var isAvailable: Bool { fm_nbd_probe() == 0 }

    /// The name under which the kernel shows whose device it is.
    static func backend(of name: String) -> String { "farmem:\(name)" }

    /// Whether a block device is the one of this name. A device's number may be somebody else's by now.
    static func isOurs(_ device: String, _ name: String) -> Bool {
        guard device.hasPrefix("/dev/nbd") else { return false }
        let shown = try? readSmallText("/sys/block/\(device.dropFirst(5))/backend")
        return shown?.split(separator: "\n").first.map(String.init) == backend(of: name)
    }

    /// The block device of a name, by what the kernel shows; nil when there is none.
    static func device(of name: String) -> String? {
        let blocks = (try? directoryEntries("/sys/block")) ?? []
        return blocks.filter { $0.hasPrefix("nbd") }.map { "/dev/\($0)" }
            .first { isOurs($0, name) }
    }

    static func index(_ device: String) -> Int32? {
        device.hasPrefix("/dev/nbd") ? Int32(device.dropFirst(8)) : nil
    }

    /// Gives connected sockets to a free device; the kernel holds them from here on. Returns its index.
    static func connect(
        _ setup: KernelNBDSetup, _ sockets: [Int32]
    ) throws(SystemError) -> Int32 {
        let answer = unsafe setup.use { setup in
            unsafe sockets.withUnsafeBufferPointer {
                unsafe fm_nbd_connect(setup, $0.baseAddress, Int32($0.count))
            }
        }
        guard answer >= 0 else { throw SystemError(call: "connect an nbd device", code: -answer) }
        return answer
    }

    /// Puts sockets in the places of dead ones. What is left over is not used, which is no error.
    static func replaceDead(
        _ index: Int32, _ setup: KernelNBDSetup, _ sockets: [Int32]
    ) throws(SystemError) {
        let answer = unsafe setup.use { setup in
            unsafe sockets.withUnsafeBufferPointer {
                unsafe fm_nbd_reconfigure(index, setup, $0.baseAddress, Int32($0.count))
            }
        }
        guard answer >= 0 else {
            throw SystemError(call: "reconnect /dev/nbd\(index)", code: -answer)
        }
    }

    static func disconnect(_ index: Int32) throws(SystemError) {
        let answer = fm_nbd_disconnect(index)
        guard answer >= 0 else {
            throw SystemError(call: "disconnect /dev/nbd\(index)", code: -answer)
        }
    }
}

/// What the kernel is told of an export.
struct KernelNBDSetup {
    var size: ByteCount
    var flags: UInt16
    /// Of one request, before its connection is declared dead.
    var requestTimeout: Nanoseconds
    /// How long requests wait for a new connection.
    var deadTimeout: Nanoseconds
    var backend: String

    func use<R>(_ body: (UnsafePointer<fm_nbd_setup>) -> R) -> R {
        unsafe backend.withCString { identifier in
            // SAFETY: the name lives for the call; the kernel gets a copy.
            var setup = unsafe fm_nbd_setup(
                size_bytes: size.bytes, block_bytes: UInt64(pageBytes),
                timeout_seconds: Self.seconds(requestTimeout),
                dead_timeout_seconds: Self.seconds(deadTimeout), server_flags: UInt64(flags),
                identifier: identifier)
            return unsafe body(&setup)
        }
    }

    /// Rounded up: zero would mean for ever.
    private static func seconds(_ time: Nanoseconds) -> UInt64 {
        UInt64(max(1, (time.nanoseconds + 999_999_999) / 1_000_000_000))
    }
}

/// Notices of links that died. One thread.
struct KernelNBDMonitor: ~Copyable {
    let descriptor: FileDescriptor

    init() throws(SystemError) {
        descriptor = try Self.open()
    }

    private static func open() throws(SystemError) -> FileDescriptor {
        let answer = fm_nbd_monitor_open()
        guard answer >= 0 else { throw SystemError(call: "watch nbd links", code: -answer) }
        return FileDescriptor(owning: answer)
    }

    /// Takes all notices there are: how many links of this device died since.
    func deaths(of index: Int32) -> Int {
        var count = 0
        // More would be a kernel that has gone mad; the rest is found at the next look.
        for _ in 0..<4096 {
            switch fm_nbd_monitor_next(descriptor.rawValue) {
            case index: count += 1
            case -EAGAIN, -EBADF, -EINVAL: return count
            // Notices were lost for want of room: one of them may have been ours.
            case -ENOBUFS: count += 1
            default: break
            }
        }
        return count
    }
}
