import CLinuxShims
import CSwapShims
package import FarMemory
import Glibc
import LinuxSystem
package import Telemetry

/// What attach is asked to do. The URL is the wiring's business: here it is only remembered.
package struct AttachRequest: Sendable {
    package var name: String
    package var url: String
    package var size: ByteCount
    package var workers: Int
    package var priority: Int32
    package var hasFallback: Bool
    /// How long idle processors are to poll before they halt; zero leaves that as it is.
    package var haltPoll = Nanoseconds.zero
    /// Our own program, absolute, and what its data process is to be told after argument 0.
    package var executable: String
    package var dataArguments: [String]

    package init(
        name: String, url: String, size: ByteCount, workers: Int, priority: Int32,
        hasFallback: Bool, executable: String, dataArguments: [String]
    ) {
        self.name = name
        self.url = url
        self.size = size
        self.workers = workers
        self.priority = priority
        self.hasFallback = hasFallback
        self.executable = executable
        self.dataArguments = dataArguments
    }
}

/// The FUSE and loop frontend: any kernel that has the two.
package struct FuseAttachment {
    private let directory: DeviceDirectory
    private let log: Logger

    package init(directory: DeviceDirectory, log: Logger) {
        self.directory = directory
        self.log = log
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
        guard DeviceDirectory.isName(request.name) else { throw .badName(request.name) }
        guard request.size >= SwapLimits.minimumSize else { throw .sizeTooSmall }
        let lock = try directory.lock(request.name)
        defer { _ = lock.rawValue }
        guard !fileExists("\(directory.path(request.name))/state") else {
            throw .nameInUse(request.name)
        }
        var record = DeviceRecord(
            name: request.name, url: request.url, size: request.size, frontend: "fuse")
        record.haltPoll = request.haltPoll
        do {
            try directory.save(record)
            if request.haltPoll > .zero { try HaltPolling().raise(to: request.haltPoll) }
            try start(request, &record)
            return try bind(request, &record)
        } catch {
            undo(record)
            if let error = error as? SwapDeviceError { throw error }
            if let error = error as? SystemError { throw .system(error) }
            throw .brokenState("\(error)")
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
        // Their log outlives this command's terminal.
        let log = try FileDescriptor.open(
            "\(directory.path(request.name))/log", O_WRONLY | O_CREAT | O_APPEND, mode: 0o600)
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
        try waitForData(answer)
    }

    /// The data process says READY=1, or ERROR, its exit status, and why.
    private func waitForData(_ answer: borrowing FileDescriptor) throws {
        let deadline = monotonicNow() + SwapLimits.startDeadline.nanoseconds
        var text: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1024)
        while !text.contains(UInt8(ascii: "\n")) {
            let left = deadline - monotonicNow()
            guard left > 0, try waitReady(answer.rawValue, .readable, timeout: left) else {
                throw SwapDeviceError.startTimedOut
            }
            let got = try unsafe chunk.withUnsafeMutableBytes { unsafe try answer.read(into: $0) }
            if got == 0 { break }
            text.append(contentsOf: chunk[..<got])
        }
        let line = String(decoding: text, as: UTF8.self).split(separator: "\n").first ?? ""
        if line == "READY=1" { return }
        let words = line.split(separator: " ", maxSplits: 2)
        guard words.count == 3, words[0] == "ERROR", let status = Int32(words[1]) else {
            throw SwapDeviceError.startFailed(
                status: 71, reason: "the data process ended before it was ready; see its log")
        }
        throw SwapDeviceError.startFailed(status: status, reason: String(words[2]))
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
                log.warn("queue_not_tuned", ["device": device, "what": name, "reason": "\(error)"])
            }
        }
    }

    private func undo(_ record: DeviceRecord) {
        do {
            try DeviceRemoval(directory: directory, log: log).dismantle(record)
        } catch {
            log.error("undo_failed", ["device": record.name, "reason": "\(error)"])
        }
    }
}

/// The text of a terminated C string in an array.
func textUpToZero(_ characters: [CChar]) -> String {
    String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
