import CommandLineKit
import FarMemory
import LinuxSystem
import PoolProtocol
import SwapDevice
import Telemetry

/// Options that attach takes and its data process is told.
enum DataOptions {
    static let list: [Option] = [
        Option(
            "lease", .string, placeholder: "NAME",
            help:
                "The lease's or export's name where the URL has none; the device's name unless given."
        ),
        Option(
            "auth-file", .string, placeholder: "FILE",
            help: "Keys, one name:hexkey per line (as psktool writes them)."),
        Option(
            "key", .string, placeholder: "NAME",
            help: "Which key of --auth-file to use; the first unless given."),
        Option(
            "tls-certificates", .string, placeholder: "DIR",
            help:
                "For nbds://: a directory with ca-cert.pem and, if asked for, client-cert.pem and client-key.pem."
        ),
        Option(
            "fallback", .string, placeholder: "FILE",
            help:
                "A local file, as large as the device, for pages that far memory refuses. With --frontend frontswap also a disk, after mkswap."
        ),
        Option(
            "fallback-mode", .choice(["refused", "mirror"]), default: "refused",
            help:
                "What goes there: only refused pages, or every page, so that it survives the memory node."
        ),
        Option(
            "poll", .duration, default: "0s",
            help:
                "Poll this long for the next request before sleeping: faster faults for processor time."
        ),
        Option(
            "deadline", .duration, default: "30s",
            help: "How long a page that must come back is tried for before its process gets SIGBUS."
        ),
        Option(
            "store-deadline", .duration, default: "1s",
            help:
                "How long a page on its way out is tried for before it stays local (5s with --frontend module, unless given)."
        ),
    ]

    /// The same values again as arguments.
    static func arguments(_ invocation: Invocation) -> [String] {
        var result: [String] = []
        for name in ["lease", "auth-file", "key", "tls-certificates", "fallback", "fallback-mode"] {
            if let value = invocation.strings(name).first { result += ["--\(name)", value] }
        }
        for name in ["poll", "deadline", "store-deadline"] {
            result += ["--\(name)", invocation.duration(name).description]
        }
        return result
    }
}

enum AttachCommand {
    static let command = Command(
        name: "attach", summary: "attach far memory as swap",
        options: [
            Option("size", .size, required: true, help: "Size of the device."),
            Option("name", .string, default: "far0", help: "The device's name on this host."),
            Option(
                "frontend", .choice(["auto", "fuse", "nbd", "module", "frontswap"]),
                default: "auto",
                help:
                    "How the kernel reaches it. module: farmem.ko. frontswap: farmem.ko on a patched Linux 6.1, with --fallback as the swap area. auto: nbd.ko for NBD URLs and farmem.ko for rdma:// where the kernel has them, else fuse."
            ),
            Option(
                "priority", .integer(-1...32767), default: "100",
                help: "Swap priority; higher is used first, -1 lets the kernel choose."),
            Option(
                "threads", .integer(1...16), default: "2",
                help: "Threads that serve the device; 1 with --poll is best on few processors."),
            Option(
                "halt-poll", .duration, default: "0s",
                help:
                    "On a virtual machine: let idle processors poll this long before they halt, until detach (200us is the kernel's own default). 0s leaves it as it is."
            ),
            Option(
                "page-cluster", .integer(0...6), default: "3",
                help:
                    "Let up to 2^N pages come back in one request where a process reads on through memory, until detach (vm.page-cluster, which is the whole machine's). Left alone unless given; never lowered."
            ),
            Option(
                "flush-slots", .flag, default: "true",
                help:
                    "On kernels up to 6.14: have freed swap slots given back that processors keep, each of which may hold a slab, by swapping a tiny area on and off, at most once a second. Not needed with --frontend frontswap nor with --reserve."
            ),
            Option(
                "connections", .integer(1...16), default: "1",
                help:
                    "With --frontend nbd: connections, where the server allows several; see docs/failure-model.md first. With --frontend module: data queues, one for each processor unless given."
            ),
            Option(
                "reserve", .flag,
                help:
                    "With --frontend module or frontswap: have all of the memory granted at attach, and keep it until detach. No page on its way out waits for the server then; the pool has that much less for others."
            ),
            Option(
                "synchronous", .flag,
                help:
                    "With --frontend module: one page per round trip, as Fastswap does, to compare with."
            ),
        ] + DataOptions.list + [Option.logLevel],
        positionals: [Positional("URL", help: "Where the far memory is.")],
        run: run)

