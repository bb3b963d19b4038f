import FarMemory
import Glibc
import LinuxSystem
import MemoryServer
import Synchronization

/// A backing without a pool: anonymous memory, granted slab by slab up to a capacity.
final class ScratchBacking: ExportBacking {
    private let memory: MemoryMapping
    private let bits: MemoryMapping
    private let granted: Mutex<(slabs: [Bool], count: Int)>
    private let capacity: Int
    let sizeBytes: UInt64
    let slabPages = 256
    let epoch: UInt64

    init(mebibytes: Int, capacity: Int? = nil, epoch: UInt64 = 77) throws(SystemError) {
        self.epoch = epoch
        sizeBytes = UInt64(mebibytes) << 20
        self.capacity = capacity ?? mebibytes
        memory = try MemoryMapping(anonymous: mebibytes << 20)
        bits = try MemoryMapping(anonymous: max(4096, mebibytes * 32))
        granted = Mutex(([Bool](repeating: false, count: mebibytes), 0))
    }

    var base: UnsafeMutableRawPointer { unsafe memory.base }
    var pageWords: UnsafeMutablePointer<Atomic<UInt64>> {
        unsafe bits.base.assumingMemoryBound(to: Atomic<UInt64>.self)
    }
    var grantedSlabs: Int { granted.withLock { $0.count } }

    func isGranted(slab: Int) -> Bool { granted.withLock { $0.slabs[slab] } }

    func grant(slab: Int) -> Bool {
        granted.withLock { granted in
            if granted.slabs[slab] { return true }
            if granted.count == capacity { return false }
            granted.slabs[slab] = true
            granted.count += 1
            return true
        }
    }

    func giveBack(slab: Int) {
        granted.withLock { granted in
            granted.slabs[slab] = false
            granted.count -= 1
        }
        unsafe _ = madvise(memory.base + slab << 20, 1 << 20, MADV_DONTNEED)
    }
}

/// One export named "x" for everyone, and "mine" for the key "alice".
struct ScratchExports: NBDExports {
    let backing: ScratchBacking
    let memory: ExportMemory

    init(mebibytes: Int, capacity: Int? = nil, epoch: UInt64 = 77) throws(SystemError) {
        backing = try ScratchBacking(mebibytes: mebibytes, capacity: capacity, epoch: epoch)
        memory = ExportMemory(backing)
    }

    func names(key: String?) -> [String] { key == "alice" ? ["x", "mine"] : ["x"] }
    func size(_ name: String, key: String?) -> UInt64? {
        names(key: key).contains(name) ? memory.sizeBytes : nil
    }
    func open(_ name: String, key: String?) throws(NBDOpenFailure) -> NBDOpenExport {
        guard names(key: key).contains(name) else { throw .unknown }
        return NBDOpenExport(memory: memory, close: {})
    }
}
