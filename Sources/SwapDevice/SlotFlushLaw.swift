import FarMemory
import LinuxSystem

// When the kernel is made to give freed swap slots back.
//
// Up to Linux 6.14 each processor keeps up to 64 freed swap slots, and as many that it has set aside, without telling the
// device (mm/swap_slots.c). Each may hold a slab of far memory long after its process ended: until 64 more are freed there,
// or any swap area is swapped off, which empties what all processors keep. So a small area is swapped on and off for that
// alone. What follows says when it is worth it, from what /proc/swaps says is in use.

/// Whether this kernel keeps freed swap slots.
enum SwapSlotCaches {
    /// Processors keep as many freed slots, and as many that are set aside (SWAP_SLOTS_CACHE_SIZE).
    static let slots = 64

    static var arePresent: Bool {
        arePresent(
            states: try? readSmallText("/sys/devices/system/cpu/hotplug/states"),
            release: (try? readSmallText("/proc/sys/kernel/osrelease")) ?? "")
    }

    /// - Parameters:
    ///   - states: what the kernel does when a processor comes or goes; the caches are in it from the first swapon on. Nil where
    ///     processors cannot.
    ///   - release: as `uname -r` has it.
    static func arePresent(states: String?, release: String) -> Bool {
        if let states { return states.contains("swap_slots_cache") }
        let numbers = release.split(whereSeparator: { !$0.isNumber }).prefix(2).compactMap {
            Int($0)
        }
        guard numbers.count == 2 else { return false }
        // 4.11 brought them, 6.15 took them away.
        return (numbers[0], numbers[1]) >= (4, 11) && (numbers[0], numbers[1]) < (6, 15)
    }
}

/// Tells for one swap device when the kernel has freed slots and done so, as far as can be seen from how much is in use. Pure.
struct SlotWatch: Equatable {
    /// What has to be freed to be worth a look: as much as one processor gives back at once.
    static let batch = UInt64(SwapSlotCaches.slots * pageBytes)
    /// Freed, and then left alone for this long; nanoseconds.
    static let quiet: Int64 = 40_000_000
    /// It is not waited longer than this for that.
    static let patience: Int64 = 400_000_000
    /// As little in use as the processors may keep, and no change for this long: it may be all theirs.
    static let still: Int64 = 5_000_000_000

    /// The most that was in use since the slots were last given back, and what is now; bytes.
    private var highest: UInt64
    private var used: UInt64
    private var changedAt: Int64
    private var fellAt: Int64?
    /// What was in use when nothing more could be got.
    private var settled: UInt64?

    init(used: UInt64, now: Int64) {
        highest = used
        self.used = used
        changedAt = now
    }

    /// Whether slots were freed that nothing was done about yet: look again soon.
    var hasFallen: Bool { fellAt != nil }

    /// Takes in what is in use now. True when it may be time.
    /// - Parameter kept: how much the processors may keep of all devices together, bytes.
    mutating func look(used: UInt64, kept: UInt64, now: Int64) -> Bool {
        if used != self.used { changedAt = now }
        self.used = used
        highest = max(highest, used)
        guard highest - used >= Self.batch else {
            fellAt = nil
            return used > 0 && used <= kept && used != settled && now - changedAt >= Self.still
        }
        let fell = fellAt ?? now
        fellAt = fell
        return now - changedAt >= Self.quiet || now - fell >= Self.patience
    }

    /// The slots were given back, and so much is in use now.
    mutating func flushed(used: UInt64, now: Int64) {
        self = SlotWatch(used: used, now: now)
        settled = used
    }

    /// It would bring nothing back. What is known of far memory may be half a second old: asked again for a while.
    mutating func declined(now: Int64) {
        if let fellAt, now - fellAt < 5 * Self.patience { return }
        flushed(used: used, now: now)
    }
}

/// How often slots may be given back: each time the kernel writes a line to its log, and processors do without their caches for
/// a moment. Once a second, ten times in a row, and then every ten seconds. Pure.
struct FlushBudget: Equatable {
    static let shortest: Int64 = 1_000_000_000
    static let refill: Int64 = 10_000_000_000
    static let most: Int64 = 10

    private var spentAt = Int64.min
    /// When the whole budget will be there again.
    private var fullAt = Int64.min

    func allows(now: Int64) -> Bool {
        guard spentAt != .min else { return true }
        return now - spentAt >= Self.shortest && fullAt - now <= (Self.most - 1) * Self.refill
    }

    mutating func spend(now: Int64) {
        spentAt = now
        fullAt = max(fullAt, now) + Self.refill
    }
}
