import CommandLineKit
import FarMemory
import Glibc
import HTTPEndpoint
import LinuxSystem
import MemoryPool
import MemoryServer
import PoolProtocol
import Telemetry

let serveCommand = Command(
    name: "serve", summary: "lend memory, in the foreground",
    discussion: """
        Lends at most --capacity. With --pool the pages lie in files on tmpfs and outlive this process: killed and \
        started again on the same directory it serves every lease as before. Without it the pages end with the process.

        SIGTERM and SIGINT end it after the requests in progress; leases stay in the pool.
        """,
    options: serveOptions,
    examples: [
        ("memserver serve --capacity 4GiB --pool /dev/shm/farmem", "Lend 4 GiB to this machine."),
        (
            "memserver serve --capacity 4GiB --nbd tcp://127.0.0.1:10809 --auto-lease 1GiB",
            "Lend to any NBD client."
        ),
    ]
) { invocation in
    let settings = try ServeSettings(invocation)
    let signals = try SignalEvents([SIGTERM, SIGINT])
    ignoreBrokenPipes()
    try surviveTruncatedMappings()
    let log = Logger(level: LogLevel(word: invocation.string("log-level")) ?? .info)
    let service = try Service(settings, log)
    let readiness = invocation.readiness()
    readiness.announceReady()
    while signals.next() == nil {
        let timeout = service.housekeep()
        _ = try waitReady(signals.descriptor.rawValue, .readable, timeout: timeout)
    }
    readiness.announceStopping()
    service.stop()
    return .done
}

/// The parts of a running server.
final class Service {
    let pool: MemoryPool
    private let log: Logger
    private let shm: ShmServer
    private let nbd: [NBDServer]
    private let rdma: RDMAServer?
    private let admin: HTTPServer
    private var threads: [WorkerThread] = []
    /// Pages of an earlier process are locked in memory again in the background.
    private let isStopping = Flag()

    init(_ settings: ServeSettings, _ log: Logger) throws {
        self.log = log
        let registry = MetricRegistry()
        let pool = try openPool(settings.pool)
        self.pool = pool
        for path in Self.socketPaths(settings) { try Self.makeParent(of: path) }
        shm = try Self.listening("--shm \(settings.shmPath)") {
            try ShmServer(
                path: settings.shmPath, pool: pool, keys: settings.keys,
                autoLease: settings.autoLease, limits: ShmLimits(), counters: ShmCounters(registry),
                log: log)
        }
        let exports = PoolExports(pool: pool, autoLease: settings.autoLease)
        let counters = NBDCounters(registry)
        let security = try settings.makeSecurity()
        nbd = try settings.nbd.map { endpoint in
            try Self.listening("--nbd \(endpoint)") {
                try NBDServer(
                    endpoint, exports: exports, security: security, limits: NBDLimits(),
                    counters: counters, log: log)
            }
        }
        rdma = try settings.rdma.map { address in
            try Self.listening("--rdma \(address)") {
                try RDMAServer(
                    host: address.host, port: address.port, pool: pool, keys: settings.keys,
                    autoLease: settings.autoLease, limits: RDMALimits(),
                    counters: RDMACounters(registry), log: log)
            }
        }
        let handler = AdminHandler(
            pool: pool, registry: registry, keyNames: settings.keys?.map(\.name),
            isMutable: settings.admin.isUnix,
            listeners: ["shm:\(settings.shmPath)"] + nbd.map { "nbd:\($0.endpoint)" }
                + (rdma.map { ["rdma:\($0.endpoint)"] } ?? []))
        admin = try Self.listening("--admin \(settings.admin)") {
            try HTTPServer(listen: settings.admin) { handler.answer($0) }
        }
        try startThreads()
        announce(settings)
    }

    private static func socketPaths(_ settings: ServeSettings) -> [String] {
        [settings.shmPath]
            + (settings.nbd + [settings.admin]).compactMap {
                if case .unix(let path) = $0 { path } else { nil }
            }
    }

    private static func makeParent(of path: String) throws {
        guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { return }
        try makeDirectories(String(path[..<slash]))
    }

