import CLinuxShims
import Fabric
import FabricNBD
import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol
import TestSupport
import Testing

@Suite struct NBDBudgetTests {
    /// Client and server live in a process of their own, whose allocations are all counted.
    @Test func nothingIsAllocatedPerRequestOnEitherSide() async {
        await #expect(processExitsWith: .success) {
            let served = try ServedScratch()
            let deadline = monotonicNow() + 60_000_000_000
            let fabric = try FabricNBD(
                NBDURI(endpoint: .unix(path: served.path), export: "x"), deadline: deadline)
            let channel = try fabric.makeChannel()
            let staging = try MemoryMapping(anonymous: 64 * pageBytes, populate: true)
            let vectors = UnsafeMutablePointer<iovec>.allocate(capacity: 64)
            let pages = PageRange(first: 100, count: 64)
            func round() throws(FabricError) {
                unsafe try channel.store(pages, from: staging.base, deadline: deadline)
                unsafe _ = try channel.load(
                    pages, staging: staging.base, vectors: vectors, deadline: deadline)
                try channel.discard(PageRange(first: 110, count: 3), deadline: deadline)
            }
            for _ in 0..<50 { try round() }
            let before = allocationsOfProcess()
            for _ in 0..<300 { try round() }
            let allocated = allocationsOfProcess() - before
            unsafe vectors.deallocate()
            guard allocated == 0 else {
                print("\(allocated) allocations in 900 requests")
                exit(1)
            }
        }
    }
}
