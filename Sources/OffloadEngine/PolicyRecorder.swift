import FarMemory
import Glibc
import LinuxSystem
import OffloadPolicy
import Telemetry

/// Writes down what the policy is told and what it decides (PolicyRecordLine). Belongs to the control thread. A record that cannot be
/// written ends; the controller goes on.
final class PolicyRecorder {
    private static let bufferBytes = 64 << 10

    private let file: FileDescriptor
    private let log: Logger
    private var buffer = ""
    private var hasFailed = false

    /// Replaces what is at `path`.
    init(path: String, settings: PolicySettings, log: Logger) throws(SystemError) {
        file = try FileDescriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
        self.log = log
        buffer = "\(PolicyReplay.title)\nsettings \(settings.recordText)\n"
        flush()
    }

    /// Adds what was asked and what was decided.
    func note(_ line: PolicyRecordLine, _ decisions: [Decision]) {
        guard !hasFailed else { return }
        buffer += line.text
        buffer += "\n"
        for decision in decisions {
            buffer += PolicyRecordLine(decision).text
            buffer += "\n"
        }
        if buffer.utf8.count >= Self.bufferBytes { flush() }
    }

    /// Hands the lines to the kernel, so that they outlive the daemon.
    func flush() {
        guard !hasFailed, !buffer.isEmpty else { return }
        do throws(SystemError) {
            try file.writeAll(buffer)
        } catch {
            hasFailed = true
            log.error("record_failed", ["error": error.description])
        }
        buffer.removeAll(keepingCapacity: true)
    }
}
