import CLinuxShims
import Glibc

/// Some process, not necessarily our child, held so that a recycled pid is never taken for it. Any thread.
package struct ProcessHandle: ~Copyable, Sendable {
    /// The pid, for messages and control groups.
    package let pid: Int32
    private let pidfd: FileDescriptor

    /// Holds the process that has the pid now; ESRCH when there is none.
    package init(pid: Int32) throws(SystemError) {
        self.pid = pid
        pidfd = try FileDescriptor("pidfd_open", fm_pidfd_open(pid))
    }

    /// Whether it has ended (a zombie has).
    package var hasEnded: Bool { fm_poll_one(pidfd.rawValue, Readiness.readable.rawValue, 0) > 0 }

    /// Waits for its end; false when `timeout` nanoseconds passed first.
    package func waitForEnd(timeout: Int64) throws(SystemError) -> Bool {
        try waitReady(pidfd.rawValue, .readable, timeout: timeout)
    }

    /// Sends a signal; a process that is gone is not an error.
    package func signal(_ number: Int32) throws(SystemError) {
        if fm_pidfd_send_signal(pidfd.rawValue, number) < 0 && errno != ESRCH {
            throw SystemError.last("pidfd_send_signal")
        }
    }
}
