package import FarMemory
import Glibc
package import LinuxSystem

/// What farswap remembers of a device, in `<runtime>/swap/NAME/state`: enough to find it, to take it
/// away, and to clean up after a crash at any point. Written before each step that it describes.
package struct DeviceRecord: Equatable, Sendable {
    package var name: String
    package var url: String
    package var size: ByteCount
    package var frontend: String
    package var keeperPid: Int32 = 0
    /// In clock ticks since boot, so that a recycled pid is not taken for the keeper.
    package var keeperStart: UInt64 = 0
    /// What is swapped on: `/dev/loopN`, `/dev/nbdN`, or the area of frontswap; empty until bound.
    package var device: String = ""
    /// Settings of the machine that it asked to be at least so high.
    package var raised: [HostSetting: Int64] = [:]
    /// How a keeper of the nbd frontend is started, argument 0 first.
    package var keeperCommand: [String] = []
    /// Whether the kernel is to be made to give back the slots that it has freed and keeps (`SlotFlusher`).
    package var flushesSlots = false

    /// Whether farmem.ko serves it, as a disk of its own or behind a swap area.
    var isModules: Bool { frontend == "module" || frontend == "frontswap" }

    package init(name: String, url: String, size: ByteCount, frontend: String) {
        self.name = name
        self.url = url
        self.size = size
        self.frontend = frontend
    }
}

/// Where devices' state lives.
package struct DeviceDirectory: Sendable {
    let runtime: String
    /// `<runtime>/swap`
    package let root: String

    package init(runtime: String = runtimeDirectory()) {
        self.runtime = runtime
        root = "\(runtime)/swap"
    }

    package func path(_ name: String) -> String { "\(root)/\(name)" }
    package func mountPoint(_ name: String) -> String { "\(root)/\(name)/mount" }
    private func statePath(_ name: String) -> String { "\(root)/\(name)/state" }

    /// 1 to 64 of the characters that lease names have.
    package static func isName(_ name: String) -> Bool {
        (1...64).contains(name.utf8.count) && name != "." && name != ".."
            && name.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x41...0x5A).contains($0)
                    || (0x61...0x7A).contains($0) || "._-".utf8.contains($0)
            }
    }

    /// The names that have a directory.
    package func names() -> [String] {
        do throws(SystemError) {
            return try directoryEntries(root).filter {
                Self.isName($0) && fileExists("\(root)/\($0)/state")
            }
        } catch {
            return []
        }
    }

    package func save(_ record: DeviceRecord) throws(SystemError) {
        try makeDirectories(path(record.name), mode: 0o755)
        let lines =
            [
                "name=\(record.name)", "url=\(record.url)", "size=\(record.size.bytes)",
                "frontend=\(record.frontend)", "keeper_pid=\(record.keeperPid)",
                "keeper_start=\(record.keeperStart)", "device=\(record.device)",
                "flush_slots=\(record.flushesSlots)",
            ] + record.raised.map { "\($0.key.rawValue)=\($0.value)" }
            + record.keeperCommand.map { "argument=\($0)" }
        try replaceFile(
            statePath(record.name), with: lines.joined(separator: "\n") + "\n", mode: 0o600)
    }

    package func load(_ name: String) throws(SwapDeviceError) -> DeviceRecord {
        guard Self.isName(name) else { throw .badName(name) }
        let text: String
        do throws(SystemError) {
            text = try readSmallText(statePath(name), limit: 65536)
        } catch {
            if error.code == ENOENT { throw .noSuchDevice(name) }
            throw .system(error)
        }
        var values: [Substring: Substring] = [:]
        for line in text.split(separator: "\n") {
            guard let equals = line.firstIndex(of: "=") else { continue }
            values[line[..<equals]] = line[line.index(after: equals)...]
        }
        guard let url = values["url"], let size = values["size"].flatMap({ UInt64($0) }),
            let frontend = values["frontend"],
            let pid = values["keeper_pid"].flatMap({ Int32($0) }),
            let start = values["keeper_start"].flatMap({ UInt64($0) })
        else { throw .brokenState(statePath(name)) }
        var record = DeviceRecord(
            name: name, url: String(url), size: ByteCount(size), frontend: String(frontend))
        record.keeperPid = pid
        record.keeperStart = start
        record.device = String(values["device"] ?? "")
        record.flushesSlots = values["flush_slots"] == "true"
        for setting in HostSetting.allCases {
            record.raised[setting] = values[setting.rawValue[...]].flatMap { Int64($0) }
        }
        record.keeperCommand = text.split(separator: "\n").filter { $0.hasPrefix("argument=") }
            .map { String($0.dropFirst("argument=".count)) }
        return record
    }

    /// Whether a device other than this one asked for a setting.
    func isWanted(_ setting: HostSetting, besides name: String) -> Bool {
        names().contains { other in
            guard other != name else { return false }
            do throws(SwapDeviceError) {
                return try load(other).raised[setting] != nil
            } catch {
                return false
            }
        }
    }

    /// Forgets a device: its files, mount point and directory.
    package func remove(_ name: String) throws(SystemError) {
        unsafe rmdir(mountPoint(name))
        for file in ["state", "state.new", "lock", "log"] { unsafe unlink("\(path(name))/\(file)") }
        if unsafe rmdir(path(name)) != 0, errno != ENOENT {
            throw SystemError.last("rmdir \(path(name))")
        }
    }

    /// One command at a time works on a device. The lock goes with the descriptor.
    package func lock(_ name: String) throws(SwapDeviceError) -> FileDescriptor {
        do throws(SystemError) {
            try makeDirectories(path(name))
            let file = try FileDescriptor.open("\(path(name))/lock", O_RDWR | O_CREAT)
            guard try file.lock() else { throw SystemError(call: "flock", code: EBUSY) }
            return file
        } catch {
            if error.code == EBUSY { throw .busy(name) }
            throw .system(error)
        }
    }
}

/// When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); nil when there is none.
package func processStart(_ pid: Int32) -> UInt64? {
    guard pid > 0 else { return nil }
    do throws(SystemError) {
        let text = try readSmallText("/proc/\(pid)/stat", limit: 8192)
        // The name in parentheses may hold anything: fields are counted from its end.
        guard let close = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: close)...].split(separator: " ")
        // A process that nobody has waited for yet is gone all the same.
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
        return UInt64(fields[19])
    } catch {
        return nil
    }
}

extension DeviceRecord {
    /// Whether the keeper that was started is still that process.
    package var keeperIsAlive: Bool {
        keeperStart != 0 && processStart(keeperPid) == keeperStart
    }
}
