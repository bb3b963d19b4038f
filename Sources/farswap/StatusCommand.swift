import CommandLineKit
import FarMemory
import JSONText
import LinuxSystem
import SwapDevice
import Telemetry

enum StatusCommand {
    static let command = Command(
        name: "status", summary: "show swap devices, their state, counters and latencies",
        options: [
            .json,
            Option(
                "repair", .flag, configurable: false,
                help: "Mend what a crash left: a missing keeper, a device that nobody serves."),
        ],
        positionals: [Positional("NAME", required: false, help: "Only this device.")],
        run: run)

    static let run: @Sendable (Invocation) throws -> ExitStatus = { invocation in
        let directory = DeviceDirectory()
        let wanted = invocation.positionalIfSet("NAME")
        let names = wanted.map { [$0] } ?? directory.names()
        if invocation.flag("repair") {
            guard runsAsRoot() else { throw failure(.notRoot) }
            return repair(names, directory)
        }
        var statuses: [DeviceStatus] = []
        do {
            for name in names { statuses.append(try DeviceStatus(of: directory.load(name))) }
        } catch let error as SwapDeviceError {
            throw failure(error)
        }
        if invocation.flag("json") {
            let report: JSONValue = [
                "schema": 1, "devices": .array(statuses.map(json)),
                "slot_flusher": json(directory.flusherState() ?? SlotFlusherState()),
            ]
            printOut(report.rendered() + "\n")
        } else {
            printOut(statuses.isEmpty ? "no swap device is attached\n" : table(statuses))
        }
        return statuses.contains { [.dead, .lost, .keeperDown].contains($0.condition) }
            ? .checkFailed : .done
    }

    private static func repair(_ names: [String], _ directory: DeviceDirectory) -> ExitStatus {
        let removal = DeviceRemoval(directory: directory, log: Logger(level: .warn))
        var status = ExitStatus.done
        for name in names {
            switch removal.repair(name) {
            case .healthy: printOut("\(name): healthy\n")
            case .keeperReplaced: printOut("\(name): has a new keeper\n")
            case .removed: printOut("\(name): nobody served it any more; removed\n")
            case .failed(let reason):
                printError("farswap: \(name): \(reason)")
                status = .systemError
            }
        }
        if names.isEmpty { printOut("nothing to repair\n") }
        return status
    }

    private static func table(_ statuses: [DeviceStatus]) -> String {
        var table = TextTable([
            .init("DEVICE"), .init("STATE"), .init("PATH"), .right("SIZE"), .right("USED MiB"),
            .right("PAGES IN"), .right("PAGES OUT"), .right("IN p50/p99 us"),
            .right("REFUSED"), .right("FAILED"), .right("RESTARTS"),
        ])
        for status in statuses {
            let counters = status.counters
            let refused: UInt64 = [
                .storeNoSpace, .storeUnreachable, .storeDeadline, .storePeerError, .storeOther,
            ].reduce(0) { $0 + (counters[$1] ?? 0) }
            table.append([
                status.record.name, status.condition.rawValue, status.record.device,
                "\(status.record.size)", "\(status.swapUsed.bytes >> 20)",
                "\(counters[.pagesIn] ?? 0)", "\(counters[.pagesOut] ?? 0)",
                "\(status.loads.percentile(0.5) / 1000)/\(status.loads.percentile(0.99) / 1000)",
                "\(refused)", "\(counters[.loadFailed] ?? 0)",
                "\(max(status.dataStarts, 1) - 1)",
            ])
        }
        return table.rendered()
    }

    private static func json(_ flusher: SlotFlusherState) -> JSONValue {
        [
            "pid": JSONValue(flusher.isAlive ? flusher.pid : 0),
            "flushes_total": JSONValue(flusher.flushes),
            "failures_total": JSONValue(flusher.failures),
            "slots_returned_total": JSONValue(flusher.slots),
        ]
    }

    private static func json(_ status: DeviceStatus) -> JSONValue {
        var counters: [JSONValue.Member] = []
        for counter in SwapCounters.Counter.allCases {
            counters.append(
                .init("\(counter.name)_total", JSONValue(status.counters[counter] ?? 0)))
        }
        return [
            "name": JSONValue(status.record.name), "url": JSONValue(status.record.url),
            "state": JSONValue(status.condition.rawValue),
            "frontend": JSONValue(status.record.frontend),
            "device": JSONValue(status.record.device),
            "size_bytes": JSONValue(status.record.size.bytes),
            "swap_used_bytes": JSONValue(status.swapUsed.bytes),
            "keeper_pid": JSONValue(status.keeperPid), "data_pid": JSONValue(status.dataPid),
            "data_starts_total": JSONValue(status.dataStarts),
            "fabric": [
                "reconnects_total": JSONValue(status.fabricReconnects),
                "refused_no_space_total": JSONValue(status.fabricRefused),
                "slabs": JSONValue(status.fabricSlabs), "pages": JSONValue(status.fabricPages),
            ],
            "counters": .object(counters),
            "load_latency_ns_log2": .array(status.loads.counts.map { JSONValue($0) }),
            "store_latency_ns_log2": .array(status.stores.counts.map { JSONValue($0) }),
        ]
    }
}
