package import FarMemory
import Glibc
import LinuxSystem
import Telemetry

/// What attach is asked to do. The URL is the wiring's business: here it is only remembered.
package struct AttachRequest: Sendable {
    package var name: String
    package var url: String
    package var size: ByteCount
    package var workers: Int
    package var priority: Int32
    package var hasFallback: Bool
    /// Settings of the machine that are to be at least so high while the device is there.
    package var raised: [HostSetting: Int64] = [:]
    /// Whether the slots that the kernel frees are wanted back at once, where it keeps them.
    package var flushesSlots = false
    /// Our own program, absolute, and what its data process (or the kernel frontend's keeper) is to be told
    /// after argument 0.
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

/// What all frontends have in common: one device of a name, one command at a time, nothing left of a failure.
struct AttachSteps {
    let directory: DeviceDirectory
    let log: Logger

    /// Runs `body` with a fresh record; undoes what the record says when it fails.
    func run(
        _ request: AttachRequest, frontend: String, _ body: (inout DeviceRecord) throws -> String
    ) throws(SwapDeviceError) -> String {
        guard DeviceDirectory.isName(request.name) else { throw .badName(request.name) }
        guard request.size >= SwapLimits.minimumSize else { throw .sizeTooSmall }
        let lock = try directory.lock(request.name)
        defer { _ = lock.rawValue }
        guard !fileExists("\(directory.path(request.name))/state") else {
            throw .nameInUse(request.name)
        }
        var record = DeviceRecord(
            name: request.name, url: request.url, size: request.size, frontend: frontend)
        record.raised = request.raised
        record.flushesSlots = request.flushesSlots
        do {
            try directory.save(record)
            for (setting, value) in request.raised { try RaisedSetting(setting).raise(to: value) }
            let device = try body(&record)
            directory.startFlusher(request.executable, log)
            return device
        } catch {
            undo(record)
            throw SwapDeviceError(error)
        }
    }

    private func undo(_ record: DeviceRecord) {
        do {
            try DeviceRemoval(directory: directory, log: log).dismantle(record)
        } catch {
            log.error("undo_failed", ["device": record.name, "reason": "\(error)"])
        }
    }

    /// Descriptors that every process behind a device gets: no terminal, and a log that outlives this one's.
    func openLog(_ name: String) throws(SystemError) -> FileDescriptor {
        try FileDescriptor.open(
            "\(directory.path(name))/log", O_WRONLY | O_CREAT | O_APPEND, mode: 0o600)
    }

    /// Waits for the first line of a process that was started: READY=1 and more words, which are returned, or
    /// ERROR, its exit status, and why.
    func awaitReadiness(_ answer: borrowing FileDescriptor) throws -> [String] {
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
        if line.hasPrefix("READY=1") {
            return line.split(separator: " ").dropFirst().map(String.init)
        }
        let words = line.split(separator: " ", maxSplits: 2)
        guard words.count == 3, words[0] == "ERROR", let status = Int32(words[1]) else {
            throw SwapDeviceError.startFailed(
                status: 71, reason: "the data process ended before it was ready; see its log")
        }
        throw SwapDeviceError.startFailed(status: status, reason: String(words[2]))
    }
}
