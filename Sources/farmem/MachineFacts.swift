import Glibc
import JSONText
import LinuxSystem

/// What figures depend on, for reports.
func machineFacts() -> JSONValue {
    func line(_ path: String) -> String {
        String((try? readSmallText(path))?.split(separator: "\n").first ?? "")
    }
    let processor = (try? readSmallText("/proc/cpuinfo", limit: 4 << 20))?
        .split(separator: "\n").first { $0.hasPrefix("model name") }
    let name = processor?.split(separator: ":").last?.drop { $0 == " " }
    return [
        "processors": JSONValue(sysconf(Int32(_SC_NPROCESSORS_ONLN))),
        "processor": JSONValue(String(name ?? "unknown")),
        "memory_bytes": JSONValue((try? memoryInformation("MemTotal")) ?? 0),
        "kernel": JSONValue(line("/proc/sys/kernel/osrelease")),
        "transparent_hugepages": JSONValue(line("/sys/kernel/mm/transparent_hugepage/enabled")),
    ]
}
