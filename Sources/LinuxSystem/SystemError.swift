// LinuxSystem: the operating system behind typed errors and owners that cannot leak.
//
// Thread model: values are free of threads; `~Copyable` owners belong to one thread at a time unless
// a type says otherwise. EBADF and EFAULT are bugs, not weather: they trap.

import Glibc

/// A system call that failed: which one, and with what errno.
package struct SystemError: Error, Equatable, Sendable {
    /// The call, and what it was for when that helps: "open", "mount".
    package var call: String
    /// The errno.
    package var code: Int32

    package init(call: String, code: Int32) {
        precondition(
            code != EBADF && code != EFAULT, "\(call): a bad descriptor or address is a bug")
        self.call = call
        self.code = code
    }

    /// The error of the call that just returned -1 on this thread.
    package static func last(_ call: String) -> SystemError { SystemError(call: call, code: errno) }

    /// The C library's text for the errno.
    package var reason: String { errnoText(code) }
}

extension SystemError: CustomStringConvertible {
    package var description: String { "\(call): \(reason)" }
}

/// The C library's text for an errno.
package func errnoText(_ code: Int32) -> String {
    unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
        guard let base = buffer.baseAddress else { return "error \(code)" }
        // SAFETY: strerror_r is given the buffer's own length and writes a terminated text.
        guard unsafe strerror_r(code, base, buffer.count) == 0 else { return "error \(code)" }
        return unsafe String(cString: base)
    }
}

/// Runs a call that returns -1 on failure, again after EINTR, and throws its errno.
@inline(__always) @discardableResult
package func check<T: SignedInteger>(
    _ call: @autoclosure () -> String, _ body: () -> T
) throws(SystemError) -> T {
    while true {
        let result = body()
        if result >= 0 { return result }
        if errno != EINTR { throw SystemError.last(call()) }
    }
}
