import CLinuxShims
import CSwapShims
import FarMemory
import Glibc
import LinuxSystem
package import Telemetry

/// Takes swap devices away: in order (`detach`), or what a crash left (`repair`).
package struct DeviceRemoval {
    let directory: DeviceDirectory
    let log: Logger

    package init(directory: DeviceDirectory, log: Logger) {
        self.directory = directory
        self.log = log
    }

    /// Brings all pages back into memory and removes the device.
    /// - Parameters:
    ///   - force: try even when the pages do not seem to fit.
    ///   - progress: called now and then with the bytes still swapped out.
    package func detach(
        _ name: String, force: Bool, progress: (UInt64) -> Void
    ) throws(SwapDeviceError) {
        guard runsAsRoot() else { throw .notRoot }
        _ = try directory.load(name)
        let lock = try directory.lock(name)
        defer { _ = lock.rawValue }
        let record = try directory.load(name)
        do {
            if let area = try swapAreas().first(where: { $0.path == record.device }) {
                let available = try memoryInformation("MemAvailable") ?? 0
                guard force || area.used < available else {
                    throw SwapDeviceError.wouldNotFit(
                        usedBytes: area.used, availableBytes: available)
                }
                try withoutFlusher(record) { () throws(SystemError) in
                    try swapOff(record.device, progress: progress)
                }
            }
            try dismantle(record)
        } catch {
            throw SwapDeviceError(error)
        }
    }

    /// Runs a swapoff that the flusher takes no part in: its own would only wait for this one.
    private func withoutFlusher(
        _ record: DeviceRecord, _ swapOff: () throws(SystemError) -> Void
    ) throws(SystemError) {
        guard record.flushesSlots else { return try swapOff() }
        var leaving = record
        leaving.flushesSlots = false
        try directory.save(leaving)
        do throws(SystemError) {
            try directory.endFlusher(log)
            try swapOff()
        } catch {
            try directory.save(record)
            directory.startFlusher(try readLink("/proc/self/exe"), log)
            throw error
        }
    }

    /// swapoff(2) takes as long as there are pages: it runs on its own thread, progress on this one.
    private func swapOff(_ device: String, progress: (UInt64) -> Void) throws(SystemError) {
        let outcome = Outcome()
        let thread = try WorkerThread("swapoff") {
            unsafe outcome.finish(fm_swapoff(device) == 0 ? 0 : errno)
        }
        while try !waitReady(outcome.done.descriptor.rawValue, .readable, timeout: 200_000_000) {
            if let area = try swapAreas().first(where: { $0.path == device }) {
                progress(area.used)
            }
        }
        thread.join()
        if outcome.code != 0 { throw SystemError(call: "swapoff \(device)", code: outcome.code) }
    }

    /// Removes all but the swapped pages: loop device, mount, processes, state. Steps that have
    /// nothing to do are passed over, so that it also finishes what was begun before.
    package func dismantle(_ record: DeviceRecord) throws {
        if record.frontend == "nbd" || record.isModules {
            if record.frontend == "nbd" {
                try dismantleKernelNBD(record)
            } else {
                try dismantleKernelModule(record)
            }
            return try forget(record)
        }
        if isOurs(record) {
            _ = unsafe fm_swapoff(record.device)
            _ = unsafe fm_loop_clear(record.device)
        }
        let mountPoint = directory.mountPoint(record.name)
        // The loop device lets its file go in the background.
        for attempt in 0..<50 where isMounted(mountPoint) {
            if unsafe fm_umount(mountPoint, attempt == 49) == 0 { break }
            if errno == EINVAL || errno == ENOENT { break }
            sleepNanoseconds(20_000_000)
        }
        try endKeeper(record, wait: 5_000_000_000)
        try forget(record)
    }

    /// What is left when the device is gone.
    private func forget(_ record: DeviceRecord) throws(SystemError) {
        try restoreSettings(record)
        try directory.remove(record.name)
        try directory.endFlusher(log)
    }

    private func restoreSettings(_ record: DeviceRecord) throws(SystemError) {
        for setting in record.raised.keys
        where !directory.isWanted(setting, besides: record.name) {
            try RaisedSetting(setting).restore()
        }
    }

    /// A loop device may have been given to somebody else since.
    private func isOurs(_ record: DeviceRecord) -> Bool {
        guard !record.device.isEmpty else { return false }
        var label = [CChar](repeating: 0, count: 128)
        let found = unsafe label.withUnsafeMutableBufferPointer {
            unsafe fm_loop_label(record.device, $0.baseAddress, 128)
        }
        guard found == 0 else { return false }
        let text = textUpToZero(label)
        return text == "farmem:\(record.name)"
            || text == "\(directory.mountPoint(record.name))/\(FuseNode.deviceName)"
    }

    private func isMounted(_ path: String) -> Bool {
        do throws(SystemError) {
            return try readSmallText("/proc/self/mounts", limit: 4 << 20)
                .split(separator: "\n").contains {
                    $0.split(separator: " ").dropFirst().first == path[...]
                }
        } catch {
            return true
        }
    }

    /// After the unmount the data process ends by itself, then the keeper; they get some time for it.
    func endKeeper(_ record: DeviceRecord, wait: Int64) throws(SystemError) {
        guard record.keeperIsAlive else { return }
        let pidfd = fm_pidfd_open(record.keeperPid)
        guard pidfd >= 0 else { return }
        let process = FileDescriptor(owning: pidfd)
        guard record.keeperIsAlive else { return }
        if try waitReady(process.rawValue, .readable, timeout: wait) { return }
        if wait > 0 {
            log.warn("keeper_killed", ["device": record.name, "pid": Int(record.keeperPid)])
        }
        _ = fm_pidfd_send_signal(process.rawValue, SIGKILL)
        _ = try waitReady(process.rawValue, .readable, timeout: 1_000_000_000)
    }

    /// What a repair found.
    package enum Finding: Equatable, Sendable {
        case healthy
        /// The keeper was gone and a new one was found or is on its way.
        case keeperReplaced
        /// Nobody served the device any more: it was removed. Pages on it are lost.
        case removed
        case failed(String)
    }

    /// Looks at one device and mends what can be mended.
    package func repair(_ name: String) -> Finding {
        do {
            let lock = try directory.lock(name)
            defer { _ = lock.rawValue }
            let record: DeviceRecord
            do throws(SwapDeviceError) {
                record = try directory.load(name)
            } catch {
                // Without a readable state there is only the mount point and the directory to remove.
                try dismantle(
                    DeviceRecord(name: name, url: "", size: .zero, frontend: "fuse"))
                return .removed
            }
            if record.keeperIsAlive { return try healthy(record) }
            if let keeper = liveKeeper(of: record) {
                var changed = record
                changed.keeperPid = keeper
                changed.keeperStart = processStart(keeper) ?? 0
                try directory.save(changed)
                return .keeperReplaced
            }
            if record.frontend == "nbd", KernelNBD.isOurs(record.device, name),
                try swapAreas().contains(where: { $0.path == record.device })
            {
                var changed = record
                try KernelNBDAttachment(directory: directory, log: log).replaceKeeper(&changed)
                return .keeperReplaced
            }
            if record.isModules, try KernelModule.status(name) != nil {
                return try healthy(record)
            }
            try dismantle(record)
            return .removed
        } catch {
            return .failed("\(error)")
        }
    }

    private func healthy(_ record: DeviceRecord) throws -> Finding {
        let areas = try swapAreas()
        if areas.contains(where: { $0.path == record.device }) {
            directory.startFlusher(try readLink("/proc/self/exe"), log)
            return .healthy
        }
        // Alive but not swapping: attach was cut off half way, or swapoff was done by hand.
        try dismantle(record)
        return .removed
    }

    /// A keeper that a data process started in place of its dead one.
    private func liveKeeper(of record: DeviceRecord) -> Int32? {
        findKeeper(of: record.name)
    }
}

/// The pid of the keeper that serves a device now, by its command line; nil when there is none.
package func findKeeper(of name: String) -> Int32? {
    do throws(SystemError) {
        for entry in try directoryEntries("/proc") {
            guard let pid = Int32(entry) else { continue }
            guard let line = try? readSmallText("/proc/\(pid)/cmdline", limit: 65536) else {
                continue
            }
            let words = line.split(separator: "\0", omittingEmptySubsequences: true)
            guard words.count > 3, words[1] == "keeper" || words[1] == "nbd-keeper",
                let index = words.firstIndex(of: "--name"), index + 1 < words.count,
                words[index + 1] == name[...]
            else { continue }
            return pid
        }
    } catch {
        return nil
    }
    return nil
}

private final class Outcome: @unchecked Sendable {
    // SAFETY: `code` is written before the signal and read after it and the join.
    private(set) var code: Int32 = 0
    let done: EventSignal

    init() {
        do throws(SystemError) {
            done = try EventSignal()
        } catch {
            preconditionFailure("no eventfd: \(error)")
        }
    }

    func finish(_ code: Int32) {
        self.code = code
        done.signal()
    }
}
