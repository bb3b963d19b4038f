import CommandLineKit
import FarMemory
import Glibc
import HTTPEndpoint
import JSONText
import LinuxSystem
import SwapDevice

/// One thing that was looked at: fine, or what to do.
struct Finding {
    var name: String
    var isFine: Bool
    var text: String
    /// Needed by the main path; else a part works without it.
    var isNeeded = true
}

let doctorCommand = Command(
    name: "doctor", summary: "check that this machine has what far memory needs",
    options: [offloaddOption, .json], configurable: false
) { invocation in
    let findings = kernelFindings() + swapFindings() + peerFindings(invocation)
    if invocation.flag("json") {
        let items = findings.map { finding -> JSONValue in
            [
                "name": JSONValue(finding.name), "ok": JSONValue(finding.isFine),
                "needed": JSONValue(finding.isNeeded), "text": JSONValue(finding.text),
            ]
        }
        printOut((["schema": 1, "findings": .array(items)] as JSONValue).rendered() + "\n")
    } else {
        for finding in findings {
            let mark = finding.isFine ? "ok  " : finding.isNeeded ? "FAIL" : "note"
            printOut("\(mark)  \(finding.name): \(finding.text)\n")
        }
    }
    return findings.allSatisfy { $0.isFine || !$0.isNeeded } ? .done : .checkFailed
}

private func kernelFindings() -> [Finding] {
    var findings: [Finding] = []
    func look(_ name: String, _ isFine: Bool, _ good: String, _ todo: String, needed: Bool = true) {
        findings.append(
            Finding(name: name, isFine: isFine, text: isFine ? good : todo, isNeeded: needed))
    }
    look("root", runsAsRoot(), "yes", "run farmem doctor and the daemons as root")
    look(
        "page maps", fileExists("/proc/self/pagemap"), "/proc/PID/pagemap is there",
        "use a kernel with CONFIG_PROC_PAGE_MONITOR")
    look(
        "FUSE", fileExists("/dev/fuse"), "/dev/fuse is there",
        "modprobe fuse, or attach with --frontend nbd")
    look(
        "loop devices", fileExists("/dev/loop-control"), "/dev/loop-control is there",
        "modprobe loop, or attach with --frontend nbd")
    look(
        "pressure", fileExists("/proc/pressure/memory"), "/proc/pressure/memory is there",
        "boot with psi=1: without pressure figures offloadd moves nothing")
    let mounts = (try? readSmallText("/proc/mounts", limit: 16 << 20)) ?? ""
    let fields = mounts.split(separator: "\n").map { $0.split(separator: " ") }
    let v1 = fields.first {
        $0.count > 3 && $0[2] == "cgroup" && $0[3].split(separator: ",").contains("memory")
    }
    let v2 = fields.first { line in
        guard line.count > 3, line[2] == "cgroup2" else { return false }
        let controllers = (try? readSmallText("\(line[1])/cgroup.controllers")) ?? ""
        return controllers.split(whereSeparator: { $0 == " " || $0 == "\n" }).contains("memory")
    }
    let group = v1.map { "v1 at \($0[1])" } ?? v2.map { "v2 at \($0[1])" }
    look(
        "memory controller", group != nil, group ?? "",
        "mount it: mount -t cgroup2 none /sys/fs/cgroup, or boot without cgroup_disable=memory")
    let runc = ["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/bin/runc"].first(where: fileExists)
    look(
        "runc", runc != nil, runc ?? "", "apt-get install runc, to run functions with fngateway",
        needed: false)
    if let limit = HostSetting.haltPoll.value.map({ Nanoseconds($0) }) {
        look(
            "halt polling", limit > .zero, "idle processors poll \(limit) before they halt",
            "idle processors of this virtual machine halt at once, and each page that comes back waits for them to wake: farswap attach --halt-poll 200us",
            needed: false)
    }
    return findings
}

private func swapFindings() -> [Finding] {
    guard let areas = try? swapAreas() else {
        return [Finding(name: "swap", isFine: false, text: "use a kernel with CONFIG_SWAP")]
    }
    let free = areas.reduce(UInt64(0)) { $0 + $1.size - min($1.used, $1.size) }
    if areas.isEmpty {
        return [
            Finding(
                name: "swap", isFine: false,
                text:
                    "none is on; attach far memory: farswap attach shm:/run/farmem/memserver.sock --size 2GiB"
            )
        ]
    }
    let text = "\(areas.count) areas, \(ByteCount.mib(free >> 20)) free"
    return [
        Finding(
            name: "swap", isFine: free > 64 << 20,
            text: free > 64 << 20 ? text : "\(text); attach more")
    ]
}

private func peerFindings(_ invocation: Invocation) -> [Finding] {
    let run = runtimeDirectory()
    let offloadd = invocation.endpointIfSet("offloadd") ?? .unix(path: "\(run)/offloadd.sock")
    return [
        peer(
            "memserver", .unix(path: "\(run)/memserver-admin.sock"),
            "start it: memserver serve --capacity 4GiB"),
        peer("offloadd", offloadd, "start it: offloadd run"),
    ]
}

private func peer(_ name: String, _ endpoint: Endpoint, _ todo: String) -> Finding {
    let client = HTTPClient(target: endpoint)
    do throws(HTTPClientError) {
        let response = try client.request("GET", "/healthz", timeout: .seconds(2))
        let isFine = response.status == 200
        return Finding(
            name: name, isFine: isFine,
            text: isFine
                ? "answers at \(endpoint)"
                : "answers \(response.status) at \(endpoint); see its log",
            isNeeded: false)
    } catch {
        return Finding(name: name, isFine: false, text: "\(error); \(todo)", isNeeded: false)
    }
}
