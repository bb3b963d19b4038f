package import FarMemory
import Glibc
package import LinuxSystem
package import Telemetry

/// An export on a connected socket in the transmission phase, for the kernel.
package struct KernelNBDSocket: ~Copyable {
    let descriptor: FileDescriptor
    let size: ByteCount
    let flags: UInt16
    let epoch: UInt64?
    /// Whether the server has ended the older connection of the same number.
    let isFenced: Bool

    /// - Parameters:
    ///   - flags: NBD transmission flags, as the server announced them.
    ///   - epoch: the lease's number, where the server has one.
    package init(
        descriptor: consuming FileDescriptor, size: ByteCount, flags: UInt16, epoch: UInt64?,
        isFenced: Bool
    ) {
        self.descriptor = descriptor
        self.size = size
        self.flags = flags
        self.epoch = epoch
        self.isFenced = isFenced
    }

    consuming func release() -> Int32 { descriptor.release() }
}

/// Makes connection `number` (from 0) of a device, before a deadline on the monotonic clock. The wiring's.
package typealias KernelNBDConnect =
    (_ number: Int, _ deadline: Int64) throws(ConnectFailure) -> KernelNBDSocket

/// What a keeper of the kernel frontend is told.
package struct KernelNBDOptions: Sendable {
    package var name: String
    package var size: ByteCount
    /// More than one only where the server promises that they see each other's writes.
    package var connections: Int
    /// How long requests wait for a new connection.
    package var deadTimeout: Nanoseconds
    /// A device that lost its keeper, and the lease that it had.
    package var takeOver: Int32?
    package var epoch: UInt64?

    package init(
        name: String, size: ByteCount, connections: Int, deadTimeout: Nanoseconds,
        takeOver: Int32?, epoch: UInt64?
    ) {
        self.name = name
        self.size = size
        self.connections = connections
        self.deadTimeout = deadTimeout
        self.takeOver = takeOver
        self.epoch = epoch
    }
}

