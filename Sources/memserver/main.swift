// memserver: lends this machine's memory. Wiring only: options, listeners, housekeeping, admin API.

import CommandLineKit

Program(
    Command(
        name: "memserver", summary: "lend memory to farswap and to NBD clients",
        subcommands: [serveCommand, leaseCommand, statusCommand])
).main()
