import CLinuxShims
import CSwapShims
package import Fabric
import FarMemory
import Glibc
import LinuxSystem
import Synchronization
package import Telemetry

/// Well-known descriptors of the keeper and of each data process.
package enum SwapDescriptor {
    package static let fuse: Int32 = 3
    package static let region: Int32 = 4
    package static let ready: Int32 = 5
    /// A `HandoverSocket`.
    package static let handover: Int32 = 6
}

/// How a data process ends, as its keeper understands it.
package enum DataProcessExit: Int32 {
    /// The device was detached: the keeper ends too.
    case detached = 0
    /// The first start failed: the keeper ends too, the reason went to the ready descriptor.
    case neverStarted = 20
    /// The connection broke in a way that a successor may do better with.
    case failed = 21
}

/// What a data process is told.
package struct DataProcessOptions: Sendable {
    package var name: String
    package var policy: PathPolicy
    /// Nanoseconds to poll before sleeping.
    package var spin: Int64
    package var fallbackPath: String?

    package init(name: String, policy: PathPolicy, spin: Int64, fallbackPath: String?) {
        self.name = name
        self.policy = policy
        self.spin = spin
        self.fallbackPath = fallbackPath
    }
}

/// Why a fabric could not be connected: an exit status of the command line and one line.
package struct ConnectFailure: Error, Equatable, Sendable {
    package var status: Int32
    package var reason: String

    package init(status: Int32, reason: String) {
        self.status = status
        self.reason = reason
    }
}

/// Live time for `PagePath`.
package final class SystemClock: PathClock {
    package init() {}
    package func now() -> Int64 { monotonicNow() }
    package func sleep(until moment: Int64) { sleepNanoseconds(moment - monotonicNow()) }
}