    static let run: @Sendable (Invocation) throws -> ExitStatus = { invocation in
        let url = invocation.positional("URL")
        let source = try FarMemoryURL(url)
        let name = invocation.string("name")
        let size = invocation.size("size")
        guard size.bytes % UInt64(pageBytes) == 0 else {
            throw UsageError("--size must be a multiple of 4KiB")
        }
        if case .nbd(let uri) = source.source, !uri.usesTLS,
            invocation.isGiven("tls-certificates") || invocation.isGiven("auth-file")
        {
            throw UsageError("keys and certificates need TLS: give an nbds:// URL")
        }
        let module = try ModuleFrontend.setup(invocation, source)
        let isKernels = module == nil ? try usesKernelNBD(invocation, source) : false
        let common = ["--name", name, "--identity", makeIdentity()]
        let own =
            isKernels
            ? ["nbd-keeper", url, "--size", size.description, "--connections"]
                + ["\(invocation.integer("connections"))"]
            : ["data", url]
        var request = AttachRequest(
            name: name, url: url, size: size, workers: invocation.integer("threads"),
            priority: Int32(invocation.integer("priority")),
            hasFallback: invocation.stringIfSet("fallback") != nil,
            executable: try ownExecutable(),
            dataArguments: own + common + DataOptions.arguments(invocation))
        let haltPoll = invocation.duration("halt-poll").nanoseconds
        if haltPoll > 0 { request.raised[.haltPoll] = haltPoll }
        if invocation.isGiven("page-cluster") {
            request.raised[.pageCluster] = Int64(invocation.integer("page-cluster"))
        }
        request.flushesSlots =
            invocation.flag("flush-slots") && !invocation.flag("reserve")
            && invocation.string("frontend") != "frontswap"
        let directory = DeviceDirectory()
        let log = Logger(level: .info)
        let area = try ModuleFrontend.area(invocation)
        do throws(SwapDeviceError) {
            let device =
                if let module, let area {
                    try KernelModuleAttachment(directory: directory, log: log)
                        .attach(request, module, area: area)
                } else if let module {
                    try KernelModuleAttachment(directory: directory, log: log)
                        .attach(request, module)
                } else if isKernels {
                    try KernelNBDAttachment(directory: directory, log: log).attach(request)
                } else {
                    try FuseAttachment(directory: directory, log: log).attach(request)
                }
            printOut("\(name): \(size) of \(url) attached as \(device)\n")
            return .done
        } catch {
            throw failure(error)
        }
    }

    /// What only a process in the path of the pages can do.
    private static let fuseOptions = [
        "fallback", "fallback-mode", "poll", "store-deadline", "threads",
    ]

    /// Whether the kernel's own client is to be used; an error where it is asked for and cannot be.
    private static func usesKernelNBD(
        _ invocation: Invocation, _ source: FarMemoryURL
    ) throws(UsageError) -> Bool {
        let frontend = invocation.string("frontend")
        let fuseOption = fuseOptions.first { invocation.isGiven($0) }
        guard frontend == "nbd" else {
            guard case .nbd(let uri) = source.source, frontend == "auto" else { return false }
            return !uri.usesTLS && fuseOption == nil && KernelNBD.isAvailable
        }
        guard case .nbd(let uri) = source.source else {
            throw UsageError("--frontend nbd needs an nbd:// URL")
        }
        guard !uri.usesTLS else {
            throw UsageError("the kernel's NBD client has no TLS; use --frontend fuse for nbds://")
        }
        if let fuseOption { throw UsageError("--\(fuseOption) needs --frontend fuse") }
        return true
    }
}

/// The path of this program, for processes that must outlive the present working directory.
func ownExecutable() throws(SystemError) -> String {
    try readLink("/proc/self/exe")
}

/// A device error as a command's failure.
func failure(_ error: SwapDeviceError) -> CommandFailure {
    let status: ExitStatus =
        switch error {
        case .badName, .sizeTooSmall, .noSwapArea: .usage
        case .nameInUse, .busy, .wouldNotFit, .startTimedOut: .tryAgain
        case .noSuchDevice: .usage
        case .notRoot: .permission
        case .refusedByModule(let code, _): ExitStatus(SystemError(call: "attach", code: code))
        case .startFailed(let status, _): ExitStatus(rawValue: status) ?? .systemError
        case .missingKernelFeature, .fallbackUnusable, .brokenState: .systemError
        case .system(let error): ExitStatus(error)
        }
    return CommandFailure(status, "\(error)")
}
