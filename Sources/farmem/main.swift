// farmem: looks at, measures and tries what the daemons do. Wiring only.

import CommandLineKit

Program(
    Command(
        name: "farmem", summary: "far memory: status, measurements, simulations",
        subcommands: [benchCommand])
).main()
