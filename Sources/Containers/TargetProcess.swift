import CLinuxShims
import Glibc
package import LinuxSystem

/// What tells one process and its address space from a later one with the same pid: its start, in clock ticks since boot, and where its
/// stack starts, which exec changes (fields 22 and 28 of /proc/PID/stat).
package struct ProcessIdentity: Hashable, Sendable {
    package var pid: Int32
    package var startTicks: UInt64
    package var stackStart: UInt64

    package init(pid: Int32, startTicks: UInt64, stackStart: UInt64) {
        self.pid = pid
        self.startTicks = startTicks
        self.stackStart = stackStart
    }

    /// Of the process that has the pid now.
    package init(pid: Int32) throws(SystemError) {
        let text = try readSmallText("/proc/\(pid)/stat")
        guard let identity = Self(pid: pid, stat: text) else {
            throw SystemError(call: "read /proc/\(pid)/stat", code: EINVAL)
        }
        self = identity
    }

    /// From a /proc/PID/stat line; the name in parentheses may hold anything.
    package init?(pid: Int32, stat: String) {
        guard let close = stat.lastIndex(of: ")") else { return nil }
        let words = stat[stat.index(after: close)...].split(separator: " ")
        // After the name comes field 3.
        guard words.count > 25, let ticks = UInt64(words[19]), let stack = UInt64(words[25]) else {
            return nil
        }
        self.init(pid: pid, startTicks: ticks, stackStart: stack)
    }
}

/// A process whose pages are moved. All access goes through descriptors that are bound to this very
/// process (pidfd) and its address space (pagemap, mem), so a pid that is reused, or a process that
/// calls exec, makes calls fail; they never reach the wrong memory. After exec it has to be opened again: its identity is another.
/// Any thread, one at a time.
package final class TargetProcess: Sendable {
    package let identity: ProcessIdentity
    private let pidfd: FileDescriptor
    private let pageMap: FileDescriptor
    private let memory: FileDescriptor

    /// Most iovecs that one process_madvise call takes (UIO_MAXIOV).
    private static let rangesAtOnce = 1024

    /// Opens the process that has the pid now. Throws ESRCH or ENOENT when there is none.
    package init(pid: Int32) throws(SystemError) {
        identity = try ProcessIdentity(pid: pid)
        pidfd = try FileDescriptor("pidfd_open", fm_pidfd_open(pid))
        pageMap = try FileDescriptor.open("/proc/\(pid)/pagemap", O_RDONLY)
        memory = try FileDescriptor.open("/proc/\(pid)/mem", O_RDONLY)
        // The pid and the address space were ours through all of these opens if they are still the same.
        guard try ProcessIdentity(pid: pid) == identity, isAlive else {
            throw SystemError(call: "pidfd_open", code: ESRCH)
        }
    }

    /// Whether this very process still runs.
    package var isAlive: Bool { fm_pidfd_send_signal(pidfd.rawValue, 0) == 0 }

    /// Areas that may hold swappable pages, as of now.
    package func memoryAreas() throws(SystemError) -> [MemoryArea] {
        let maps = try readSmallFile("/proc/\(identity.pid)/maps", limit: 16 << 20)
        guard isAlive else { throw SystemError(call: "read maps", code: ESRCH) }
        return parseMemoryAreas(maps)
    }

    /// Where the private anonymous pages are now.
    package func census(using reader: PageMapReader) throws(SystemError) -> PageCensus {
        try reader.census(of: try memoryAreas(), pageMap: pageMap)
    }

    /// Where the pages of a set are now.
    package func census(
        of runs: PageRuns, using reader: PageMapReader
    ) throws(SystemError) -> PageCensus {
        try reader.census(of: runs, pageMap: pageMap)
    }

    /// Advises the kernel on pages: write them out and unmap them, or read them ahead. Ranges that
    /// are gone are passed over. Returns the pages that the kernel accepted.
    package func advise(_ runs: PageRuns, _ advice: PageAdvice) throws(SystemError) -> UInt64 {
        var accepted: UInt64 = 0
        var next = 0
        let all = runs.runs
        while next < all.count {
            let batch = all[next..<min(next + Self.rangesAtOnce, all.count)]
            let ranges = unsafe batch.map { run in
                unsafe iovec(
                    iov_base: UnsafeMutableRawPointer(bitPattern: UInt(run.first * 4096)),
                    iov_len: Int(run.count * 4096))
            }
            let raw = pidfd.rawValue
            let done = unsafe ranges.withUnsafeBufferPointer {
                unsafe fm_process_madvise(raw, $0.baseAddress, $0.count, advice.raw)
            }
            if done < 0 {
                if errno == EINTR { continue }
                // The first range is gone (munmap in between): go on behind it.
                if errno == ENOMEM || errno == EINVAL || errno == EFAULT {
                    next += 1
                    continue
                }
                throw SystemError.last("process_madvise")
            }
            accepted += UInt64(done) / 4096
            next += Self.rangesCovered(batch, bytes: UInt64(done))
        }
        return accepted
    }

    /// Fails when the kernel does not know process_madvise, or not this advice. Moves nothing.
    fileprivate func probeAdvice() throws(SystemError) {
        let raw = pidfd.rawValue
        for advice in [PageAdvice.pageOut, .willNeed] {
            if fm_process_madvise(raw, nil, 0, advice.raw) < 0 {
                throw SystemError.last("process_madvise")
            }
        }
    }

    /// How many ranges of a batch a partial result covers; the one that it stopped in is skipped.
    private static func rangesCovered(_ batch: ArraySlice<PageRun>, bytes: UInt64) -> Int {
        var left = bytes / 4096
        var covered = 0
        for run in batch {
            covered += 1
            if left < run.count { return covered }
            left -= run.count
        }
        return covered
    }

    /// Reads a byte of each page so that what waits in the swap cache is mapped again, range after range until `deadline` (monotonic
    /// nanoseconds): far memory that does not answer holds up each of them. Returns the pages reached.
    package func touch(_ runs: PageRuns, until deadline: Int64 = .max) -> UInt64 {
        var touched: UInt64 = 0
        for run in runs.runs where deadline == .max || monotonicNow() < deadline {
            let done = fm_touch_pages(memory.rawValue, run.first * 4096, Int(run.count))
            if done > 0 { touched += UInt64(done) }
        }
        return touched
    }
}

/// What the kernel is told about pages.
package enum PageAdvice: Sendable {
    /// Deactivate: first to go under pressure.
    case cold
    /// Write out and unmap.
    case pageOut
    /// Read ahead into the swap cache.
    case willNeed

    fileprivate var raw: fm_advice {
        switch self {
        case .cold: FM_ADVICE_COLD
        case .pageOut: FM_ADVICE_PAGEOUT
        case .willNeed: FM_ADVICE_WILLNEED
        }
    }
}

/// Whether this kernel tells about pages and takes advice about another process's: what the generic engine needs. Throws what is missing.
package func probePageAdvice() throws(SystemError) {
    let own = try TargetProcess(pid: getpid())
    _ = try own.census(using: PageMapReader(pagesAtOnce: 512))
    try own.probeAdvice()
}
