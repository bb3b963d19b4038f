import Containers
import Glibc
package import LinuxSystem
import Telemetry

/// Why a controller cannot start.
package enum ControllerError: Error, Equatable, CustomStringConvertible {
    /// Another process holds the state directory.
    case alreadyRuns(directory: String)
    /// The kernel lacks what the engine needs.
    case engineUnavailable(EngineKind, String)
    /// DAMON is to decide, and cannot.
    case damon(ColdPageoutError)
    case system(SystemError)

    package var description: String {
        switch self {
        case .alreadyRuns(let directory):
            "another offloadd uses \(directory); stop it first, or give --state-dir"
        case .engineUnavailable(let engine, let reason): "--engine \(engine.rawValue): \(reason)"
        case .damon(let error): error.description
        case .system(let error): "\(error)"
        }
    }
}

/// The state directory, held for as long as the controller lives: two controllers would undo each other's work.
final class StateOwnership: Sendable {
    let journalPath: String
    private let lock: FileDescriptor

    init(directory: String) throws(ControllerError) {
        journalPath = "\(directory)/journal"
        do throws(SystemError) {
            try makeDirectories(directory)
            lock = try FileDescriptor.open("\(directory)/lock", O_RDWR | O_CREAT, mode: 0o600)
            if try lock.lock() { return }
        } catch {
            throw .system(error)
        }
        throw .alreadyRuns(directory: directory)
    }

    /// Undoes what a former run left changed. Returns how many knobs.
    func restore(groups: ControlGroups, log: Logger) throws(SystemError) -> UInt64 {
        var count: UInt64 = 0
        for outcome in try KnobJournal.restore(path: journalPath, groups: groups) {
            switch outcome {
            case .restored(let change):
                count += 1
                log.warn(
                    "knob_restored",
                    ["group": change.group, "file": change.file, "value": change.old])
            case .groupGone(let change):
                log.info("knob_gone", ["group": change.group, "file": change.file])
            case .changedSince(let change, let now):
                log.warn(
                    "knob_left",
                    ["group": change.group, "file": change.file, "value": now, "ours": change.new])
            case .failed(let change, let error):
                log.error(
                    "knob_not_restored",
                    ["group": change.group, "file": change.file, "error": error.description])
            }
        }
        return count
    }
}
