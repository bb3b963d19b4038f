import CLinuxShims
import Glibc
import LinuxSystem
import Telemetry

/// What the slot flusher tells of itself, in `<runtime>/slot-flusher`: while there are devices that want it, also when it is not running.
package struct SlotFlusherState: Equatable, Sendable {
    package var pid: Int32 = 0
    /// In clock ticks since boot.
    package var start: UInt64 = 0
    /// How often the kernel was made to give freed slots back, and how often that failed.
    package var flushes: UInt64 = 0
    package var failures: UInt64 = 0
    /// How many slots fewer were in use right after.
    package var slots: UInt64 = 0

    package init() {}

    package var isAlive: Bool { start != 0 && processStart(pid) == start }
}

extension DeviceDirectory {
    private var flusherPath: String { "\(runtime)/slot-flusher" }
    private var flusherLog: String { "\(runtime)/slot-flusher.log" }

    /// The devices whose freed slots are wanted back.
    func flushed() -> [DeviceRecord] {
        names().compactMap { name in
            guard let record = try? load(name), record.flushesSlots else { return nil }
            return record
        }
    }

    /// What is known of the flusher; nil where there is none to be.
    package func flusherState() -> SlotFlusherState? {
        guard let text = try? readSmallText(flusherPath) else { return nil }
        var state = SlotFlusherState()
        for line in text.split(separator: "\n") {
            let words = line.split(separator: "=")
            guard words.count == 2, let value = UInt64(words[1]) else { continue }
            switch words[0] {
            case "pid": state.pid = Int32(truncatingIfNeeded: value)
            case "start": state.start = value
            case "flushes": state.flushes = value
            case "failures": state.failures = value
            case "slots": state.slots = value
            default: break
            }
        }
        return state
    }

    func save(_ state: SlotFlusherState) throws(SystemError) {
        try replaceFile(
            flusherPath,
            with: """
                pid=\(state.pid)
                start=\(state.start)
                flushes=\(state.flushes)
                failures=\(state.failures)
                slots=\(state.slots)

                """)
    }

    /// Held by the flusher for as long as it looks after devices. Nil when another holds it.
    func lockFlusher() throws(SystemError) -> FileDescriptor? {
        let file = try FileDescriptor.open(root, O_RDONLY | O_DIRECTORY)
        guard try file.lock() else { return nil }
        return file
    }

    /// Starts the flusher where a device wants it, the kernel needs it, and it does not run. Devices are as well without.
    func startFlusher(_ executable: String, _ log: Logger) {
        guard !flushed().isEmpty, SwapSlotCaches.arePresent else { return }
        do throws(SystemError) {
            // One that runs holds the lock, and looks for devices once more after it has let go.
            guard try lockFlusher() != nil else { return }
            let null = try FileDescriptor.open("/dev/null", O_RDWR)
            let file = try FileDescriptor.open(
                flusherLog, O_WRONLY | O_CREAT | O_APPEND, mode: 0o600)
            _ = try ChildProcess(
                executable, [executable, "slot-flusher"],
                descriptors: [(null.rawValue, 0), (null.rawValue, 1), (file.rawValue, 2)],
                newSession: true)
        } catch {
            log.warn("slot_flusher_not_started", ["reason": "\(error)"])
        }
    }

    /// Ends the flusher when no device wants it any more, and removes what it left.
    func endFlusher(_ log: Logger) throws(SystemError) {
        guard flushed().isEmpty, let state = flusherState() else { return }
        let pidfd = state.isAlive ? fm_pidfd_open(state.pid) : -1
        if pidfd >= 0 {
            let process = FileDescriptor(owning: pidfd)
            // A pid that was given to another meanwhile is not ours to end.
            if state.isAlive {
                _ = fm_pidfd_send_signal(process.rawValue, SIGTERM)
                if try !waitReady(process.rawValue, .readable, timeout: 5_000_000_000) {
                    log.warn("slot_flusher_killed", ["pid": Int(state.pid)])
                    _ = fm_pidfd_send_signal(process.rawValue, SIGKILL)
                    _ = try waitReady(process.rawValue, .readable, timeout: 1_000_000_000)
                }
            }
        }
        SlotArea.removeLeft()
        for file in [flusherPath, "\(flusherPath).new", flusherLog] { _ = unsafe unlink(file) }
    }
}
