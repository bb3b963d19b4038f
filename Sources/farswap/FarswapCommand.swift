import CommandLineKit

/// The command table of farswap. Wiring only: what happens is in `SwapDevice`.
enum FarswapCommand {
    static let root = Command(
        name: "farswap",
        summary: "use far memory as a swap device",
        discussion: """
            Attaches a lease on a memory server as a swap device of this host, on a stock kernel: a loop device over a \
            FUSE file (any kernel that has the two) or the kernel's own NBD client (where it has one).

            With FUSE a device is served by two processes. The keeper holds the device open; the data process serves it and may be \
            killed, crash or be upgraded under load: its successor finishes what was in flight. Both ignore SIGTERM, since \
            ending them would endanger pages: farswap detach takes a device away.

            URLs: shm:PATH[?lease=NAME] (memserver's control socket on this host), nbd://HOST[:PORT]/EXPORT, \
            nbd+unix:///EXPORT?socket=PATH, nbds:// for TLS, dram:PATH (a file on tmpfs, no server; for measuring).
            """,
        examples: [
            ("farswap attach shm:/run/farmem/memserver.sock --size 2GiB", "attach 2 GiB as far0"),
            ("farswap status", "what is attached, how fast it is, what went wrong"),
            ("farswap detach far0", "bring the pages back and remove the device"),
        ],
        subcommands: [
            AttachCommand.command, DetachCommand.command, StatusCommand.command,
            UpgradeCommand.command, InternalCommands.keeper, InternalCommands.data,
            InternalCommands.kernelKeeper, InternalCommands.slotFlusher,
        ])
}
