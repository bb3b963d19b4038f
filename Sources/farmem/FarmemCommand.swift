import CommandLineKit

/// The command table of farmem. Each command has its own file.
enum FarmemCommand {
    static let root = Command(
        name: "farmem", summary: "look at far memory and measure it",
        subcommands: [
            statusCommand, topCommand, containersCommand, eventsCommand, doctorCommand,
            drainCommand, bench,
            simulateCommand, replayCommand,
        ])

    private static let bench = Command(
        name: "bench", summary: "measure",
        subcommands: [
            benchFunctionsCommand, benchWakeUpCommand, BenchSwapCommand.command,
            BenchIntegrityCommand.command,
            BenchIntegrityCommand.worker, BenchRDMACommand.command, BenchRatioCommand.command,
            BenchPolicyCommand.command,
        ])
}
