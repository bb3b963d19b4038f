import Glibc

/// Writes text to standard output, whole, now. A reader that went away (a closed pipe) is not an error: the answer is
/// no longer wanted. Lines of a daemon's log do not go here.
package func printOut(_ text: String) { writeAll(text, to: STDOUT_FILENO) }

/// Writes one line to standard error.
package func printError(_ line: String) { writeAll(line + "\n", to: STDERR_FILENO) }

/// Writes text to standard error as it is: a progress line that is written over.
package func printProgress(_ text: String) { writeAll(text, to: STDERR_FILENO) }

/// Whether standard output is a terminal: progress and colours belong there only.
package var isOutputTerminal: Bool { isatty(STDOUT_FILENO) == 1 }

private func writeAll(_ text: String, to descriptor: Int32) {
    let bytes = Array(text.utf8)
    var done = 0
    while done < bytes.count {
        // SAFETY: the slice is inside the array, which lives through the call.
        let count = unsafe bytes.withUnsafeBytes {
            unsafe write(descriptor, $0.baseAddress?.advanced(by: done), bytes.count - done)
        }
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return }
        done += count
    }
}
