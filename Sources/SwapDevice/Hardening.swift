import CLinuxShims
import Glibc
package import LinuxSystem

/// Makes this process fit to stand between the kernel and its swapped pages: it must not be swapped,
/// throttled, limited or killed for memory. Best effort but for the locking: what was refused is returned in words.
package func hardenSwapProcess() throws(SystemError) -> [String] {
    try lockOwnMemory()
    var refused = protectFromMemoryPressure()
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
