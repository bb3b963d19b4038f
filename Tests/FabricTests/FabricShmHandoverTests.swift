import Fabric
import FabricShm
import FarMemory
import Glibc
import LinuxSystem
import MemoryPool
import TestSupport
import Testing

/// A process that goes on with another one's lease.
@Suite("What a user of shared memory leaves its successor", .serialized)
struct FabricShmHandoverTests {
    private let size = ByteCount.mib(4)
    private let pages = 1024

    @Test("A successor serves without a server, and has the same lease when it is back")
    func successorWithoutServer() throws {
        let host = try ShmHost(capacity: .mib(8))
        let first = try Client(host, size: size)
        try first.store(0, [1, 2, 3])
        let left = try first.leave()
        host.stop()
        first.close()
        let second = try Client(host, size: size, resuming: left)
        #expect(second.fabric.state == .reconnecting)
        #expect(try second.load(0, 4) == [1, 2, 3, 0])
        try second.store(1, [9])
        try second.discard(2, 1)
        #expect(throws: FabricError.unreachable) { try second.store(pages - 1, [1]) }
        // A third one goes on with what the second left, though that one never had a session.
        let leftAgain = try second.leave()
        second.close()
        let third = try Client(host, size: size, resuming: leftAgain)
        #expect(try third.load(0, 4) == [1, 9, 0, 0])
        try host.start()
        try eventually("it is back") { third.fabric.state == .connected }
        #expect(try third.load(0, 4) == [1, 9, 0, 0])
        try third.store(pages - 1, [4])
        #expect(try third.load(pages - 1, 1) == [4])
        third.close(release: true)
        #expect(host.pool?.leases().isEmpty == true)
    }

    @Test("A successor finds the server there, and its predecessor's session not yet ended")
    func successorBesideAnOldSession() throws {
        let host = try ShmHost(capacity: .mib(8))
        let first = try Client(host, size: size)
        try first.store(0, [1])
        let second = try Client(host, size: size, resuming: first.leave())
        #expect(try second.load(0, 1) == [1])
        sleepNanoseconds(20_000_000)
        #expect(second.fabric.state == .reconnecting)
        first.close()
        try eventually("it has the session") { second.fabric.state == .connected }
        try second.store(pages - 1, [4])
        second.close()
    }

    @Test("A successor whose server comes back with another lease of the name has lost its pages")
    func successorOfALostLease() throws {
        let host = try ShmHost(capacity: .mib(8))
        let first = try Client(host, size: size)
        try first.store(0, [1])
        let left = try first.leave()
        host.stop()
        first.close()
        let second = try Client(host, size: size, resuming: left)
        #expect(try second.load(0, 1) == [1])
        removeTree(host.directory.file("pool"))
        try host.start()
        try host.pool?.create("l", size: size, pinned: false)
        try eventually("it knows") { second.fabric.state == .lost }
        #expect(throws: FabricError.leaseLost) { try second.load(0, 1) }
        second.close()
        // Without anything left but the number, too.
        #expect(throws: ShmSessionError.anotherLease) {
            try Client(host, size: size, epoch: second.fabric.epoch)
        }
        let pool = try #require(host.pool)
        try eventually("the session has ended") { pool.leases().first?.clients == 0 }
        try pool.release("l")
        #expect(throws: ShmSessionError.anotherLease) {
            try Client(host, size: size, epoch: second.fabric.epoch)
        }
        #expect(pool.leases().isEmpty)
    }

    /// The server may still have the give-back before it: it would clear what the successor stored.
    @Test("A slab whose give-back was under way stays closed until there is a session")
    func giveBackUnderWay() throws {
        let host = try ShmHost(capacity: .mib(8))
        let first = try Client(host, size: size)
        try first.store(0, [1])
        try first.store(16, [2])
        let left = try first.leave()
        host.stop()
        first.close()
        let marks = try MemoryMapping(sharing: left.value.descriptors[3], count: 8)
        unsafe marks.base.storeBytes(of: UInt64(1 << 1), as: UInt64.self)
        let second = try Client(host, size: size, resuming: left)
        try second.store(1, [3])
        #expect(throws: FabricError.unreachable) { try second.store(17, [4]) }
        try host.start()
        try eventually("it has the session") { second.fabric.state == .connected }
        #expect(unsafe marks.base.load(as: UInt64.self) == 0)
        try second.store(17, [4])
        #expect(try second.load(16, 2) == [2, 4])
        #expect(try second.load(0, 2) == [1, 3])
        second.close()
    }

    @Test("What is not a lease of ours is refused")
    func wrongHandovers() throws {
        let host = try ShmHost(capacity: .mib(16))
        let client = try Client(host, size: size)
        let good = try client.leave()
        let other = try FabricShm.connect(
            socket: host.socket, leaseName: "other", size: size, key: nil)
        let others = try #require(other.handover)
        var wrong = Array(repeating: good.value, count: 7)
        wrong[0].bytes.removeLast()
        wrong[1].bytes[0] ^= 1
        wrong[2].bytes[16] ^= 1
        wrong[3].bytes = []
        wrong[4].descriptors.removeLast()
        wrong[5].descriptors.swapAt(0, 1)
        wrong[6].descriptors = others.descriptors
        for handover in wrong {
            #expect(throws: SystemError(call: "take a predecessor's lease over", code: EINVAL)) {
                try FabricShm.resume(
                    handover, socket: host.socket, leaseName: "l", size: size, key: nil)
            }
        }
        #expect(throws: SystemError.self) {
            try FabricShm.resume(
                good.value, socket: host.socket, leaseName: "l", size: .mib(2), key: nil)
        }
        other.close(releaseLease: true)
        client.close()
    }
}
