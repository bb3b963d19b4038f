import CommandLineKit
import Glibc
import LinuxSystem
import SwapDevice
import Telemetry

enum DetachCommand {
    static let command = Command(
        name: "detach", summary: "bring the pages back and remove a swap device",
        options: [
            Option("force", .flag, help: "Try even when the pages do not seem to fit into memory.")
        ],
        positionals: [Positional("NAME", help: "The device's name.")],
        run: { invocation in
            let name = invocation.positional("NAME")
            let terminal = isatty(2) == 1
            do throws(SwapDeviceError) {
                try DeviceRemoval(directory: DeviceDirectory(), log: Logger(level: .info)).detach(
                    name, force: invocation.flag("force")
                ) { left in
                    if terminal { printProgress("\(name): \(left >> 20) MiB to bring back") }
                }
            } catch {
                throw failure(error)
            }
            if terminal { printProgress("") }
            printOut("\(name): detached\n")
            return .done
        })
}

enum UpgradeCommand {
    static let command = Command(
        name: "upgrade", summary: "replace a device's data process under load",
        discussion:
            "The new process is started from the program file that attach was run from: install the new version there first.",
        positionals: [Positional("NAME", help: "The device's name.")],
        run: { invocation in
            let name = invocation.positional("NAME")
            let record: DeviceRecord
            do throws(SwapDeviceError) {
                record = try DeviceDirectory().load(name)
            } catch {
                throw failure(error)
            }
            if record.frontend == "nbd" { return try replaceKernelKeeper(record) }
            guard let keeper = record.keeperIsAlive ? record.keeperPid : findKeeper(of: name) else {
                throw CommandFailure(
                    .tryAgain, "'\(name)' has no keeper; run farswap status --repair")
            }
            guard kill(keeper, SIGHUP) == 0 else { throw SystemError.last("signal the keeper") }
            printOut("\(name): data process replaced\n")
            return .done
        })
}

/// The kernel moves the pages: only its keeper can be of a new version.
private func replaceKernelKeeper(_ record: DeviceRecord) throws -> ExitStatus {
    if record.keeperIsAlive {
        let keeper = try ProcessHandle(pid: record.keeperPid)
        try keeper.signal(SIGKILL)
        _ = try keeper.waitForEnd(timeout: 5_000_000_000)
    }
    let removal = DeviceRemoval(directory: DeviceDirectory(), log: Logger(level: .warn))
    let finding = removal.repair(record.name)
    guard case .keeperReplaced = finding else {
        throw CommandFailure(.systemError, "'\(record.name)' got no new keeper: \(finding)")
    }
    printOut("\(record.name): keeper replaced\n")
    return .done
}

/// One line of progress on a terminal, in place.
private func printProgress(_ text: String) {
    var line = Array("\r\u{1b}[K\(text)".utf8)
    // SAFETY: the buffer lives through the call and is as long as said.
    _ = unsafe line.withUnsafeMutableBytes { unsafe write(2, $0.baseAddress, $0.count) }
}
