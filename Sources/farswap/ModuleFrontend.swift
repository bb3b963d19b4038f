import CommandLineKit
import FarMemory
import LinuxSystem
import PoolProtocol
import SwapDevice

/// What attach tells farmem.ko, from its options and the URL.
enum ModuleFrontend {
    static let onlyForModule =
        "dram:CAPACITY is memory that farmem.ko holds; give --frontend module"

    /// Nil when another frontend is to be used.
    static func setup(
        _ invocation: Invocation, _ source: FarMemoryURL
    ) throws -> KernelModule.Setup? {
        guard try isWanted(invocation, source) else {
            if case .moduleMemory = source.source { throw UsageError(onlyForModule) }
            return nil
        }
        _ = try area(invocation)
        if let option = fuseOptions.first(where: {
            invocation.isGiven($0) && !($0 == "fallback" && isFrontswap(invocation))
        }) {
            throw UsageError("--\(option) needs --frontend fuse")
        }
        let (name, size) = (invocation.string("name"), invocation.size("size"))
        guard name.utf8.count < 32 else {
            throw UsageError("--name: farmem.ko takes names of at most 31 characters")
        }
        switch source.source {
        case .moduleMemory(let capacity):
            guard capacity.bytes % UInt64(pageBytes) == 0, capacity > .zero, capacity <= size else {
                throw UsageError(
                    "'\(source.text)': the capacity is a multiple of 4KiB and at most --size")
            }
            var setup = KernelModule.Setup(name: name, backend: "dram", size: size)
            setup.capacity = capacity
            setup.isReserved = invocation.flag("reserve")
            return setup
        case .rdma(let url):
            var setup = KernelModule.Setup(name: name, backend: "rdma", size: size)
            setup.server = try server(invocation, url)
            setup.isReserved = invocation.flag("reserve")
            return setup
        case .shm, .nbd, .dram:
            throw UsageError(
                "--frontend \(invocation.string("frontend")) takes rdma:// and dram:CAPACITY only; use fuse"
            )
        }
    }

    private static func isFrontswap(_ invocation: Invocation) -> Bool {
        invocation.string("frontend") == "frontswap"
    }

    /// The swap area that frontswap is to serve; nil for a disk of the module's own.
    static func area(_ invocation: Invocation) throws(UsageError) -> String? {
        guard isFrontswap(invocation) else { return nil }
        guard let path = invocation.stringIfSet("fallback") else {
            throw UsageError(
                "--frontend frontswap needs --fallback: the file or disk that is swapped on, for what far memory refuses"
            )
        }
        return path
    }

    /// What only a process in the path of the pages can do.
    private static let fuseOptions = ["fallback", "fallback-mode", "threads", "tls-certificates"]

    private static func isWanted(
        _ invocation: Invocation, _ source: FarMemoryURL
    ) throws(UsageError) -> Bool {
        if ["module", "frontswap"].contains(invocation.string("frontend")) { return true }
        if let option = ["synchronous", "reserve"].first(where: invocation.isGiven) {
            throw UsageError("--\(option) needs --frontend module")
        }
        guard case .rdma = source.source, invocation.string("frontend") == "auto" else {
            return false
        }
        return KernelModule.isAvailable && !fuseOptions.contains { invocation.isGiven($0) }
    }

    /// Where the lease is, whose it is, and how long things may take.
    private static func server(
        _ invocation: Invocation, _ url: RDMAURL
    ) throws -> KernelModule.Server {
        var server = KernelModule.Server(
            address: try address(of: url), port: url.port,
            lease: url.lease ?? invocation.stringIfSet("lease") ?? invocation.string("name"),
            loadDeadline: try wholeMilliseconds(invocation, "deadline"))
        if invocation.isGiven("store-deadline") {
            server.storeDeadline = try wholeMilliseconds(invocation, "store-deadline")
        }
        do throws(ConnectFailure) {
            if let key = try sharedKey(invocation) {
                server.keyName = key.name
                server.keySecret = key.secret
            }
        } catch {
            throw CommandFailure(ExitStatus(rawValue: error.status) ?? .systemError, error.reason)
        }
        if invocation.isGiven("connections") {
            server.queues = UInt16(invocation.integer("connections"))
        }
        server.polls = invocation.duration("poll") > .zero
        server.isSynchronous = invocation.flag("synchronous")
        return server
    }

    /// What farmem.ko counts deadlines in.
    private static func wholeMilliseconds(
        _ invocation: Invocation, _ option: String
    ) throws(UsageError) -> Nanoseconds {
        let value = invocation.duration(option)
        guard value.nanoseconds >= 1_000_000, value.nanoseconds / 1_000_000 <= UInt32.max else {
            throw UsageError("--\(option): farmem.ko takes 1ms to 49d")
        }
        return value
    }

    /// The kernel takes numbers only.
    private static func address(of url: RDMAURL) throws -> String {
        do throws(SystemError) {
            return try resolveAddress(url.host)
        } catch {
            throw CommandFailure(
                .peerUnavailable, "'\(url.host)' is no known host (\(error)); give its address")
        }
    }
}
