import Fabric
import FarMemory
import Glibc
import LinuxSystem

/// One thread's way into the mapped lease. Allocates nothing.
@safe final class ShmChannel: FabricChannel {
    private let fabric: FabricShm
    private let pagesPerSlab: Int

    init(_ fabric: FabricShm) {
        self.fabric = fabric
        pagesPerSlab = fabric.slabBytes / pageBytes
    }

    private func bits(_ range: PageRange) throws(FabricError) -> Range<Int> {
        guard range.count > 0, range.end <= UInt64(fabric.pages.count) else { throw .outOfRange }
        return Int(range.first)..<Int(range.end)
    }

    func load(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>, deadline: Int64
    ) throws(FabricError) -> Int {
        let bits = try bits(range)
        var filled = 0
        var page = bits.lowerBound
        while page < bits.upperBound {
            let run = fabric.pages.run(page..<bits.upperBound)
            if run.isSet {
                unsafe vectors[filled] = iovec(
                    iov_base: fabric.data.base + page * pageBytes, iov_len: run.count * pageBytes)
                filled += 1
                page += run.count
            } else {
                // A page that holds nothing: its memory, if it has any, is not touched.
                let count = min(run.count, FabricShm.zeroBytes / pageBytes)
                unsafe vectors[filled] = iovec(
                    iov_base: fabric.zeros.base, iov_len: count * pageBytes)
                filled += 1
                page += count
            }
        }
        try fabric.checkLease()
        return filled
    }

    func store(
        _ range: PageRange, from bytes: UnsafeRawPointer, deadline: Int64
    ) throws(FabricError) {
        let bits = try bits(range)
        if fabric.state == .lost { throw .leaseLost }
        var page = bits.lowerBound
        while page < bits.upperBound {
            let slab = page / pagesPerSlab
            let end = min((slab + 1) * pagesPerSlab, bits.upperBound)
            try fabric.enterSlab(slab, deadline: deadline)
            // SAFETY: the range was checked against the lease, the gate keeps the slab granted.
            unsafe (fabric.data.base + page * pageBytes).copyMemory(
                from: bytes + (page - bits.lowerBound) * pageBytes,
                byteCount: (end - page) * pageBytes)
            fabric.pages.set(page..<end)
            fabric.gates.leave(slab)
            page = end
        }
        try fabric.checkLease()
    }

    func discard(_ range: PageRange, deadline: Int64) throws(FabricError) {
        fabric.pages.clear(try bits(range))
        fabric.noteDiscard()
    }
}
