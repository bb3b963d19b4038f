import CLinuxShims
import Glibc

// For processes that swapped pages depend on: while such a process waits for memory, so does whoever would free some.

/// Locks all memory of this process, present and future, as it is touched (mlockall with MCL_ONFAULT).
package func lockOwnMemory() throws(SystemError) {
    try check("mlockall") { fm_mlockall_on_fault() }
}

/// Asks the kernel not to wait for writeback on this process's behalf, and not to kill it for memory. Best effort:
/// what was refused is returned in words.
package func protectFromMemoryPressure() -> [String] {
    var refused: [String] = []
    if fm_set_io_flusher() != 0 { refused.append("PR_SET_IO_FLUSHER: \(errnoText(errno))") }
    do throws(SystemError) {
        try writeKernelFile("/proc/self/oom_score_adj", "-1000")
    } catch {
        refused.append("\(error)")
    }
    return refused
}