/// The process that serves a device's requests. Everything it must not lose is in the shared region.
package struct DataProcess {
    private let options: DataProcessOptions
    private let log: Logger
    private let connect: (Handover?) throws(ConnectFailure) -> any Fabric

    /// - Parameter connect: makes the fabric, of what a predecessor left if there is something.
    package init(
        options: DataProcessOptions, log: Logger,
        connect: @escaping (Handover?) throws(ConnectFailure) -> any Fabric
    ) {
        self.options = options
        self.log = log
        self.connect = connect
    }

    /// Serves until the device is gone. `isFirst`: someone waits on the ready descriptor.
    package func run(isFirst: Bool) -> Int32 {
        ignoreBrokenPipes()
        let fuse = FileDescriptor(owning: SwapDescriptor.fuse)
        let regionFile = FileDescriptor(owning: SwapDescriptor.region)
        let keeper = HandoverSocket.inherited()
        do {
            for refused in try hardenSwapProcess() where isFirst {
                log.warn("hardening_refused", ["device": options.name, "what": refused])
            }
            let region = try SharedRegion(openingIn: regionFile, populate: true)
            region[.dataPid] = UInt64(getpid())
            region[.dataStarts] += 1
            var left: HeldHandover?
            _ = keeper?.receive(into: &left)
            let fabric = try connectFabric(isFirst: isFirst, region, left?.value)
            // The fabric has descriptors of its own.
            left = nil
            let guardian = KeeperWatch(
                region: region, name: options.name, log: log, socket: keeper,
                handover: fabric.handover)
            let code = try serve(fuse, region, fabric, guardian, isFirst: isFirst)
            return code.rawValue
        } catch let failure as ConnectFailure {
            report(isFirst, "ERROR \(failure.status) \(failure.reason)\n")
            return DataProcessExit.neverStarted.rawValue
        } catch {
            log.error("data_process_failed", ["device": options.name, "reason": "\(error)"])
            report(isFirst, "ERROR 71 \(error)\n")
            return (isFirst ? DataProcessExit.neverStarted : .failed).rawValue
        }
    }

    private func report(_ isFirst: Bool, _ line: String) {
        guard isFirst else { return }
        let ready = FileDescriptor(owning: SwapDescriptor.ready)
        do throws(SystemError) {
            try ready.writeAll(line)
        } catch {
            log.warn("nobody_waits", ["device": options.name])
        }
    }

    /// A successor has no choice but to go on trying: the kernel waits.
    private func connectFabric(
        isFirst: Bool, _ region: borrowing SharedRegion, _ left: Handover?
    ) throws(ConnectFailure) -> any Fabric {
        var wait: Int64 = 1_000_000
        var reason = ""
        while true {
            do throws(ConnectFailure) {
                return try connect(left)
            } catch {
                if isFirst { throw error }
                region.deviceState = .reconnecting
                if error.reason != reason {
                    log.warn("connect_failed", ["device": options.name, "reason": error.reason])
                }
                reason = error.reason
            }
            sleepNanoseconds(wait)
            wait = min(wait * 2, 100_000_000)
        }
    }

    private func serve(
        _ fuse: borrowing FileDescriptor, _ region: borrowing SharedRegion, _ fabric: any Fabric,
        _ guardian: KeeperWatch, isFirst: Bool
    ) throws -> DataProcessExit {
        try fuse.setNonBlocking(options.spin > 0)
        var fallback: FallbackFile?
        if let path = options.fallbackPath {
            do throws(SystemError) {
                fallback = try FallbackFile(path: path, size: region.size)
            } catch {
                throw ConnectFailure(
                    status: 71, reason: "\(SwapDeviceError.fallbackUnusable(path: path, error))")
            }
        }
        let ends = Ends()
        var threads: [WorkerThread] = []
        // All channels are made before any is used: a fabric then knows whom its predecessor may have left.
        let workers = try (0..<region.workers).map {
            WorkerBox(try makeWorker($0, fuse, region, fabric, fallback))
        }
        for (index, boxed) in workers.enumerated() {
            threads.append(
                try WorkerThread("farswap-\(index)") {
                    _ = fm_set_io_flusher()
                    ends.record(boxed.worker.finishPredecessorsRequest() ?? boxed.worker.run())
                })
        }
        region.deviceState = fabric.state == .connected ? .attached : .reconnecting
        report(isFirst, "READY=1\n")
        log.info(
            "serving",
            ["device": options.name, "workers": region.workers, "pid": Int(getpid())])
        let end = try watch(region, fabric, guardian, ends, workers: threads.count)
        if case .failed(let code) = end {
            // At once, without the other workers: they may sleep for ever, and the successor goes on where
            // they are, as after a kill.
            log.error("fuse_failed", ["device": options.name, "reason": errnoText(code)])
            return .failed
        }
        for thread in threads { thread.join() }
        log.info("unmounted", ["device": options.name])
        fabric.close(releaseLease: true)
        return .detached
    }

    private func makeWorker(
        _ index: Int, _ fuse: borrowing FileDescriptor, _ region: borrowing SharedRegion,
        _ fabric: any Fabric, _ fallback: FallbackFile?
    ) throws -> SwapWorker {
        let counters = unsafe region.counters(worker: index)
        let path = unsafe PagePath(
            channel: try fabric.makeChannel(), fallback: fallback, locations: region.locations,
            counters: counters, clock: SystemClock(), policy: options.policy)
        return unsafe try SwapWorker(
            fuse: fuse.rawValue, slot: region.slot(worker: index), path: path,
            counters: counters, sizeBytes: region.size.bytes, spin: options.spin)
    }

    /// Copies the fabric's state to the shared region and keeps a keeper alive, until the workers end.
    private func watch(
        _ region: borrowing SharedRegion, _ fabric: any Fabric, _ guardian: KeeperWatch,
        _ ends: Ends, workers: Int
    ) throws(SystemError) -> WorkerEnd {
        while true {
            if let end = ends.last(of: workers) { return end }
            switch fabric.state {
            case .connected: region.deviceState = .attached
            case .reconnecting: region.deviceState = .reconnecting
            case .lost, .closed: region.deviceState = .lost
            }
            region.publish(fabric.counters)
            guardian.look(region)
            let ended = try waitReady(
                ends.signal.descriptor.rawValue, .readable,
                timeout: fabric.state == .reconnecting ? 100_000_000 : 500_000_000)
            if ended { ends.signal.drain() }
        }
    }
}

/// How the workers ended; written by them, read by the main thread.
private final class Ends: Sendable {
    let signal: EventSignal
    private let state = Mutex<(count: Int, failure: Int32)>((0, 0))

    init() {
        do throws(SystemError) {
            signal = try EventSignal()
        } catch {
            preconditionFailure("no eventfd at start: \(error)")
        }
    }

    func record(_ end: WorkerEnd) {
        state.withLock {
            $0.count += 1
            if case .failed(let code) = end { $0.failure = code }
        }
        signal.signal()
    }

    func last(of workers: Int) -> WorkerEnd? {
        state.withLock {
            if $0.failure != 0 { return .failed($0.failure) }
            return $0.count == workers ? .unmounted : nil
        }
    }
}

/// Hands a worker to its thread.
private final class WorkerBox: @unchecked Sendable {
    // SAFETY: made on the main thread, used by exactly one worker thread afterwards.
    let worker: SwapWorker
    init(_ worker: SwapWorker) { self.worker = worker }
}
