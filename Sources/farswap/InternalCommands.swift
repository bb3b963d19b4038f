import CommandLineKit
import Fabric
import FabricDRAM
import FarMemory
import LinuxSystem
import SwapDevice
import Telemetry

/// What attach starts: not for people.
enum InternalCommands {
    static let keeper = Command(
        name: "keeper", summary: "hold a device open",
        options: [
            Option("name", .string, required: true, help: "The device's name."),
            Option("adopt", .integer(1...4_194_304), help: "A data process without a keeper."),
        ],
        positionals: [
            Positional("ARGUMENTS", repeatable: true, help: "The data process's arguments.")
        ], hidden: true, configurable: false,
        run: { invocation in
            let keeper = Keeper(
                executable: try ownExecutable(), dataArguments: invocation.positionals,
                name: invocation.string("name"), log: Logger(level: .info))
            let status = keeper.run(adopting: invocation.integerIfSet("adopt").map { Int32($0) })
            return ExitStatus(rawValue: status) ?? .bug
        })

    static let kernelKeeper = Command(
        name: "nbd-keeper", summary: "connect a device of the kernel's NBD client again and again",
        options: [
            Option("name", .string, required: true, help: "The device's name."),
            Option("size", .size, required: true, help: "The device's size."),
            Option("connections", .integer(1...16), default: "1", help: "How many connections."),
            Option("index", .integer(0...1_048_575), help: "A device that lost its keeper."),
            Option("epoch", .string, help: "The number of the lease that it had."), identityOption,
        ] + DataOptions.list,
        positionals: [Positional("URL", help: "Where the far memory is.")],
        hidden: true, configurable: false,
        run: { invocation in
            guard case .nbd(let uri) = try FarMemoryURL(invocation.positional("URL")).source else {
                throw UsageError("the nbd frontend needs an nbd:// URL")
            }
            let options = KernelNBDOptions(
                name: invocation.string("name"), size: invocation.size("size"),
                connections: invocation.integer("connections"),
                deadTimeout: invocation.duration("deadline"),
                takeOver: invocation.integerIfSet("index").map { Int32($0) },
                epoch: invocation.stringIfSet("epoch").flatMap { UInt64($0) })
            let keeper = KernelNBDKeeper(
                options: options, log: Logger(level: .info),
                connect: kernelConnector(uri.named(by: invocation), invocation))
            exitNow(keeper.run())
        })

    static let slotFlusher = Command(
        name: "slot-flusher", summary: "have the kernel give back freed swap slots",
        hidden: true, configurable: false,
        run: { _ in
            let flusher = SlotFlusher(directory: DeviceDirectory(), log: Logger(level: .info))
            exitNow(flusher.run())
        })

    static let data = Command(
        name: "data", summary: "serve a device",
        options: [
            Option("name", .string, required: true, help: "The device's name."),
            Option("first", .flag, help: "Somebody waits for readiness."), identityOption,
        ] + DataOptions.list,
        positionals: [Positional("URL", help: "Where the far memory is.")],
        hidden: true, configurable: false,
        run: { invocation in
            let source = try FarMemoryURL(invocation.positional("URL"))
            let options = DataProcessOptions(
                name: invocation.string("name"),
                policy: PathPolicy(
                    storeDeadline: invocation.duration("store-deadline").nanoseconds,
                    loadDeadline: invocation.duration("deadline").nanoseconds,
                    mode: FallbackMode(rawValue: invocation.string("fallback-mode")) ?? .refused),
                spin: invocation.duration("poll").nanoseconds,
                fallbackPath: invocation.stringIfSet("fallback"))
            let log = Logger(level: .info)
            let connector = FabricConnector(source: source, invocation: invocation, log: log)
            let process = DataProcess(options: options, log: log, connect: connector.connect)
            exitNow(process.run(isFirst: invocation.flag("first")))
        })
}
