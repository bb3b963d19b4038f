import Glibc
package import LinuxSystem

/// What the page table of a process says about its private anonymous pages. A page in the swap
/// cache that is not mapped counts as swapped here, though it is still in local memory.
package struct PageCensus: Equatable, Sendable {
    /// Mapped by this process alone: what process_madvise can move.
    package var present = PageRuns()
    /// Swap entries.
    package var swapped = PageRuns()
    /// Pages mapped that other processes map too (after fork), which process_madvise leaves alone.
    package var sharedPages: UInt64 = 0

    package init() {}
}

/// Reads /proc/PID/pagemap through one buffer that it owns: nothing is allocated per page.
/// Belongs to one thread.
@safe package final class PageMapReader {
    // Documentation/admin-guide/mm/pagemap.rst.
    private static let presentBit: UInt64 = 1 << 63
    private static let swappedBit: UInt64 = 1 << 62
    private static let fileOrSharedBit: UInt64 = 1 << 61
    private static let exclusiveBit: UInt64 = 1 << 56

    private let buffer: UnsafeMutableBufferPointer<UInt64>
    private let capacity: UInt64
    /// Whole address spaces that were read: the dear part of an action.
    package private(set) var censuses: UInt64 = 0

    /// `pagesAtOnce`: entries per read; 32768 (256 KiB) cover 128 MiB of address space.
    package init(pagesAtOnce: Int = 32768) {
        precondition(pagesAtOnce > 0, "a buffer has room")
        unsafe buffer = .allocate(capacity: pagesAtOnce)
        capacity = UInt64(pagesAtOnce)
    }

    deinit { unsafe buffer.deallocate() }

    /// Reads the entries of the areas. An area that went away meanwhile reads as nothing.
    package func census(
        of areas: [MemoryArea], pageMap: borrowing FileDescriptor
    ) throws(SystemError) -> PageCensus {
        censuses += 1
        var census = PageCensus()
        for area in areas {
            try scan(first: area.first, end: area.end, pageMap: pageMap, into: &census)
        }
        return census
    }

    /// Reads the entries of the pages of a set only.
    package func census(
        of runs: PageRuns, pageMap: borrowing FileDescriptor
    ) throws(SystemError) -> PageCensus {
        var census = PageCensus()
        for run in runs.runs {
            try scan(first: run.first, end: run.end, pageMap: pageMap, into: &census)
        }
        return census
    }

    private func scan(
        first: UInt64, end: UInt64, pageMap: borrowing FileDescriptor,
        into census: inout PageCensus
    ) throws(SystemError) {
        var page = first
        let raw = pageMap.rawValue
        while page < end {
            let want = Int(min(end - page, capacity))
            // SAFETY: want entries fit the buffer.
            let got = unsafe pread(raw, buffer.baseAddress, want * 8, off_t(page * 8))
            if got < 0 {
                if errno == EINTR { continue }
                // EFAULT: beyond the address space, as [vsyscall] is.
                if errno == EFAULT { return }
                throw SystemError.last("read pagemap")
            }
            let entries = got / 8
            if entries == 0 { return }
            for index in 0..<entries { note(page + UInt64(index), unsafe buffer[index], &census) }
            page += UInt64(entries)
        }
    }

    @inline(__always)
    private func note(_ page: UInt64, _ entry: UInt64, _ census: inout PageCensus) {
        if entry & Self.swappedBit != 0 {
            census.swapped.append(first: page, count: 1)
        } else if entry & Self.presentBit != 0 && entry & Self.fileOrSharedBit == 0 {
            if entry & Self.exclusiveBit != 0 {
                census.present.append(first: page, count: 1)
            } else {
                census.sharedPages += 1
            }
        }
    }
}
