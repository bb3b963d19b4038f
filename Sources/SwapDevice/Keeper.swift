import CLinuxShims
import CSwapShims
import Fabric
import Glibc
import LinuxSystem
package import Telemetry

/// The process that keeps a swap device alive: it holds the FUSE connection's descriptor and the shared
/// region, and puts a new data process in the place of one that ended; it passes on what that one left it
/// (`Handover`). It does nothing else, so that there is little that could end it.
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
            var held: HeldHandover?
            if let adopting {
                log.info("adopted", ["device": name, "pid": Int(adopting)])
                let socket = HandoverSocket.inherited()
                try watchAdopted(adopting, signals) { _ = socket?.receive(into: &held) }
            }
            let first = adopting == nil
            return try keep(fuse, regionFile, region, signals, &held, first: first)
        } catch {
            log.error("keeper_failed", ["device": name, "reason": "\(error)"])
            return 71
        }
    }

    private func keep(
        _ fuse: borrowing FileDescriptor, _ regionFile: borrowing FileDescriptor,
        _ region: borrowing SharedRegion, _ signals: borrowing SignalEvents,
        _ held: inout HeldHandover?, first: Bool
    ) throws(SystemError) -> Int32 {
        var isFirst = first
        var pause: Int64 = 0
        while true {
            region.deviceState = .starting
            let ends = try makeMessagePair()
            let ours = HandoverSocket(owning: ends.0)
            let theirs = FileDescriptor(owning: ends.1)
            if let held { handOver(held, ours) }
            var descriptors = [
                (ours: fuse.rawValue, theirs: SwapDescriptor.fuse),
                (ours: regionFile.rawValue, theirs: SwapDescriptor.region),
                (ours: theirs.rawValue, theirs: SwapDescriptor.handover),
            ]
            if isFirst { descriptors.append((SwapDescriptor.ready, SwapDescriptor.ready)) }
            let startedAt = monotonicNow()
            let child = try ChildProcess(
                executable, [executable] + dataArguments + (isFirst ? ["--first"] : []),
                descriptors: descriptors)
            // Ours must be the only one of its kind: else the end of the data process is not seen in it.
            _ = consume theirs
            if isFirst { close(SwapDescriptor.ready) }
            isFirst = false
            let end = try wait(for: child, signals, ours, &held)
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

    private func handOver(_ held: HeldHandover, _ socket: borrowing HandoverSocket) {
        do throws(SystemError) {
            try socket.send(held.value)
        } catch {
            // The successor connects anew.
            log.warn("not_handed_over", ["device": name, "reason": "\(error)"])
        }
    }

    private func wait(
        for child: borrowing ChildProcess, _ signals: borrowing SignalEvents,
        _ socket: borrowing HandoverSocket, _ held: inout HeldHandover?
    ) throws(SystemError) -> ChildEnd {
        var isListening = true
        let poller = try Poller()
        try poller.add(child.endDescriptor, .readable, token: 0)
        try poller.add(signals.descriptor.rawValue, .readable, token: 1)
        try poller.add(socket.descriptor, .readable, token: 2)
        while true {
            try poller.wait(timeoutMilliseconds: -1) { _, _ in }
            let end = try child.wait(timeout: 0)
            // After the look at the child: what it sent before its end is there.
            if isListening, !socket.receive(into: &held) {
                try poller.remove(socket.descriptor)
                isListening = false
            }
            if end != .running { return end }
            while let signal = signals.next() {
                if signal == SIGHUP {
                    log.info("replacing_data_process", ["device": name])
                    try child.signal(SIGKILL)
                } else {
                    log.warn(
                        "signal_ignored", ["device": name, "instead": "farswap detach \(name)"])
                }
            }
        }
    }

    /// Waits for the end of a data process that is not our child; `listen` is called now and then, and after it.
    private func watchAdopted(
        _ pid: Int32, _ signals: borrowing SignalEvents, _ listen: () -> Void
    ) throws(SystemError) {
        defer { listen() }
        let pidfd = fm_pidfd_open(pid)
        guard pidfd >= 0 else { return }
        let process = FileDescriptor(owning: pidfd)
        while try !waitReady(process.rawValue, .readable, timeout: 200_000_000) {
            while let signal = signals.next() {
                if signal == SIGHUP { _ = fm_pidfd_send_signal(process.rawValue, SIGKILL) }
            }
            listen()
        }
    }
}

/// The data process's side: it leaves the keeper what its successor can go on with, and starts a new keeper when
/// the old one is gone.
final class KeeperWatch {
    private let name: String
    private let log: Logger
    private let handover: Handover?
    private var socket: HandoverSocket?
    private var pid: Int32
    private var pidfd: Int32

    /// - Parameters:
    ///   - socket: to the present keeper; nil when that one takes nothing.
    ///   - handover: the fabric's, which outlives this object.
    init(
        region: borrowing SharedRegion, name: String, log: Logger,
        socket: consuming HandoverSocket?, handover: Handover?
    ) {
        self.name = name
        self.log = log
        self.handover = handover
        self.socket = socket
        pid = Int32(truncatingIfNeeded: region[.keeperPid])
        pidfd = fm_pidfd_open(pid)
        handOver()
    }

    private func handOver() {
        guard let handover else { return }
        do throws(SystemError) {
            try socket?.send(handover)
        } catch {
            log.warn("not_handed_over", ["device": name, "reason": "\(error)"])
        }
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
            let ends = try makeMessagePair()
            let ours = HandoverSocket(owning: ends.0)
            let theirs = FileDescriptor(owning: ends.1)
            let keeper = try ChildProcess(
                program,
                [program, "keeper", "--adopt", "\(getpid())", "--name", name, "--"]
                    + arguments.dropFirst(),
                descriptors: [
                    (SwapDescriptor.fuse, SwapDescriptor.fuse),
                    (SwapDescriptor.region, SwapDescriptor.region),
                    (theirs.rawValue, SwapDescriptor.handover),
                ], newSession: true)
            socket = consume ours
            handOver()
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
