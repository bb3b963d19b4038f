import CLinuxShims
import CNetlinkShims
import CSwapShims
import FarMemory
import Glibc
import LinuxSystem
package import Telemetry

/// The frontend of hosts with farmem.ko: pages go from the kernel to where they are kept, and no process of ours
/// is behind the device.
package struct KernelModuleAttachment {
    private let steps: AttachSteps

    package init(directory: DeviceDirectory, log: Logger) {
        steps = AttachSteps(directory: directory, log: log)
    }

    /// Whether this kernel and this user can have it, in words that say what to do.
    package static func check() throws(SwapDeviceError) {
        guard runsAsRoot() else { throw .notRoot }
        guard KernelModule.isAvailable else {
            throw .missingKernelFeature(
                "farmem.ko is not loaded; load it (modprobe farmem, see kernel-patch/README.md) or use --frontend fuse"
            )
        }
    }

    /// Attaches; on any failure all that was done is undone. Returns the block device's path.
    package func attach(
        _ request: AttachRequest, _ setup: KernelModule.Setup
    ) throws(SwapDeviceError) -> String {
        try Self.check()
        if try KernelModule.status(setup.name) != nil { throw .nameInUse(setup.name) }
        return try steps.run(request, frontend: "module") { record in
            let status = try KernelModule.attach(setup)
            guard !status.disk.isEmpty else {
                throw SwapDeviceError.brokenState("the answer of farmem.ko")
            }
            record.device = "/dev/\(status.disk)"
            try steps.directory.save(record)
            try awaitNode(record.device)
            do {
                let device = try FileDescriptor.open(record.device, O_RDWR)
                try writeSwapHeader(
                    to: device, size: request.size, label: "farmem-\(request.name)")
            }
            guard unsafe fm_swapon(record.device, request.priority, true) == 0 else {
                throw SystemError.last("swapon \(record.device)")
            }
            return record.device
        }
    }

    /// The same for a swap area that the kernel's frontswap serves from the module: `path` is a disk that was made a swap
    /// area, or a file, which is made when it is not there. What the module refuses is kept on it.
    package func attach(
        _ request: AttachRequest, _ setup: KernelModule.Setup, area path: String
    ) throws(SwapDeviceError) -> String {
        try Self.check()
        if try KernelModule.status(setup.name) != nil { throw .nameInUse(setup.name) }
        let area = try FrontswapArea(path)
        do throws(SwapDeviceError) {
            return try steps.run(request, frontend: "frontswap") { record in
                record.device = area.path
                try steps.directory.save(record)
                var setup = setup
                setup.area = area.path
                // First, as it refuses an area in use, and a kernel that cannot do it.
                _ = try KernelModule.attach(setup)
                try area.prepare(size: request.size, label: "farmem-\(request.name)")
                // Without discards: frontswap is told of every page, and the disk's blocks stay reserved.
                guard unsafe fm_swapon(area.path, request.priority, false) == 0 else {
                    throw SystemError.last("swapon \(area.path)")
                }
                guard try KernelModule.status(setup.name)?.openers == 1 else {
                    throw SwapDeviceError.missingKernelFeature(
                        "the kernel gave \(area.path) to another backend of frontswap")
                }
                return area.path
            }
        } catch {
            area.undo()
            throw error
        }
    }

    /// devtmpfs makes the node before the module answers; udev may be a moment later with its own.
    private func awaitNode(_ path: String) throws(SwapDeviceError) {
        for _ in 0..<100 where !fileExists(path) { sleepNanoseconds(20_000_000) }
        guard fileExists(path) else {
            throw .missingKernelFeature("\(path) did not appear; is devtmpfs mounted on /dev?")
        }
    }
}

extension DeviceRemoval {
    /// Removes a device of the module, whatever there is of it. Throws while pages are on it.
    func dismantleKernelModule(_ record: DeviceRecord) throws {
        guard let status = try KernelModule.status(record.name) else { return }
        let device = status.area.isEmpty ? "/dev/\(status.disk)" : status.area
        if try swapAreas().contains(where: { $0.path == device }) {
            try check("swapoff \(device)") { unsafe fm_swapoff(device) }
        }
        // Who looks at new block devices (udev) may have it open for a moment.
        for attempt in 0..<50 {
            do throws(SwapDeviceError) {
                return try KernelModule.detach(record.name)
            } catch {
                guard case .refusedByModule(EBUSY, _) = error, attempt < 49 else { throw error }
                sleepNanoseconds(20_000_000)
            }
        }
    }
}

extension DeviceStatus {
    /// What the module says of a device of its own.
    mutating func readModule() {
        guard let status = try? KernelModule.status(record.name) else { return }
        condition =
            switch status.state {
            case "reconnecting": .reconnecting
            case "lost": .lost
            default: .attached
            }
        counters = [
            .pagesIn: status.counter(FARMEM_C_PAGES_READ),
            .pagesOut: status.counter(FARMEM_C_PAGES_WRITTEN),
            .pagesDiscarded: status.counter(FARMEM_C_PAGES_DISCARDED)
                + status.counter(FARMEM_C_SLOTS_FREED),
            .loadFailed: status.counter(FARMEM_C_READ_ERRORS)
                + status.counter(FARMEM_C_READS_TIMED_OUT) + status.counter(FARMEM_C_READS_LOST),
            .storeNoSpace: status.counter(FARMEM_C_REJECTED_CAPACITY)
                + status.counter(FARMEM_C_REJECTED_SERVER),
            .storeDeadline: status.counter(FARMEM_C_WRITES_TIMED_OUT),
            .storeOther: status.counter(FARMEM_C_WRITE_ERRORS)
                + status.counter(FARMEM_C_REJECTED_MEMORY)
                + status.counter(FARMEM_C_REJECTED_LOST),
            .retries: status.counter(FARMEM_C_REPEATED),
        ]
        loads = Self.buckets(status.readLatency)
        stores = Self.buckets(status.writeLatency)
        fabricReconnects = max(status.counter(FARMEM_C_SESSIONS), 1) - 1
        fabricRefused = status.counter(FARMEM_C_REJECTED_SERVER)
        fabricSlab = status.slab
        if status.slab > .zero {
            fabricSlabs = status.used.bytes / status.slab.bytes
        } else {
            fabricPages = status.used.bytes / UInt64(pageBytes)
        }
    }

    /// The module counts in microseconds: its bucket 0 ends where the ninth of nanoseconds does.
    private static func buckets(_ module: [UInt64]) -> LatencyBuckets {
        let count = unsafe SwapCounters.histogramBuckets
        let shifted =
            [UInt64](repeating: 0, count: 9) + module + [UInt64](repeating: 0, count: count)
        return LatencyBuckets(counts: Array(shifted.prefix(count)))
    }
}
