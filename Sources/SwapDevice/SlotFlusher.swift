import CLinuxShims
import CSwapShims
import FarMemory
import Glibc
import LinuxSystem
package import Telemetry

/// The process that makes the kernel give freed swap slots back (`SlotFlushLaw.swift`): one for a host, as one swapoff empties what
/// processors keep of all areas. It is in nobody's way: not of pages, as what serves them are other processes; and killed
/// at any time it leaves at most its own area of a few pages, which its successor, or the end of the last device, takes away.
///
/// One thread, which may sleep in the kernel for long: swapon and swapoff wait for a swapoff that is under way.
package struct SlotFlusher {
    /// Between two looks, nanoseconds: as a rule, and while slots were just freed.
    private static let look: Int64 = 200_000_000
    private static let closeLook: Int64 = 50_000_000
    private let directory: DeviceDirectory
    private let log: Logger

    package init(directory: DeviceDirectory, log: Logger) {
        self.directory = directory
        self.log = log
    }

    /// Runs until no device wants it, or SIGTERM. At once over when there is one already.
    package func run() -> Int32 {
        do throws(SystemError) {
            let signals = try SignalEvents([SIGTERM, SIGINT])
            while let lock = try directory.lockFlusher() {
                let isTold = try serve(signals)
                // Before the last look: who attaches saves its wish first and then tries the lock.
                _ = consume lock
                if isTold || directory.flushed().isEmpty { break }
            }
            return 0
        } catch {
            log.error("slot_flusher_failed", ["reason": "\(error)"])
            return 71
        }
    }

    /// True when it was told to end, false when no device wants it any more.
    private func serve(_ signals: borrowing SignalEvents) throws(SystemError) -> Bool {
        for refused in try hardenSwapProcess() {
            log.warn("hardening_refused", ["what": refused])
        }
        _ = fm_set_io_flusher()
        SlotArea.removeLeft()
        let area = try SlotArea()
        var state = directory.flusherState() ?? SlotFlusherState()
        state.pid = getpid()
        state.start = processStart(state.pid) ?? 0
        try directory.save(state)
        var watched = WatchedDevices(directory)
        var budget = FlushBudget()
        while true {
            let now = monotonicNow()
            if area.isOn { report(area.off(), &state) }
            guard try watched.look(now: now) else { return false }
            if !watched.ripe.isEmpty, !area.isOn, budget.allows(now: now) {
                if watched.gain() {
                    budget.spend(now: now)
                    let inUse = watched.inUse
                    report(area.onAndOff(), &state)
                    try watched.flushed(now: monotonicNow())
                    state.slots += (inUse - min(inUse, watched.inUse)) / UInt64(pageBytes)
                    try directory.save(state)
                } else {
                    watched.declined(now: now)
                }
            }
            let pause = watched.haveFallen ? Self.closeLook : Self.look
            if try waitReady(signals.descriptor.rawValue, .readable, timeout: pause),
                signals.next() != nil
            {
                return true
            }
        }
    }

    private func report(_ failure: SystemError?, _ state: inout SlotFlusherState) {
        guard let failure else {
            state.flushes += 1
            return
        }
        // The first, the second, the fourth and so on.
        if state.failures & (state.failures &- 1) == 0 {
            log.warn(
                "slots_not_flushed",
                ["reason": "\(failure)", "failures": Int(state.failures + 1)])
        }
        state.failures += 1
    }
}

/// The devices whose freed slots are wanted back, and how much is in use of each.
struct WatchedDevices {
    /// Devices are looked up at least so often, nanoseconds.
    private static let lookUp: Int64 = 5_000_000_000

    private let directory: DeviceDirectory
    /// What all processors may keep together, bytes.
    private let kept: UInt64
    private var records: [DeviceRecord] = []
    private var areas: [SwapArea] = []
    private var paths: [String] = []
    private var lookedUpAt: Int64?
    private var watches: [String: SlotWatch] = [:]
    /// Those of which it may be time, by the last look.
    private(set) var ripe: [String] = []

    init(_ directory: DeviceDirectory) {
        self.directory = directory
        let processors = UInt64(max(sysconf(Int32(_SC_NPROCESSORS_CONF)), 1))
        kept = processors * UInt64(2 * SwapSlotCaches.slots * pageBytes)
    }

