package import FarMemory
import Glibc
package import LinuxSystem

/// Lets idle processors of a virtual machine poll for a while before they halt.
///
/// A page that comes back through a loop device wakes three threads, one after the other. Where an idle
/// virtual processor halts at once, waking it takes a trip through the hypervisor, some 20 us each time.
/// The kernel's remedy is the haltpoll governor (drivers/cpuidle/governors/haltpoll.c), whose limit some
/// guests set to zero; upstream it is 200 us. The limit belongs to the whole machine, so its old value is
/// journaled before it is raised and put back when the last device that asked for it goes.
package struct HaltPolling {
    private let parameter: String
    private let journal: String

    /// - Parameters:
    ///   - parameter: the governor's limit; another file in tests.
    ///   - journal: where the old value is kept.
    package init(
        parameter: String = "/sys/module/haltpoll/parameters/guest_halt_poll_ns",
        journal: String = "\(runtimeDirectory())/halt-poll.journal"
    ) {
        self.parameter = parameter
        self.journal = journal
    }

    /// The present limit, nil where the kernel has none.
    package func limit() -> Nanoseconds? {
        do throws(SystemError) {
            let text = try readSmallText(parameter)
            return Int64(text.split(whereSeparator: \.isWhitespace).first ?? "").map {
                Nanoseconds($0)
            }
        } catch {
            return nil
        }
    }

    /// Raises the limit to `wanted`; one that is as high already stays.
    package func raise(to wanted: Nanoseconds) throws(SwapDeviceError) {
        guard let present = limit() else {
            throw .missingKernelFeature(
                "this kernel has no halt polling to set (cpuidle haltpoll); leave out --halt-poll")
        }
        guard present < wanted else { return }
        do throws(SystemError) {
            // What another device raised is ours too: the value before the first of us is put back.
            let old = try journaled().map { $0.set == present ? $0.old : present } ?? present
            try replaceFile(
                journal, with: "\(old.nanoseconds) \(wanted.nanoseconds)\n", mode: 0o600)
            try writeKernelFile(parameter, "\(wanted.nanoseconds)")
        } catch {
            throw .system(error)
        }
    }

    /// Puts the journaled value back, unless somebody else has changed it since.
    package func restore() throws(SystemError) {
        guard fileExists(journal) else { return }
        if let (old, set) = try journaled(), let present = limit(), present > old, present == set {
            try writeKernelFile(parameter, "\(old.nanoseconds)")
        }
        unsafe unlink(journal)
    }

    /// The value before the first device raised it, and the one that the last set; nil without a journal.
    private func journaled() throws(SystemError) -> (old: Nanoseconds, set: Nanoseconds)? {
        guard fileExists(journal) else { return nil }
        let numbers = try readSmallText(journal).split(whereSeparator: \.isWhitespace)
            .compactMap { Int64($0) }
        return numbers.count == 2 ? (Nanoseconds(numbers[0]), Nanoseconds(numbers[1])) : nil
    }
}
