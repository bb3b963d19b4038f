import Glibc
package import LinuxSystem

/// How a program ends, so that scripts can tell a typing error from a dead peer (the numbers are those of sysexits.h).
package enum ExitStatus: Int32, Sendable, CaseIterable {
    case done = 0
    /// A check or comparison ran and did not hold.
    case checkFailed = 1
    /// Wrong use: option, unit, URL or environment variable.
    case usage = 64
    /// The peer (server, daemon, device) cannot be reached.
    case peerUnavailable = 69
    /// A state that must not occur: report it.
    case bug = 70
    /// The operating system refused a call, or lacks a feature.
    case systemError = 71
    /// Busy or full now; the same command may work later.
    case tryAgain = 75
    case permission = 77
    /// The configuration file is wrong.
    case badConfiguration = 78

    /// One line for EXIT STATUS in `--help`.
    package var meaning: String {
        switch self {
        case .done: "done"
        case .checkFailed: "a check failed"
        case .usage: "wrong use of the command line or of a FARMEM_ variable"
        case .peerUnavailable: "the peer is unavailable"
        case .bug: "a bug in this program: please report it"
        case .systemError: "the operating system refused, or lacks a feature"
        case .tryAgain: "busy or full now; try again later"
        case .permission: "permission denied"
        case .badConfiguration: "wrong configuration file"
        }
    }
}

/// The user asked for something that cannot be understood. Exit status 64, or 78 when it came from the configuration file.
package struct UsageError: Error, Equatable, CustomStringConvertible {
    /// One line: what is wrong and what to do.
    package let message: String
    package let isFromConfiguration: Bool

    package init(_ message: String, isFromConfiguration: Bool = false) {
        self.message = message
        self.isFromConfiguration = isFromConfiguration
    }

    package var description: String { message }
    package var exitStatus: ExitStatus { isFromConfiguration ? .badConfiguration : .usage }
}

/// A command could not do its work: the status to exit with and one line that says what is wrong and what to do.
package struct CommandFailure: Error, Equatable, CustomStringConvertible {
    package let status: ExitStatus
    package let message: String

    package init(_ status: ExitStatus, _ message: String) {
        self.status = status
        self.message = message
    }

    package var description: String { message }
}

extension ExitStatus {
    /// The status of a failed system call that a command does not explain itself.
    package init(_ error: SystemError) {
        switch error.code {
        case EACCES, EPERM: self = .permission
        case ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT, ECONNRESET: self = .peerUnavailable
        case EAGAIN, EBUSY: self = .tryAgain
        default: self = .systemError
        }
    }
}