    /// False when no device wants it any more.
    mutating func look(now: Int64) throws(SystemError) -> Bool {
        let present = try swapAreas()
        let isOld = lookedUpAt.map { now - $0 >= Self.lookUp } ?? true
        if isOld || present.map(\.path) != paths {
            paths = present.map(\.path)
            lookedUpAt = now
            records = directory.flushed()
        }
        take(present)
        ripe = areas.filter { area in
            watches[area.path, default: SlotWatch(used: area.used, now: now)]
                .look(used: area.used, kept: kept, now: now)
        }.map(\.path)
        return !records.isEmpty
    }

    private mutating func take(_ present: [SwapArea]) {
        areas = present.filter { area in records.contains { $0.device == area.path } }
        watches = watches.filter { watch in areas.contains { $0.path == watch.key } }
    }

    /// In use of all of them, bytes.
    var inUse: UInt64 { areas.reduce(0) { $0 + $1.used } }

    /// Whether slots were freed that nothing was done about yet.
    var haveFallen: Bool { watches.values.contains(where: \.hasFallen) }

    /// Whether far memory holds for a ripe one two slabs more than its pages in use need, or does not say. (One is the swap header's.)
    mutating func gain() -> Bool {
        // Anew: a device whose detach has begun does not want it any more.
        records = directory.flushed()
        return areas.contains { area in
            guard ripe.contains(area.path),
                let record = records.first(where: { $0.device == area.path })
            else { return false }
            guard let (held, step) = try? DeviceStatus(of: record).held else { return true }
            return held.bytes >= area.used
                && held.bytes - area.used >= max(2 * step.bytes, SlotWatch.batch)
        }
    }

    mutating func flushed(now: Int64) throws(SystemError) {
        take(try swapAreas())
        for area in areas { watches[area.path]?.flushed(used: area.used, now: now) }
    }

    mutating func declined(now: Int64) {
        for path in ripe { watches[path]?.declined(now: now) }
    }
}

/// A swap area of a few pages in this process's memory, that is only ever on for a moment. The kernel gives it the lowest priority;
/// should it put pages there all the same, as it may where nothing else is free, swapoff brings them back.
final class SlotArea {
    /// Of loop devices, to know ours again. Names of devices follow a colon.
    private static let label = "farmem-slot-flusher"
    private static let size = ByteCount(UInt64(10 * pageBytes))

    private let path: String
    /// Keeps the loop device; it goes with the last user.
    private let loop: FileDescriptor
    private(set) var isOn = false

    init() throws(SystemError) {
        let file = try makeMemoryFile(
            Self.label, size: Self.size.bytes, fixedSize: true)
        try writeSwapHeader(to: file, size: Self.size, label: Self.label)
        var name = [CChar](repeating: 0, count: 64)
        loop = try FileDescriptor(
            "bind a loop device",
            unsafe name.withUnsafeMutableBufferPointer {
                unsafe fm_loop_bind(file.rawValue, Self.label, $0.baseAddress, 64)
            })
        path = textUpToZero(name)
    }

    deinit { _ = off() }

    /// Nil when all went well.
    func onAndOff() -> SystemError? {
        guard unsafe fm_swapon(path, -1, false) == 0 else {
            return SystemError.last("swapon \(path)")
        }
        isOn = true
        return off()
    }

    /// It stays on where the kernel has no memory for what is on it, or was interrupted.
    func off() -> SystemError? {
        guard isOn else { return nil }
        // EINVAL: it was off already.
        if unsafe fm_swapoff(path) != 0, errno != EINVAL {
            return SystemError.last("swapoff \(path)")
        }
        isOn = false
        return nil
    }

    /// Swaps off what a killed flusher left; while none runs.
    static func removeLeft() {
        for area in (try? swapAreas()) ?? [] where area.path.hasPrefix("/dev/loop") {
            var name = [CChar](repeating: 0, count: 128)
            let found = unsafe name.withUnsafeMutableBufferPointer {
                unsafe fm_loop_label(area.path, $0.baseAddress, 128)
            }
            if found == 0, textUpToZero(name) == label { _ = unsafe fm_swapoff(area.path) }
        }
    }
}
