import CVerbsShims
import Fabric
import FarMemory
import Glibc
import LinuxSystem
import Synchronization

/// One thread's way into the lease. Allocates nothing.
@safe final class RDMAFabricChannel: FabricChannel {
    private let fabric: FabricRDMA
    private let queue: RDMADataQueue
    private let pagesPerSlab: Int
    /// Slabs whose gates the batch is inside of.
    private var entered = InlineArray<64, Int>(repeating: 0)
    private var enteredCount = 0
    /// The first page of each request of the batch.
    private var firstPages = InlineArray<64, Int>(repeating: 0)

    init(_ fabric: FabricRDMA, _ queue: RDMADataQueue) {
        self.fabric = fabric
        self.queue = queue
        pagesPerSlab = fabric.record.pagesPerSlab
    }

    private func bits(_ range: PageRange) throws(FabricError) -> Range<Int> {
        guard range.count > 0, range.end <= UInt64(fabric.pages.count) else { throw .outOfRange }
        return Int(range.first)..<Int(range.end)
    }

    // MARK: Batches

    /// Runs `body` with the queue to itself. When it fails after something was posted the session is over.
    private func withQueue(_ body: () throws(FabricError) -> Void) throws(FabricError) {
        queue.lock()
        defer { queue.unlock() }
        try fabric.checkState()
        guard queue.isConnected else { throw .unreachable }
        queue.begin()
        defer { leaveSlabs() }
        try body()
    }

    private func leaveSlabs() {
        for index in 0..<enteredCount { fabric.gates.leave(entered[index]) }
        enteredCount = 0
    }

    /// Adds pages of one slab.
    private func add(
        _ operation: fm_rdma_operation, _ pages: Range<Int>, deadline: Int64
    ) throws(FabricError) -> UnsafeMutableRawPointer {
        let slab = pages.lowerBound / pagesPerSlab
        try fabric.enterSlab(slab, deadline: deadline)
        entered[enteredCount] = slab
        enteredCount += 1
        firstPages[queue.requests] = pages.lowerBound
        let address =
            fabric.base.load(ordering: .acquiring) + UInt64(pages.lowerBound) * UInt64(pageBytes)
        // SAFETY: the slab lies in the lease: its pages were checked against the size.
        return unsafe queue.add(
            operation, pages: pages.count, address: address, key: fabric.keys[slab])
    }

    private func run(deadline: Int64) throws(FabricError) {
        do throws(FabricError) {
            try queue.run(until: deadline)
        } catch {
            fabric.noteFault(error)
            throw error
        }
    }

    /// Where a piece from `page` on must end: at the slab's border, and within the batch.
    private func pieceEnd(_ page: Int, _ end: Int) -> Int {
        min(end, (page / pagesPerSlab + 1) * pagesPerSlab, page + queue.room)
    }

    // MARK: Requests

    func load(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>, deadline: Int64
    ) throws(FabricError) -> Int {
        let bits = try bits(range)
        if fabric.state == .lost { throw .leaseLost }
        var filled = 0
        var stored = false
        var page = bits.lowerBound
        while page < bits.upperBound {
            let run = fabric.pages.run(page..<bits.upperBound)
            // SAFETY: the caller's staging and vectors have room for the whole range.
            if run.isSet {
                stored = true
                unsafe vectors[filled] = iovec(
                    iov_base: staging + (page - bits.lowerBound) * pageBytes,
                    iov_len: run.count * pageBytes)
                page += run.count
            } else {
                let count = min(run.count, FabricRDMA.zeroBytes / pageBytes)
                unsafe vectors[filled] = iovec(
                    iov_base: fabric.zeros.base, iov_len: count * pageBytes)
                page += count
            }
            filled += 1
        }
        if stored {
            try withQueue { () throws(FabricError) in
                try unsafe read(
                    vectors, filled, bits.lowerBound, into: staging, deadline: deadline)
            }
        }
        return filled
    }

    /// READs what the vectors that lie in the staging describe.
    private func read(
        _ vectors: UnsafeMutablePointer<iovec>, _ count: Int, _ first: Int,
        into staging: UnsafeMutableRawPointer, deadline: Int64
    ) throws(FabricError) {
        var page = first
        for index in 0..<count {
            // SAFETY: the first `count` vectors were filled by `load`, whole pages each.
            let end = unsafe page + vectors[index].iov_len / pageBytes
            let isZeros = unsafe vectors[index].iov_base == fabric.zeros.base
            while !isZeros && page < end {
                if queue.room == 0 { try unsafe flushRead(first, staging, deadline: deadline) }
                let next = pieceEnd(page, end)
                _ = unsafe try add(FM_RDMA_READ, page..<next, deadline: deadline)
                page = next
            }
            page = end
        }
        if !queue.isEmpty { try unsafe flushRead(first, staging, deadline: deadline) }
    }

    private func flushRead(
        _ first: Int, _ staging: UnsafeMutableRawPointer, deadline: Int64
    ) throws(FabricError) {
        try run(deadline: deadline)
        for index in 0..<queue.requests {
            let piece = unsafe queue.staged(index)
            // SAFETY: the pieces are parts of the range that the caller's staging has room for.
            unsafe (staging + (firstPages[index] - first) * pageBytes).copyMemory(
                from: piece.memory, byteCount: piece.byteCount)
        }
        leaveSlabs()
        queue.begin()
    }

    func store(
        _ range: PageRange, from bytes: UnsafeRawPointer, deadline: Int64
    ) throws(FabricError) {
        let bits = try bits(range)
        try withQueue { () throws(FabricError) in
            var page = bits.lowerBound
            while page < bits.upperBound {
                if queue.room == 0 { try flushWrite(deadline: deadline) }
                let next = pieceEnd(page, bits.upperBound)
                let target = unsafe try add(FM_RDMA_WRITE, page..<next, deadline: deadline)
                // SAFETY: the range lies in `bytes`; the batch has room for the piece.
                unsafe target.copyMemory(
                    from: bytes + (page - bits.lowerBound) * pageBytes,
                    byteCount: (next - page) * pageBytes)
                page = next
            }
            try flushWrite(deadline: deadline)
        }
    }

    private func flushWrite(deadline: Int64) throws(FabricError) {
        try run(deadline: deadline)
        for index in 0..<queue.requests {
            let first = firstPages[index]
            let count = unsafe queue.staged(index).byteCount / pageBytes
            fabric.pages.set(first..<first + count)
        }
        leaveSlabs()
        queue.begin()
    }

    func discard(_ range: PageRange, deadline: Int64) throws(FabricError) {
        fabric.pages.clear(try bits(range))
        fabric.noteDiscard()
    }
}
