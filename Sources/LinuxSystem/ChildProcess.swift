import CLinuxShims
import Glibc

/// How a child ended, or that it has not.
package enum ChildEnd: Equatable, Sendable {
    case running
    case exited(Int32)
    case killed(signal: Int32)
}

/// A process of our own, held by pidfd so that a recycled pid is never signalled. Not reaped by
/// `deinit`: whoever starts one waits for it.
package struct ChildProcess: ~Copyable, Sendable {
    /// The pid, for messages and cgroups.
    package let pid: Int32
    private let pidfd: FileDescriptor

    /// A descriptor that becomes readable when the child ends.
    package var endDescriptor: Int32 { pidfd.rawValue }

    /// Starts a program. `arguments` includes argument 0; `environment` nil passes ours on. The child
    /// gets only descriptors 0-2 and those of `descriptors` (ours -> its number).
    /// `diesWithParent` ends it with `SIGTERM` when the starting thread ends.
    package init(
        _ path: String, _ arguments: [String], environment: [String]? = nil,
        descriptors: [(ours: Int32, theirs: Int32)] = [], newSession: Bool = false,
        diesWithParent: Bool = false
    ) throws(SystemError) {
        var pidfd: Int32 = -1
        let map = descriptors.map { fm_spawn_fd(parent_fd: $0.ours, child_fd: $0.theirs) }
        let pid = unsafe withCStrings(arguments) { argv in
            unsafe withCStrings(environment ?? currentEnvironment()) { envp in
                unsafe map.withUnsafeBufferPointer { fds in
                    unsafe fm_spawn(
                        path, argv, envp, fds.baseAddress, Int32(fds.count), newSession,
                        diesWithParent ? SIGTERM : 0, &pidfd)
                }
            }
        }
        guard pid > 0 else { throw SystemError.last("start \(path)") }
        let owner = try FileDescriptor("pidfd_open", pidfd)
        self.pid = pid
        self.pidfd = owner
    }

    /// Sends a signal; ESRCH (already gone) is not an error.
    package func signal(_ number: Int32) throws(SystemError) {
        let fd = pidfd.rawValue
        if fm_pidfd_send_signal(fd, number) < 0 && errno != ESRCH {
            throw SystemError.last("pidfd_send_signal")
        }
    }

    /// Waits for the end, at most `timeout` nanoseconds (-1 for ever). After an end it must not be
    /// called again.
    package func wait(timeout: Int64) throws(SystemError) -> ChildEnd {
        var status: Int32 = 0
        let done = try check("waitpid") { unsafe fm_wait(pid, pidfd.rawValue, timeout, &status) }
        guard done > 0 else { return .running }
        let code = fm_wait_exit_status(status)
        let low = status & 0x7f
        return low == 0 ? .exited(code) : .killed(signal: low)
    }
}

/// The environment as `NAME=value`.
package func currentEnvironment() -> [String] {
    var list: [String] = []
    var next: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?> = unsafe environ
    while let entry = unsafe next.pointee {
        list.append(unsafe String(cString: entry))
        unsafe next += 1
    }
    return list
}

/// Calls `body` with a null-terminated array of C strings that lives for the call.
private func withCStrings<R>(
    _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> R
) -> R {
    var pointers: [UnsafeMutablePointer<CChar>?] = unsafe strings.map { unsafe strdup($0) }
    unsafe pointers.append(nil)
    defer { for index in unsafe pointers.indices { unsafe free(pointers[index]) } }
    return unsafe pointers.withUnsafeBufferPointer { buffer in
        guard let base = buffer.baseAddress else { preconditionFailure("one element at least") }
        return unsafe body(base)
    }
}
