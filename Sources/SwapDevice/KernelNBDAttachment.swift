import CLinuxShims
import CSwapShims
import FarMemory
import Glibc
import LinuxSystem
package import Telemetry

/// The frontend of kernels that have nbd.ko: the kernel speaks NBD itself, no process moves pages.
package struct KernelNBDAttachment {
    private let steps: AttachSteps

    package init(directory: DeviceDirectory, log: Logger) {
        steps = AttachSteps(directory: directory, log: log)
    }

    /// Whether this kernel and this user can have it, in words that say what to do.
    package static func check() throws(SwapDeviceError) {
        guard runsAsRoot() else { throw .notRoot }
        guard KernelNBD.isAvailable else {
            throw .missingKernelFeature(
                "this kernel has no nbd; load it (modprobe nbd) or use --frontend fuse")
        }
    }

    /// Attaches; on any failure all that was done is undone. Returns the block device's path.
    package func attach(_ request: AttachRequest) throws(SwapDeviceError) -> String {
        try Self.check()
        return try steps.run(request, frontend: "nbd") { record in
            record.keeperCommand = [request.executable] + request.dataArguments
            let answer = try start(&record, [])
            guard answer.count == 2, let index = Int32(answer[0]) else {
                throw SwapDeviceError.startFailed(
                    status: 70, reason: "the keeper gave no device; see its log")
            }
            record.device = "/dev/nbd\(index)"
            // What another keeper of this device would have to know.
            if answer[1] != "0" { record.keeperCommand += ["--epoch", answer[1]] }
            try steps.directory.save(record)
            let device = try FileDescriptor.open(record.device, O_RDWR)
            try writeSwapHeader(to: device, size: request.size, label: "farmem-\(request.name)")
            guard unsafe fm_swapon(record.device, request.priority, true) == 0 else {
                throw SystemError.last("swapon \(record.device)")
            }
            return record.device
        }
    }

    /// Starts a keeper in the place of one that is gone.
    func replaceKeeper(_ record: inout DeviceRecord) throws {
        guard let index = KernelNBD.index(record.device) else {
            throw SwapDeviceError.brokenState(record.device)
        }
        _ = try start(&record, ["--index", "\(index)"])
    }

    /// Starts a keeper and waits until it is ready. Returns what it said.
    private func start(_ record: inout DeviceRecord, _ more: [String]) throws -> [String] {
        guard let program = record.keeperCommand.first else {
            throw SwapDeviceError.brokenState("the state of '\(record.name)'")
        }
        let length = SharedRegion.length(workers: 1, size: record.size)
        let regionFile = try makeMemoryFile(
            "farswap-\(record.name)", size: UInt64(length), fixedSize: true)
        _ = try SharedRegion(
            creatingIn: regionFile, workers: 1, size: record.size, hasFallback: false)
        let (ours, theirs) = try makeSocketPair()
        let answer = FileDescriptor(owning: ours)
        let ready = FileDescriptor(owning: theirs)
        let log = try steps.openLog(record.name)
        let null = try FileDescriptor.open("/dev/null", O_RDWR)
        let keeper = try ChildProcess(
            program, record.keeperCommand + more,
            descriptors: [
                (regionFile.rawValue, SwapDescriptor.region),
                (ready.rawValue, SwapDescriptor.ready), (null.rawValue, 0), (null.rawValue, 1),
                (log.rawValue, 2),
            ], newSession: true)
        record.keeperPid = keeper.pid
        record.keeperStart = processStart(keeper.pid) ?? 0
        try steps.directory.save(record)
        _ = consume ready
        return try steps.awaitReadiness(answer)
    }
}

extension DeviceRemoval {
    /// Removes a device of the kernel frontend, whatever there is of it. Throws while pages are on it.
    func dismantleKernelNBD(_ record: DeviceRecord) throws(SystemError) {
        let device = record.device.isEmpty ? KernelNBD.device(of: record.name) : record.device
        if let device, let index = KernelNBD.index(device), KernelNBD.isOurs(device, record.name) {
            if try swapAreas().contains(where: { $0.path == device }) {
                // Disconnecting first would fail the pages that can still be read.
                try check("swapoff \(device)") { unsafe fm_swapoff(device) }
            }
            if record.keeperIsAlive { forget(device, record) }
            try KernelNBD.disconnect(index)
        }
        // Nothing hangs on it any more, and it does not end by signals that others may send.
        try endKeeper(record, wait: 0)
    }

    /// Gives the export's memory back; a server that is away, or cannot, keeps it.
    private func forget(_ device: String, _ record: DeviceRecord) {
        do throws(SystemError) {
            let file = try FileDescriptor.open(device, O_RDWR)
            try check("discard \(device)") {
                fm_block_discard(file.rawValue, 0, record.size.bytes)
            }
        } catch {
            log.warn("not_discarded", ["device": record.name, "reason": "\(error)"])
        }
    }
}
