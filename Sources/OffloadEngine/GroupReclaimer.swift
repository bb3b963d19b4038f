import Containers
import FarMemory
import Glibc
import LinuxSystem
import Telemetry

/// Lets the kernel reclaim from a group what process_madvise does not move: pages that several of its processes
/// map. v2 has memory.reclaim for that (6.1 and later). Elsewhere a limit is lowered below the usage and put back
/// at once; the journal knows the old limit before it is changed. File pages may go first.
/// Belongs to the mover.
final class GroupReclaimer {
    /// Reclaimed at a time, so that a request can stop it.
    private static let step = ByteCount.mib(1)
    private static let stepsMax = 4096

    private let journal: KnobJournal
    private let log: Logger
    /// How long a lowered limit is held, for tests of a crash in between; zero in production.
    private let hold: Nanoseconds

    init(journal: KnobJournal, log: Logger, hold: Nanoseconds) {
        self.journal = journal
        self.log = log
        self.hold = hold
    }

    /// Reclaims about `amount`; returns by how much the local memory shrank. Pages on their way out are still counted as local, and
    /// the kernel goes on to others meanwhile: when it has written the amount, it is enough.
    func reclaim(
        _ amount: ByteCount, from group: MemoryGroup, isHalted: () -> Bool
    ) -> ByteCount {
        guard let before = try? group.use().local else { return .zero }
        var left = amount
        let sweptBefore = HostMemory.swappedOut()
        for _ in 0..<Self.stepsMax where left > .zero && !isHalted() {
            if let sweptBefore, let now = HostMemory.swappedOut(),
                ByteCount(pages: now - sweptBefore) >= amount
            {
                break
            }
            let step = min(left, Self.step)
            do throws(SystemError) {
                try reclaimStep(step, group)
            } catch {
                // EBUSY, EAGAIN: the kernel finds nothing more that it may take.
                if error.code != EBUSY && error.code != EAGAIN && error.code != EINTR {
                    log.warn("reclaim_failed", ["group": group.path, "error": error.description])
                }
                break
            }
            left -= step
        }
        guard let after = try? group.use().local else { return .zero }
        return before - after
    }

    private func reclaimStep(_ step: ByteCount, _ group: MemoryGroup) throws(SystemError) {
        if group.version == .v2, (try? group.text("memory.current")) != nil {
            do throws(SystemError) {
                return try group.write("memory.reclaim", "\(step.bytes)")
            } catch {
                // Before 6.1 the file is missing: poke memory.high, which never kills.
                guard error.code == ENOENT else { throw error }
            }
            return try poke("memory.high", by: step, group)
        }
        try poke("memory.limit_in_bytes", by: step, group)
    }

    private func poke(
        _ file: String, by step: ByteCount, _ group: MemoryGroup
    ) throws(SystemError) {
        let old = String(try group.text(file).split(separator: "\n").first ?? "")
        let target = ByteCount(pages: (try group.use().local - step).pages)
        // Never near zero: the group must be able to run.
        guard target >= .mib(4), !old.isEmpty else { throw SystemError(call: file, code: EAGAIN) }
        let change = KnobChange(
            group: group.path, inode: group.inode, file: file, old: old, new: "\(target.bytes)")
        let number = try journal.begin(change)
        let lowered = result { () throws(SystemError) in try group.write(file, change.new) }
        if hold > .zero { sleepNanoseconds(hold.nanoseconds) }
        let restored = result { () throws(SystemError) in try group.write(file, old) }
        // A group that is gone has no limit to restore.
        if restored == nil || restored?.code == ENODEV || restored?.code == ENOENT {
            try journal.end(number)
        } else {
            log.error("limit_not_restored", ["group": group.path, "limit": old])
        }
        if let lowered { throw lowered }
    }

    private func result(_ body: () throws(SystemError) -> Void) -> SystemError? {
        do throws(SystemError) {
            try body()
            return nil
        } catch {
            return error
        }
    }
}