    private static func listening<T>(_ option: String, _ body: () throws -> T) throws -> T {
        do {
            return try body()
        } catch let error as SystemError {
            if error.code == EADDRINUSE {
                throw CommandFailure(.tryAgain, "\(option): somebody serves there already")
            }
            if error.code == ENODEV {
                throw CommandFailure(
                    .systemError,
                    "\(option): no RDMA device has that address; see rdma link and ibv_devices")
            }
            throw CommandFailure(ExitStatus(error), "\(option): \(error)")
        }
    }

    private func startThreads() throws {
        let shm = shm
        threads.append(try WorkerThread("shm-accept") { shm.run() })
        for server in nbd { threads.append(try WorkerThread("nbd-accept") { server.run() }) }
        if let rdma { threads.append(try WorkerThread("rdma-accept") { rdma.run() }) }
        let (pool, flag) = (pool, isStopping)
        threads.append(
            try WorkerThread("pool-lock") {
                for status in pool.leases() { status.lease.lockGranted { flag.isSet } }
            })
    }

    private func announce(_ settings: ServeSettings) {
        log.info(
            "started",
            [
                "capacity": pool.options.capacity, "slab": pool.slab,
                "pool": settings.pool.directory ?? "-", "shm": settings.shmPath,
                "admin": settings.admin.description, "granted": pool.grantedBytes,
            ])
        if settings.pool.directory == nil {
            log.warn(
                "pool_ends_with_process", ["do": "give --pool DIR to keep pages over a restart"])
        }
        if settings.keys == nil {
            log.warn("no_keys", ["do": "give --auth-file to tell clients apart"])
        }
        harden()
        let canLock = MemoryPool.canLock()
        if canLock {
            log.info("pool_memory_locked", ["by": "mlock2(MLOCK_ONFAULT) of each granted slab"])
        } else {
            log.warn(
                "pool_memory_not_locked",
                [
                    "do":
                        "raise RLIMIT_MEMLOCK or mount the tmpfs with noswap; its pages may be swapped"
                ])
        }
    }

    /// Swap of this very host may depend on this process: one that waits for its own pages to come back from the swap device that it
    /// serves waits for ever.
    private func harden() {
        do throws(SystemError) {
            try lockOwnMemory()
        } catch {
            log.warn(
                "memory_not_locked",
                [
                    "reason": error.description,
                    "do": "raise RLIMIT_MEMLOCK, or do not swap to this server on its own host",
                ])
        }
        for refused in protectFromMemoryPressure() {
            log.info("hardening_refused", ["what": refused])
        }
    }

    /// Ends leases whose grace is over and checks clients' files.
    /// - Returns: how long to wait for the next time, nanoseconds.
    func housekeep() -> Int64 {
        shm.auditOpenLeases()
        do throws(PoolError) {
            for name in try pool.expire(now: monotonicNow()) {
                log.info("lease_expired", ["lease": name])
            }
        } catch {
            log.error("lease_expiry_failed", ["reason": error.description])
        }
        return max(100_000_000, min(10_000_000_000, pool.options.grace.nanoseconds / 4))
    }

    /// Ends the listeners; what is in flight is answered.
    func stop() {
        isStopping.set()
        admin.stop(drain: .seconds(1))
        let shmDone = shm.stop(timeout: 2_000_000_000)
        let nbdDone = nbd.map { $0.stop(timeout: 2_000_000_000) }
        let rdmaDone = rdma?.stop(timeout: 2_000_000_000) ?? true
        if !shmDone || nbdDone.contains(false) || !rdmaDone { log.warn("stopped_early", [:]) }
        for thread in threads { thread.join() }
        log.info("stopped", ["granted": pool.grantedBytes])
    }
}

extension Endpoint {
    /// Only who may write to the file can connect.
    var isUnix: Bool { if case .unix = self { true } else { false } }
}

private func openPool(_ options: PoolOptions) throws -> MemoryPool {
    do throws(PoolError) {
        return try MemoryPool(options)
    } catch {
        let status: ExitStatus =
            switch error {
            case .poolInUse: .tryAgain
            case .notInMemory, .fileSystemTooSmall, .otherSlabSize, .capacityBelowGranted: .usage
            case .corrupt: .badConfiguration
            case .system(let cause): ExitStatus(cause)
            default: .systemError
            }
        throw CommandFailure(status, error.description)
    }
}
