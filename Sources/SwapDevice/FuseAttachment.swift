import CLinuxShims
import CSwapShims
import FarMemory
import Glibc
import LinuxSystem
package import Telemetry

/// The FUSE and loop frontend: any kernel that has the two.
package struct FuseAttachment {
    private let steps: AttachSteps
    private var directory: DeviceDirectory { steps.directory }

    package init(directory: DeviceDirectory, log: Logger) {
        steps = AttachSteps(directory: directory, log: log)
    }

    /// Whether this kernel and this user can have it, in words that say what to do.
    package static func check() throws(SwapDeviceError) {
        guard runsAsRoot() else { throw .notRoot }
        guard fileExists("/dev/fuse") else {
            throw .missingKernelFeature(
                "/dev/fuse is missing; load the fuse module (modprobe fuse)")
        }
        guard fileExists("/dev/loop-control") else {
            throw .missingKernelFeature(
                "/dev/loop-control is missing; load the loop module (modprobe loop)")
        }
    }

    /// Attaches; on any failure all that was done is undone. Returns the block device's path.
    package func attach(_ request: AttachRequest) throws(SwapDeviceError) -> String {
        try Self.check()
        return try steps.run(request, frontend: "fuse") { record in
            try start(request, &record)
            return try bind(request, &record)
        }
    }

    /// Mounts the file system and starts keeper and data process.
    private func start(_ request: AttachRequest, _ record: inout DeviceRecord) throws {
        let mountPoint = directory.mountPoint(request.name)
        try makeDirectories(mountPoint, mode: 0o700)
        let length = SharedRegion.length(workers: request.workers, size: request.size)
        let regionFile = try makeMemoryFile(
            "farswap-\(request.name)", size: UInt64(length), fixedSize: true)
        _ = try SharedRegion(
            creatingIn: regionFile, workers: request.workers, size: request.size,
            hasFallback: request.hasFallback)
        let fuse = unsafe try FileDescriptor(
            "mount the swap file system", fm_fuse_mount(mountPoint, request.name))
        let (ours, theirs) = try makeSocketPair()
        let answer = FileDescriptor(owning: ours)
        let ready = FileDescriptor(owning: theirs)
        let log = try steps.openLog(request.name)
        let null = try FileDescriptor.open("/dev/null", O_RDWR)
        let keeper = try ChildProcess(
            request.executable,
            [request.executable, "keeper", "--name", request.name, "--"] + request.dataArguments,
            descriptors: [
                (fuse.rawValue, SwapDescriptor.fuse), (regionFile.rawValue, SwapDescriptor.region),
                (ready.rawValue, SwapDescriptor.ready), (null.rawValue, 0), (null.rawValue, 1),
                (log.rawValue, 2),
            ], newSession: true)
        record.keeperPid = keeper.pid
        record.keeperStart = processStart(keeper.pid) ?? 0
        try directory.save(record)
        _ = consume ready
        _ = try steps.awaitReadiness(answer)
    }

    /// Makes the file a block device and gives it to the kernel.
    private func bind(_ request: AttachRequest, _ record: inout DeviceRecord) throws -> String {
        let path = "\(directory.mountPoint(request.name))/\(FuseNode.deviceName)"
        let file = try FileDescriptor.open(path, O_RDWR)
        var name = [CChar](repeating: 0, count: 64)
        let loop = try FileDescriptor(
            "bind a loop device",
            unsafe name.withUnsafeMutableBufferPointer {
                unsafe fm_loop_bind(file.rawValue, "farmem:\(request.name)", $0.baseAddress, 64)
            })
        record.device = textUpToZero(name)
        try directory.save(record)
        tune(record.device)
        try writeSwapHeader(to: loop, size: request.size, label: "farmem-\(request.name)")
        guard unsafe fm_swapon(record.device, request.priority, true) == 0 else {
            throw SystemError.last("swapon \(record.device)")
        }
        return record.device
    }

    /// Two settings of the block device's queue; without them it is only slower.
    ///
    /// Completion on the processor that submitted: else the loop driver's completions, which come from our
    /// data process, go through ksoftirqd, one more thread to be woken for each fault (blk_mq_complete_request).
    /// No throttling of writeback: it holds page-out back to keep reads of a disk fast, and this is none.
    private func tune(_ device: String) {
        let queue = "/sys/block/\(device.dropFirst("/dev/".count))/queue"
        for (name, value) in [("rq_affinity", "2"), ("wbt_lat_usec", "0")] {
            let file = "\(queue)/\(name)"
            guard fileExists(file) else { continue }
            do throws(SystemError) {
                try writeKernelFile(file, value)
            } catch {
                steps.log.warn(
                    "queue_not_tuned", ["device": device, "what": name, "reason": "\(error)"])
            }
        }
    }
}

/// The text of a terminated C string in an array.
func textUpToZero(_ characters: [CChar]) -> String {
    String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
