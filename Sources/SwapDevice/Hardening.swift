import CLinuxShims
import Glibc
package import LinuxSystem

/// Makes this process fit to stand between the kernel and its swapped pages: it must not be swapped,
/// throttled, limited or killed for memory. Best effort but for the locking: what was refused is returned in words.
package func hardenSwapProcess() throws(SystemError) -> [String] {
    var refused: [String] = []
    try check("mlockall") { fm_mlockall_on_fault() }
    if fm_set_io_flusher() != 0 { refused.append("PR_SET_IO_FLUSHER: \(errnoText(errno))") }
    do throws(SystemError) {
        try writeKernelFile("/proc/self/oom_score_adj", "-1000")
    } catch {
        refused.append("\(error)")
    }
    // Out of every limited control group: into the root of the memory hierarchy, v1 or v2.
    for root in ["/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/cgroup.procs"]
    where fileExists(root) {
        do throws(SystemError) {
            try writeKernelFile(root, "0")
        } catch {
            refused.append("\(error)")
        }
        break
    }
    return refused
}
