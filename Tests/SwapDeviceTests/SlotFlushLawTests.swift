import FarMemory
import LinuxSystem
import TestSupport
import Testing

@testable import SwapDevice

@Suite struct SlotFlushLawTests {
    private static let mib: UInt64 = 1 << 20
    private static let ms: Int64 = 1_000_000
    private static let kept = 2 * UInt64(2 * 64 * 4096)

    /// Looks at a device every 50 ms from 0 on; when the law first says that it may be time.
    private func firstRipe(
        _ watch: inout SlotWatch, for duration: Int64, _ used: (Int64) -> UInt64
    ) -> Int64? {
        var now: Int64 = 0
        while now < duration {
            if watch.look(used: used(now), kept: Self.kept, now: now) { return now }
            now += 50 * Self.ms
        }
        return nil
    }

    @Test func whatFellAndIsQuietIsLookedAtAtOnce() {
        var watch = SlotWatch(used: 0, now: 0)
        let at = firstRipe(&watch, for: 10_000 * Self.ms) { now in
            // 30 MiB at 1000 ms, 20 at 1050, then 10.
            UInt64(max(10, min(40, 30 - (now / Self.ms - 1000) / 5))) * Self.mib
        }
        #expect(at == 1150 * Self.ms)
    }

    @Test func whatGoesOnFallingIsNotWaitedForLong() {
        var watch = SlotWatch(used: 400 * Self.mib, now: 0)
        let at = firstRipe(&watch, for: 10_000 * Self.ms) { now in
            400 * Self.mib - UInt64(now / Self.ms) * 4096 * 10
        }
        #expect(at == 450 * Self.ms)
    }

    @Test func growthAndSmallChangesAreNoReason() {
        var watch = SlotWatch(used: 0, now: 0)
        let at = firstRipe(&watch, for: 60_000 * Self.ms) { now in
            20 * Self.mib + UInt64(now) % (63 * 4096) / 4096 * 4096
        }
        #expect(at == nil)
    }

    /// Frees that stay in the caches are not seen at all: what is left may be all the kernel's, and is asked for once.
    @Test func aLittleThatStaysIsAskedForOnce() {
        var watch = SlotWatch(used: 0, now: 0)
        let at = firstRipe(&watch, for: 60_000 * Self.ms) { _ in 100 * 4096 }
        #expect(at == SlotWatch.still)
        watch.flushed(used: 50 * 4096, now: SlotWatch.still)
        let again = firstRipe(&watch, for: 60_000 * Self.ms) { _ in 50 * 4096 }
        #expect(again == nil)
        let empty = firstRipe(&watch, for: 60_000 * Self.ms) { _ in 0 }
        #expect(empty == nil)
    }

    @Test func afterAFlushItTakesAnotherFall() {
        var watch = SlotWatch(used: 40 * Self.mib, now: 0)
        let atOnce = watch.look(used: 20 * Self.mib, kept: Self.kept, now: 50 * Self.ms)
        #expect(!atOnce && watch.hasFallen)
        let later = watch.look(used: 20 * Self.mib, kept: Self.kept, now: 100 * Self.ms)
        #expect(later)
        watch.flushed(used: 19 * Self.mib, now: 110 * Self.ms)
        #expect(!watch.hasFallen)
        let again = firstRipe(&watch, for: 60_000 * Self.ms) { _ in 19 * Self.mib }
        #expect(again == nil)
    }

    /// What far memory says may be older than the fall: it is asked again, but not for ever.
    @Test func declinedIsAskedAgainForAWhile() {
        var watch = SlotWatch(used: 40 * Self.mib, now: 0)
        var asked = 0
        for step in 0..<200 {
            let now = Int64(step) * 50 * Self.ms
            if watch.look(used: 20 * Self.mib, kept: Self.kept, now: now) {
                asked += 1
                watch.declined(now: now)
            }
        }
        #expect((20...60).contains(asked))
        #expect(!watch.hasFallen)
    }

    @Test func theBudgetBoundsHowOften() {
        var budget = FlushBudget()
        var times: [Int64] = []
        for step in 0..<(200 * 20) {
            let now = Int64(step) * 50 * Self.ms
            if budget.allows(now: now) {
                budget.spend(now: now)
                times.append(now)
            }
        }
        #expect(zip(times, times.dropFirst()).allSatisfy { $1 - $0 >= FlushBudget.shortest })
        #expect(times.count { $0 < 10_000 * Self.ms } == 10)
        // Ten and one every ten seconds of two hundred.
        #expect((28...30).contains(times.count))
    }
}

@Suite struct SwapSlotCacheTests {
    @Test func whatTheKernelListsCounts() {
        let states = "  0: offline\n147: lib/radix:dead\n198: swap_slots_cache\n"
        #expect(SwapSlotCaches.arePresent(states: states, release: "6.18.0"))
        #expect(!SwapSlotCaches.arePresent(states: "  0: offline\n", release: "6.1.0-56-amd64"))
    }

    @Test(arguments: [
        ("6.1.192", true), ("6.12.117+deb12-amd64", true), ("6.14.11", true), ("4.11.0-rc1", true),
        ("6.15.0-rc1", false), ("6.18.3", false), ("7.0", false), ("4.9.1", false),
        ("3.20.0", false), ("", false), ("six", false),
    ])
    func elseItsReleaseDoes(release: String, expected: Bool) {
        #expect(SwapSlotCaches.arePresent(states: nil, release: release) == expected)
    }
}

@Suite struct SlotFlusherStateTests {
    @Test func countsSurviveTheProcess() throws {
        let scratch = try TemporaryDirectory()
        let directory = DeviceDirectory(runtime: scratch.path)
        #expect(directory.flusherState() == nil)
        var state = SlotFlusherState()
        state.pid = 1
        state.start = UInt64.max
        state.flushes = 3
        state.failures = 2
        state.slots = 512
        try directory.save(state)
        #expect(directory.flusherState() == state)
        // The pid is another process's.
        #expect(!state.isAlive)
    }

    @Test func onlyDevicesThatWantItCount() throws {
        let scratch = try TemporaryDirectory()
        let directory = DeviceDirectory(runtime: scratch.path)
        var record = DeviceRecord(name: "a", url: "", size: .mib(4), frontend: "fuse")
        try directory.save(record)
        #expect(directory.flushed().isEmpty)
        record.flushesSlots = true
        try directory.save(record)
        #expect(directory.flushed() == [record])
    }

    /// There is one on a host: who does not get the lock has nothing to do.
    @Test func oneLooksAfterAllDevices() throws {
        let scratch = try TemporaryDirectory()
        let directory = DeviceDirectory(runtime: scratch.path)
        try makeDirectories(directory.root)
        func isFree() throws -> Bool {
            guard let lock = try directory.lockFlusher() else { return false }
            _ = consume lock
            return true
        }
        guard let lock = try directory.lockFlusher() else {
            Issue.record("nobody has the lock")
            return
        }
        #expect(try !isFree())
        _ = consume lock
        #expect(try isFree())
    }
}
