import CLinuxShims
import CSwapShims
import Glibc
import LinuxSystem
package import Telemetry

/// The process that keeps a swap device alive: it holds the FUSE connection's descriptor and the shared
/// region, and puts a new data process in the place of one that ended. It does nothing else, so that
/// there is little that could end it.
///
/// SIGTERM is ignored: ending the keeper would endanger the pages. `farswap detach` takes a device
/// away. SIGHUP replaces the data process (an upgrade).
package struct Keeper {
    /// A data process that lived shorter than this, nanoseconds, did not serve.
    private static let shortestLife: Int64 = 10_000_000

    private let executable: String
    private let dataArguments: [String]
    private let name: String
    private let log: Logger

    /// - Parameters:
    ///   - executable: the program to start data processes from.
    ///   - dataArguments: its arguments from argument 1 on.
    package init(executable: String, dataArguments: [String], name: String, log: Logger) {
        self.executable = executable
        self.dataArguments = dataArguments
        self.name = name
        self.log = log
    }

    /// Runs until the device is detached. `adopting` is the pid of a data process that lost its keeper.
    package func run(adopting: Int32?) -> Int32 {
        do {
            let signals = try SignalEvents([SIGTERM, SIGINT, SIGHUP])
            let fuse = FileDescriptor(owning: SwapDescriptor.fuse)
            let regionFile = FileDescriptor(owning: SwapDescriptor.region)
            _ = try hardenSwapProcess()
            let region = try SharedRegion(openingIn: regionFile, populate: true)
            region[.keeperPid] = UInt64(getpid())
            if let adopting {
                log.info("adopted", ["device": name, "pid": Int(adopting)])
                try watchAdopted(adopting, signals)
            }
            let first = adopting == nil
            return try keep(fuse, regionFile, region, signals, first: first)
        } catch {
            log.error("keeper_failed", ["device": name, "reason": "\(error)"])
            return 71
        }
    }

    private func keep(
        _ fuse: borrowing FileDescriptor, _ regionFile: borrowing FileDescriptor,
        _ region: borrowing SharedRegion, _ signals: borrowing SignalEvents, first: Bool
    ) throws(SystemError) -> Int32 {
        var isFirst = first
        var pause: Int64 = 0
        while true {
            region.deviceState = .starting
            var descriptors = [
                (ours: fuse.rawValue, theirs: SwapDescriptor.fuse),
                (ours: regionFile.rawValue, theirs: SwapDescriptor.region),
            ]
            if isFirst { descriptors.append((SwapDescriptor.ready, SwapDescriptor.ready)) }
            let startedAt = monotonicNow()
            let child = try ChildProcess(
                executable, [executable] + dataArguments + (isFirst ? ["--first"] : []),
                descriptors: descriptors)
            if isFirst { close(SwapDescriptor.ready) }
            isFirst = false
            let end = try wait(for: child, signals)
            switch end {
            case .exited(DataProcessExit.detached.rawValue): return 0
            case .exited(DataProcessExit.neverStarted.rawValue):
                if first { return 0 }
            default: break
            }
            log.warn("data_process_ended", ["device": name, "end": "\(end)"])
            // At once when it had served; more and more slowly when it cannot even start, or fails at
            // the first request each time.
            let served =
                region.deviceState != .starting && monotonicNow() - startedAt > Self.shortestLife
            pause = served ? 0 : min(max(pause * 2, 1_000_000), 500_000_000)
            sleepNanoseconds(pause)
        }
    }

    private func wait(
        for child: borrowing ChildProcess, _ signals: borrowing SignalEvents
    ) throws(SystemError) -> ChildEnd {
        let poller = try Poller()
        try poller.add(child.endDescriptor, .readable, token: 0)
        try poller.add(signals.descriptor.rawValue, .readable, token: 1)
        while true {
            try poller.wait(timeoutMilliseconds: -1) { _, _ in }
            while let signal = signals.next() {
                if signal == SIGHUP {
                    log.info("replacing_data_process", ["device": name])
                    try child.signal(SIGKILL)
                } else {
                    log.warn(
                        "signal_ignored", ["device": name, "instead": "farswap detach \(name)"])
                }
            }
            let end = try child.wait(timeout: 0)
            if end != .running { return end }
        }
    }

    /// Waits for the end of a data process that is not our child.
    private func watchAdopted(
        _ pid: Int32, _ signals: borrowing SignalEvents
    ) throws(SystemError) {
        let pidfd = fm_pidfd_open(pid)
        guard pidfd >= 0 else { return }
        let process = FileDescriptor(owning: pidfd)
        while try !waitReady(process.rawValue, .readable, timeout: 200_000_000) {
            while let signal = signals.next() {
                if signal == SIGHUP { _ = fm_pidfd_send_signal(process.rawValue, SIGKILL) }
            }
        }
    }
}

/// The data process's side: it starts a new keeper when the old one is gone.
final class KeeperWatch {
    private let name: String
    private let log: Logger
    private var pid: Int32
    private var pidfd: Int32

    init(region: borrowing SharedRegion, name: String, log: Logger) {
        self.name = name
        self.log = log
        pid = Int32(truncatingIfNeeded: region[.keeperPid])
        pidfd = fm_pidfd_open(pid)
    }

    deinit { if pidfd >= 0 { close(pidfd) } }

    func look(_ region: borrowing SharedRegion) {
        let present = Int32(truncatingIfNeeded: region[.keeperPid])
        if present != pid {
            if pidfd >= 0 { close(pidfd) }
            pid = present
            pidfd = fm_pidfd_open(pid)
            return
        }
        guard pidfd < 0 || fm_poll_one(pidfd, 1, 0) > 0 else { return }
        // Argument 0 is our own program; what follows "data" is what a keeper needs to start another.
        let arguments = CommandLine.arguments.filter { $0 != "--first" }
        guard let program = arguments.first, arguments.count > 1 else { return }
        do throws(SystemError) {
            let keeper = try ChildProcess(
                program,
                [program, "keeper", "--adopt", "\(getpid())", "--name", name, "--"]
                    + arguments.dropFirst(),
                descriptors: [
                    (SwapDescriptor.fuse, SwapDescriptor.fuse),
                    (SwapDescriptor.region, SwapDescriptor.region),
                ], newSession: true)
            log.warn("keeper_replaced", ["device": name, "pid": Int(keeper.pid)])
            region[.keeperPid] = UInt64(keeper.pid)
            pid = keeper.pid
            if pidfd >= 0 { close(pidfd) }
            pidfd = fm_pidfd_open(pid)
        } catch {
            log.error("keeper_not_replaced", ["device": name, "reason": "\(error)"])
        }
    }
}
