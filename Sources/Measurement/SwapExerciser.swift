import CLinuxShims
package import FarMemory
import Glibc
package import LinuxSystem

/// What one run of the exerciser measured. Times in nanoseconds.
package struct SwapMeasurement: Sendable {
    package var pages = 0
    /// Pages per second of the page-out call, and until nothing of the region was in memory.
    package var pageOutPerSecond = 0.0
    package var pageOutCompletePerSecond = 0.0
    /// Time per touched page that came back by a major fault, sorted.
    package var faults: [Int64] = []
    /// All of the random touches, verification included.
    package var randomPerSecond = 0.0
    package var sequentialPerSecond = 0.0
    package var prefetchPerSecond = 0.0
    package var majorFaults = 0
    package var wrongPages = 0

    /// The ratio-th percentile of the random faults.
    package func percentile(_ ratio: Double) -> Int64 {
        faults.isEmpty ? 0 : faults[min(faults.count - 1, Int(Double(faults.count) * ratio))]
    }
}

/// Pages a region of this process out and touches it again, against whatever swap the kernel uses.
/// Every page carries its own number and generation, and is verified when it comes back.
///
/// The region lives in a memory control group of its own (v1 or v2): an asynchronous swap device leaves
/// written pages in the swap cache, and only reclaim within the group takes them out of memory.
package struct SwapExerciser: ~Copyable {
    private let region: MemoryMapping
    private let pages: Int
    private let group: String?
    private var generation: UInt64 = 0
    /// What lies between the region's pages in swap.
    private var filler: MemoryMapping?
    private let contents = HeapContents()

    /// - Parameter group: a directory of the memory controller that this process is in, made by the
    ///   caller; nil leaves pages in the swap cache after page-out.
    package init(size: ByteCount, group: String?) throws(SystemError) {
        region = try MemoryMapping(anonymous: Int(size.bytes))
        pages = Int(size.pages.pages)
        self.group = group
    }

    /// Writes every page: 8 words of it differ from every other page and from every other generation.
    package mutating func fill() {
        generation += 1
        for page in 0..<pages { stamp(page) }
    }

    /// Cheap, for it is measured with every touch; each product is another one, so that no two words of a run are alike.
    @inline(__always) private func word(_ page: Int, _ index: Int) -> UInt64 {
        let key = generation << 40 ^ UInt64(page) << 8 ^ UInt64(index) &+ 1
        return key &* 0x9e37_79b9_7f4a_7c15 ^ key >> 29
    }

    private func stamp(_ page: Int) {
        let base = unsafe region.base + page * pageBytes
        unsafe contents.fill(base, seed: generation << 32 ^ UInt64(page))
        for index in 0..<8 {
            unsafe base.storeBytes(
                of: word(page, index), toByteOffset: index * 512, as: UInt64.self)
        }
    }

    private func isRight(_ page: Int) -> Bool {
        let base = unsafe region.base + page * pageBytes
        for index in 0..<8 {
            guard
                unsafe base.load(fromByteOffset: index * 512, as: UInt64.self) == word(page, index)
            else { return false }
        }
        return true
    }

    /// Pages everything out; measures the call and the time until all of it has left memory.
    package func pageOut(_ result: inout SwapMeasurement) throws(SystemError) {
        let start = monotonicNow()
        try check("madvise(PAGEOUT)") {
            unsafe fm_madvise(region.base, region.count, FM_ADVICE_PAGEOUT)
        }
        let called = monotonicNow()
        result.pageOutPerSecond = Double(pages) * 1e9 / Double(called - start)
        let deadline = called + 30_000_000_000
        while residentPages() > pages / 50, monotonicNow() < deadline {
            reclaim(residentPages() * pageBytes)
        }
        result.pageOutCompletePerSecond = Double(pages) * 1e9 / Double(monotonicNow() - start)
    }

    /// Takes all of the swap that is free and gives every other page of it back, so that the region's pages find hardly two
    /// neighbouring places: what a swap area is like after days. Before `run`. `ENOSPC` when that leaves too few places.
    package mutating func fragment() throws(SystemError) {
        let free = try swapAreas().reduce(0) { $0 + Int($1.size - $1.used) / pageBytes }
        // What processors set aside of slots is not free, nor is all of what they keep of freed ones.
        let count = free - 512
        guard count / 2 > pages + 256 else {
            throw SystemError(call: "fragment the swap area", code: ENOSPC)
        }
        let memory = try MemoryMapping(anonymous: count * pageBytes)
        for start in stride(from: 0, to: count, by: 1024) {
            let length = min(1024, count - start)
            for page in start..<(start + length) {
                let base = unsafe memory.base + page * pageBytes
                unsafe contents.fill(base, seed: UInt64(page))
            }
            try check("madvise(PAGEOUT)") {
                unsafe fm_madvise(
                    memory.base + start * pageBytes, length * pageBytes, FM_ADVICE_PAGEOUT)
            }
        }
        let deadline = monotonicNow() + 30_000_000_000
        while residentPages() > 64, monotonicNow() < deadline {
            reclaim(residentPages() * pageBytes)
        }
        for page in stride(from: 1, to: count, by: 2) {
            try check("madvise(DONTNEED)") {
                unsafe madvise(memory.base + page * pageBytes, pageBytes, MADV_DONTNEED)
            }
        }
        filler = consume memory
    }

    /// Pages of the region in memory, mapped or in the swap cache.
    private func residentPages() -> Int {
        guard let group else { return 0 }
        for name in ["memory.usage_in_bytes", "memory.current"] {
            do throws(SystemError) {
                let text = try readSmallText("\(group)/\(name)")
                guard let bytes = Int(text.split(separator: "\n").first ?? "") else { continue }
                return max(0, bytes / pageBytes - baseline)
            } catch { continue }
        }
        return 0
    }

    /// What the group holds besides the region, pages: this program's own pages are charged elsewhere.
    private var baseline: Int { 64 }

    private func reclaim(_ bytes: Int) {
        guard let group, bytes > 0 else { return }
        do throws(SystemError) {
            if fileExists("\(group)/memory.reclaim") {
                try writeKernelFile("\(group)/memory.reclaim", "\(bytes)")
            } else {
                try writeKernelFile("\(group)/memory.force_empty", "0")
            }
        } catch {
            // EAGAIN or EBUSY: not all of it could be had at once. The caller looks again.
            sleepNanoseconds(1_000_000)
        }
    }

    /// Touches every page once in random order, without readahead, and times the major faults.
    package func touchRandomly(
        seed: UInt64, _ result: inout SwapMeasurement
    ) throws(SystemError) {
        try check("madvise(RANDOM)") {
            unsafe madvise(region.base, region.count, MADV_RANDOM)
        }
        var order = Array(0..<pages)
        var random = SeededRandom(seed: seed)
        order.shuffle(using: &random)
        result.faults.reserveCapacity(result.faults.count + pages)
        var before = majorFaults()
        let begin = monotonicNow()
        for page in order {
            let start = monotonicNow()
            let right = isRight(page)
            let taken = monotonicNow() - start
            let after = majorFaults()
            if after != before { result.faults.append(taken) }
            before = after
            if !right { result.wrongPages += 1 }
        }
        result.randomPerSecond = Double(pages) * 1e9 / Double(monotonicNow() - begin)
        result.faults.sort()
        try check("madvise(NORMAL)") {
            unsafe madvise(region.base, region.count, MADV_NORMAL)
        }
    }

    /// Touches every page in order, with the kernel's readahead.
    package func touchSequentially(_ result: inout SwapMeasurement) {
        let start = monotonicNow()
        for page in 0..<pages where !isRight(page) { result.wrongPages += 1 }
        result.sequentialPerSecond = Double(pages) * 1e9 / Double(monotonicNow() - start)
    }

    /// Asks for all of it at once (WILLNEED), then touches it.
    package func prefetch(_ result: inout SwapMeasurement) throws(SystemError) {
        let start = monotonicNow()
        try check("madvise(WILLNEED)") {
            unsafe fm_madvise(region.base, region.count, FM_ADVICE_WILLNEED)
        }
        for page in 0..<pages where !isRight(page) { result.wrongPages += 1 }
        result.prefetchPerSecond = Double(pages) * 1e9 / Double(monotonicNow() - start)
    }

    /// Random and sequential touches while only half of the region may be in memory, so that each
    /// page that comes in pushes another one out: what a process that does not fit feels.
    package mutating func runUnderPressure(
        seed: UInt64, in own: borrowing OwnMemoryGroup
    ) throws(SystemError) -> SwapMeasurement {
        var result = SwapMeasurement()
        result.pages = pages
        let before = majorFaults()
        fill()
        try own.setLimit(pages / 2 * pageBytes)
        defer { own.clearLimit() }
        try touchRandomly(seed: seed, &result)
        touchSequentially(&result)
        result.majorFaults = majorFaults() - before
        return result
    }

    /// All steps once.
    package mutating func run(seed: UInt64) throws(SystemError) -> SwapMeasurement {
        var result = SwapMeasurement()
        result.pages = pages
        let before = majorFaults()
        fill()
        try pageOut(&result)
        try touchRandomly(seed: seed, &result)
        fill()
        var rest = SwapMeasurement()
        try pageOut(&rest)
        touchSequentially(&result)
        fill()
        try pageOut(&rest)
        try prefetch(&result)
        result.majorFaults = majorFaults() - before
        return result
    }
}

