import CommandLineKit

/// `farmem bench`: each subcommand is one benchmark.
let benchCommand = Command(
    name: "bench", summary: "measure this machine", subcommands: [benchFunctionsCommand])
