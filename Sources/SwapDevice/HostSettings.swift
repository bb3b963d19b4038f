import Glibc
import LinuxSystem

/// A number of the whole machine's that `attach` may raise: the old value is journaled first, and put back when the last
/// device that asked for it goes.
package enum HostSetting: String, CaseIterable, Sendable {
    /// How long idle processors of a virtual machine poll before they halt, nanoseconds.
    ///
    /// A page that comes back through a loop device wakes three threads, one after the other. Where an idle
    /// virtual processor halts at once, waking it takes a trip through the hypervisor, some 20 us each time.
    /// The kernel's remedy is the haltpoll governor (drivers/cpuidle/governors/haltpoll.c), whose limit some
    /// guests set to zero; upstream it is 200 us.
    case haltPoll = "halt_poll_ns"
    /// How many pages come back in one request when a process reads on through memory: at most 2 to this power
    /// (mm/swap_state.c, swap_vma_ra_win). The kernel starts small and doubles while its guess is right, so random
    /// accesses do not pay for it.
    case pageCluster = "page_cluster"

    var parameter: String {
        switch self {
        case .haltPoll: "/sys/module/haltpoll/parameters/guest_halt_poll_ns"
        case .pageCluster: "/proc/sys/vm/page-cluster"
        }
    }

    var missing: String {
        switch self {
        case .haltPoll:
            "this kernel has no halt polling to set (cpuidle haltpoll); leave out --halt-poll"
        case .pageCluster: "this kernel has no vm.page-cluster to set; leave out --page-cluster"
        }
    }

    /// The present value, nil where the kernel has none.
    package var value: Int64? { RaisedSetting(self).value() }
}

/// Raises one setting and puts it back.
struct RaisedSetting {
    private let parameter: String
    private let journal: String
    private let missing: String

    /// - Parameters:
    ///   - parameter: another file in tests.
    ///   - journal: where the old value is kept.
    init(_ setting: HostSetting, parameter: String? = nil, journal: String? = nil) {
        self.parameter = parameter ?? setting.parameter
        self.journal = journal ?? "\(runtimeDirectory())/\(setting.rawValue).journal"
        missing = setting.missing
    }

    func value() -> Int64? {
        do throws(SystemError) {
            let text = try readSmallText(parameter)
            return Int64(text.split(whereSeparator: \.isWhitespace).first ?? "")
        } catch {
            return nil
        }
    }

    /// Raises the value to `wanted`; one that is as high already stays.
    func raise(to wanted: Int64) throws(SwapDeviceError) {
        guard let present = value() else { throw .missingKernelFeature(missing) }
        guard present < wanted else { return }
        do throws(SystemError) {
            // What another device raised is ours too: the value before the first of us is put back.
            let old = try journaled().map { $0.set == present ? $0.old : present } ?? present
            try replaceFile(journal, with: "\(old) \(wanted)\n", mode: 0o600)
            try writeKernelFile(parameter, "\(wanted)")
        } catch {
            throw .system(error)
        }
    }

    /// Puts the journaled value back, unless somebody else has changed it since.
    func restore() throws(SystemError) {
        guard fileExists(journal) else { return }
        if let (old, set) = try journaled(), let present = value(), present > old, present == set {
            try writeKernelFile(parameter, "\(old)")
        }
        unsafe unlink(journal)
    }

    /// The value before the first device raised it, and the one that the last set; nil without a journal.
    private func journaled() throws(SystemError) -> (old: Int64, set: Int64)? {
        guard fileExists(journal) else { return nil }
        let numbers = try readSmallText(journal).split(whereSeparator: \.isWhitespace)
            .compactMap { Int64($0) }
        return numbers.count == 2 ? (numbers[0], numbers[1]) : nil
    }
}