/// Major faults of this process so far.
func majorFaults() -> Int {
    var usage = rusage()
    unsafe getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_majflt
}

/// A control group for this process alone, left and removed at the end.
package struct OwnMemoryGroup: ~Copyable {
    /// Its directory, nil when there is no memory controller to be had.
    package let path: String?
    private let procs: String

    package init() {
        for root in ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"]
        where fileExists("\(root)/cgroup.procs") {
            let path = "\(root)/farmem-bench-\(getpid())"
            guard unsafe mkdir(path, 0o755) == 0 else { continue }
            do throws(SystemError) {
                try writeKernelFile("\(path)/cgroup.procs", "0")
                self.path = path
                procs = "\(root)/cgroup.procs"
                return
            } catch {
                unsafe rmdir(path)
            }
        }
        path = nil
        procs = ""
    }

    /// Limits the group (memory without swap); trying for as long as reclaim takes.
    package func setLimit(_ bytes: Int) throws(SystemError) {
        guard let path else { throw SystemError(call: "limit a memory group", code: ENOTSUP) }
        let name = fileExists("\(path)/memory.max") ? "memory.max" : "memory.limit_in_bytes"
        let deadline = monotonicNow() + 10_000_000_000
        while true {
            do throws(SystemError) {
                return try writeKernelFile("\(path)/\(name)", "\(bytes)")
            } catch {
                guard error.code == EBUSY, monotonicNow() < deadline else { throw error }
            }
        }
    }

    /// A group that waits for reclaim instead of ending its processes, where the controller can (v1):
    /// a swap device that is being killed all the time is slow, not gone.
    package func waitInsteadOfKilling() {
        guard let path, fileExists("\(path)/memory.oom_control") else { return }
        do throws(SystemError) {
            try writeKernelFile("\(path)/memory.oom_control", "1")
        } catch { return }
    }

    /// Takes this process out; the ones that it started stay in.
    package func leave() throws(SystemError) {
        if path != nil { try writeKernelFile(procs, "0") }
    }

    /// Wakes a group that waits for memory (`waitInsteadOfKilling`): its tasks sleep until the limit is raised, so it is, by a
    /// mebibyte for a moment. True when it was needed. To be called by a process outside of the group.
    package func wakeWaiting(limit: Int) -> Bool {
        guard let path else { return false }
        do throws(SystemError) {
            let control = "\(path)/memory.oom_control"
            guard fileExists(control), try readSmallText(control).contains("under_oom 1") else {
                return false
            }
            try writeKernelFile("\(path)/memory.limit_in_bytes", "\(limit + (1 << 20))")
        } catch {
            return false
        }
        do throws(SystemError) {
            try writeKernelFile("\(path)/memory.limit_in_bytes", "\(limit)")
        } catch {
            // Not all of it could be reclaimed at once: it stays a little higher until the next time.
        }
        return true
    }

    package func clearLimit() {
        guard let path else { return }
        let v2 = fileExists("\(path)/memory.max")
        do throws(SystemError) {
            try writeKernelFile(
                v2 ? "\(path)/memory.max" : "\(path)/memory.limit_in_bytes", v2 ? "max" : "-1")
        } catch { return }
    }

    deinit {
        guard let path else { return }
        do throws(SystemError) {
            try writeKernelFile(procs, "0")
        } catch { return }
        unsafe rmdir(path)
    }
}