/// The process behind a device of the kernel's NBD client. The kernel moves the pages; this process only makes
/// new connections for those that died, while the kernel holds the requests back.
///
/// All connections of a device are replaced together: a notice does not say which one died, and a server with
/// fences then has ended every older one before the kernel sends anything again.
package final class KernelNBDKeeper {
    private static let retry: ClosedRange<Int64> = 5_000_000...500_000_000
    /// One round of connecting.
    private static let attemptMax: Int64 = 3_000_000_000
    private static let firstAttemptMax: Int64 = 10_000_000_000
    /// How long the kernel may take to see that the server has closed a connection.
    private static let noticeMax: Int64 = 500_000_000
    /// Between two looks whether the device is still ours.
    private static let lookMilliseconds: Int32 = 2000

    private let options: KernelNBDOptions
    private let log: Logger
    private let connect: KernelNBDConnect
    private var epoch: UInt64?
    private var connections: Int
    private var flags: UInt16 = 0
    /// Links that died and were not replaced.
    private var deaths = 0
    private var isOutage = false
    /// Whether the server ends older connections when it is told to.
    private var isFenced = false

    package init(
        options: KernelNBDOptions, log: Logger, connect: @escaping KernelNBDConnect
    ) {
        self.options = options
        self.log = log
        self.connect = connect
        epoch = options.epoch
        connections = options.connections
    }

    /// Runs until the device is taken away. Tells the ready descriptor `READY=1 INDEX EPOCH`, or ERROR and why.
    package func run() -> Int32 {
        ignoreBrokenPipes()
        let ready = FileDescriptor(owning: SwapDescriptor.ready)
        do {
            let signals = try SignalEvents([SIGTERM, SIGINT, SIGHUP])
            let regionFile = FileDescriptor(owning: SwapDescriptor.region)
            for refused in try hardenSwapProcess() {
                log.warn("hardening_refused", ["device": options.name, "what": refused])
            }
            let region = try SharedRegion(openingIn: regionFile, populate: true)
            region[.keeperPid] = UInt64(getpid())
            // Before the first link, so that no death is missed.
            let monitor = try KernelNBDMonitor()
            let index = try options.takeOver ?? start()
            if options.takeOver != nil { deaths = 1 }
            region.deviceState = deaths == 0 ? .attached : .reconnecting
            try ready.writeAll("READY=1 \(index) \(epoch ?? 0)\n")
            log.info("keeping", ["device": options.name, "path": "/dev/nbd\(index)"])
            try keep(index, region, monitor, signals)
            return 0
        } catch let failure as ConnectFailure {
            try? ready.writeAll("ERROR \(failure.status) \(failure.reason)\n")
            return DataProcessExit.neverStarted.rawValue
        } catch {
            log.error("keeper_failed", ["device": options.name, "reason": "\(error)"])
            try? ready.writeAll("ERROR 71 \(error)\n")
            return 71
        }
    }

    private func setup() -> KernelNBDSetup {
        KernelNBDSetup(
            size: options.size, flags: flags,
            requestTimeout: min(
                isFenced
                    ? SwapLimits.kernelRequestTimeout : SwapLimits.kernelRequestTimeoutUnfenced,
                options.deadTimeout),
            deadTimeout: options.deadTimeout, backend: KernelNBD.backend(of: options.name))
    }

    private func start() throws -> Int32 {
        let sockets = try connectAll(monotonicNow() + Self.firstAttemptMax)
        return try KernelNBD.connect(setup(), sockets.numbers)
    }

    /// As many connections as there shall be, each of the same lease.
    private func connectAll(_ deadline: Int64) throws(ConnectFailure) -> Sockets {
        let sockets = Sockets()
        var number = 0
        while number < connections {
            let socket = try connect(number, deadline)
            if flags == 0 {
                flags = socket.flags
                if epoch == nil { epoch = socket.epoch }
                // CAN_MULTI_CONN (NBD protocol, transmission flags): bit 8.
                if flags & 1 << 8 == 0 { connections = 1 }
            }
            guard socket.epoch == epoch else {
                throw ConnectFailure(
                    status: Self.lost,
                    reason: "another lease has taken the place of this device's; its pages are lost"
                )
            }
            isFenced = socket.isFenced
            sockets.numbers.append(socket.release())
            number += 1
        }
        return sockets
    }

    private static let lost: Int32 = 1

    private func keep(
        _ index: Int32, _ region: borrowing SharedRegion, _ monitor: borrowing KernelNBDMonitor,
        _ signals: borrowing SignalEvents
    ) throws(SystemError) {
        let poller = try Poller()
        try poller.add(monitor.descriptor.rawValue, .readable, token: 0)
        try poller.add(signals.descriptor.rawValue, .readable, token: 1)
        var pause = Self.retry.lowerBound
        var isTakeOver = options.takeOver != nil
        while true {
            let timeout =
                deaths == 0 ? Self.lookMilliseconds : Int32((pause + 999_999) / 1_000_000)
            if !isTakeOver { try poller.wait(timeoutMilliseconds: timeout) { _, _ in } }
            deaths += monitor.deaths(of: index)
            while signals.next() != nil {
                log.warn(
                    "signal_ignored",
                    ["device": options.name, "instead": "farswap detach \(options.name)"])
            }
            guard KernelNBD.isOurs("/dev/nbd\(index)", options.name) else {
                log.info("device_gone", ["device": options.name])
                return
            }
            guard deaths > 0 else { continue }
            let failure = replaceAll(index, monitor, waitForDeaths: isTakeOver)
            isTakeOver = false
            note(failure, region)
            pause = failure == nil ? Self.retry.lowerBound : min(pause * 2, Self.retry.upperBound)
        }
    }

    /// Makes new connections and gives them to the kernel.
    private func replaceAll(
        _ index: Int32, _ monitor: borrowing KernelNBDMonitor, waitForDeaths: Bool
    ) -> ConnectFailure? {
        do {
            let sockets = try connectAll(monotonicNow() + Self.attemptMax)
            // The server has closed what was left of the older connections. A place is free for a new one only
            // when the kernel has noticed.
            if isFenced && (waitForDeaths || connections > 1) {
                let deadline = monotonicNow() + Self.noticeMax
                var seen = waitForDeaths ? 0 : deaths
                while seen < connections, monotonicNow() < deadline {
                    sleepNanoseconds(1_000_000)
                    seen += monitor.deaths(of: index)
                }
            }
            deaths = 0
            try KernelNBD.replaceDead(index, setup(), sockets.numbers)
            return nil
        } catch let failure as ConnectFailure {
            return failure
        } catch {
            deaths = max(deaths, 1)
            return ConnectFailure(status: 71, reason: "\(error)")
        }
    }

    /// Says once that the server is away, and once that it is back.
    private func note(_ failure: ConnectFailure?, _ region: borrowing SharedRegion) {
        if let failure {
            region.deviceState = failure.status == Self.lost ? .lost : .reconnecting
            if !isOutage {
                log.warn(
                    "reconnecting", ["device": options.name, "reason": failure.reason])
            }
        } else {
            region.deviceState = .attached
            region[.fabricReconnects] += 1
            log.info("reconnected", ["device": options.name])
        }
        isOutage = failure != nil
    }
}

/// Sockets that the kernel is about to get; ours are closed in any case.
private final class Sockets {
    var numbers: [Int32] = []

    deinit { for number in numbers { close(number) } }
}
