import Fabric
import FarMemory
import Glibc
import SwapDevice

/// A channel over plain memory that fails when told to.
@safe final class FaultyChannel: FabricChannel {
    var memory: [UInt64: [UInt8]] = [:]
    var failures: [FabricError] = []

    private func failIfTold() throws(FabricError) {
        if !failures.isEmpty { throw failures.removeFirst() }
    }

    func load(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>, deadline: Int64
    ) throws(FabricError) -> Int {
        try failIfTold()
        for index in 0..<range.count {
            let bytes =
                memory[range.first + UInt64(index)] ?? [UInt8](repeating: 0, count: pageBytes)
            unsafe (staging + index * pageBytes).copyMemory(from: bytes, byteCount: pageBytes)
        }
        unsafe vectors[0] = iovec(iov_base: staging, iov_len: range.count * pageBytes)
        return 1
    }

    func store(
        _ range: PageRange, from bytes: UnsafeRawPointer, deadline: Int64
    ) throws(FabricError) {
        try failIfTold()
        for index in 0..<range.count {
            memory[range.first + UInt64(index)] = unsafe Array(
                UnsafeRawBufferPointer(start: bytes + index * pageBytes, count: pageBytes))
        }
    }

    func discard(_ range: PageRange, deadline: Int64) throws(FabricError) {
        try failIfTold()
        for page in range.first..<range.end { memory[page] = nil }
    }
}

final class TestClock: PathClock {
    var time: Int64 = 1
    func now() -> Int64 { time }
    func sleep(until moment: Int64) { time = max(time, moment) }
}
