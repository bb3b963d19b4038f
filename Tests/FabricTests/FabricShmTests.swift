import Fabric
import FabricShm
import FarMemory
import Glibc
import LinuxSystem
import MemoryPool
import PoolProtocol
import TestSupport
import Testing

@Suite("Far memory over shared memory", .serialized)
struct FabricShmTests {
    private let size = ByteCount.mib(4)
    private let pages = 1024

    @Test func storesLoadsAndDiscards() throws {
        let host = try ShmHost(capacity: .mib(8))
        let client = try Client(host, size: size)
        #expect(try client.load(0, 40) == Array(repeating: 0, count: 40))
        try client.store(10, [1, 2, 3])
        try client.store(30, [4, 5, 6, 7])
        #expect(try client.load(8, 6) == [0, 0, 1, 2, 3, 0])
        #expect(try client.load(30, 4) == [4, 5, 6, 7])
        try client.discard(11, 1)
        #expect(try client.load(10, 3) == [1, 0, 3])
        #expect(client.fabric.counters.pagesStored == 6)
        #expect(throws: FabricError.outOfRange) { try client.store(pages - 1, [1, 2]) }
        #expect(throws: FabricError.outOfRange) { try client.discard(pages, 1) }
        client.close()
    }

    @Test("Slabs come ahead of need and go back when they are empty")
    func slabsComeAndGo() throws {
        let host = try ShmHost(capacity: .mib(8))
        let client = try Client(host, size: size)
        let pool = try #require(host.pool)
        try client.store(0, [9])
        #expect(pool.grantedBytes.bytes > 64 << 10)
        try eventually("only the slab in use stays") { pool.grantedBytes == .kib(64) }
        try client.discard(0, 1)
        try eventually("all slabs are back") { pool.grantedBytes == .zero }
        #expect(try client.load(0, 1) == [0])
        client.close()
    }

    @Test("A full pool refuses a store at once, and serves on when there is room")
    func fullPool() throws {
        let host = try ShmHost(capacity: .kib(256))
        let client = try Client(host, size: size)
        for slab in 0..<4 { try client.store(slab * 16, [UInt8(slab + 1)]) }
        let before = monotonicNow()
        #expect(throws: FabricError.noSpace) { try client.store(4 * 16, [5]) }
        #expect(monotonicNow() - before < 1_000_000_000)
        #expect(try client.load(0, 1) == [1])
        #expect(try client.load(64, 1) == [0])
        try client.store(0, [7])
        try client.discard(16, 1)
        let pool = try #require(host.pool)
        try eventually("the empty slab is back") { pool.grantedBytes == .kib(192) }
        try client.store(4 * 16, [5])
        #expect(try client.load(64, 1) == [5])
        #expect(client.fabric.counters.refusedNoSpace > 0)
        client.close()
    }

    @Test("Keys: none, a wrong one, the right one; a lease belongs to its key")
    func keys() throws {
        let alice = SharedKey(name: "alice", secret: Array(0..<32))
        let bob = SharedKey(name: "bob", secret: Array(32..<64))
        let host = try ShmHost(capacity: .mib(1), keys: [alice, bob])
        #expect(throws: ShmSessionError.keyNeeded) { try Client(host, size: size) }
        let forged = SharedKey(name: "alice", secret: bob.secret)
        let stranger = SharedKey(name: "eve", secret: alice.secret)
        for wrong in [forged, stranger] {
            #expect(
                throws: ShmSessionError.refused(.unauthorized, "the key is not known here")
            ) { try Client(host, size: size, key: wrong) }
        }
        let client = try Client(host, size: size, key: alice)
        try client.store(3, [3])
        client.close()
        #expect(
            throws: ShmSessionError.refused(.unauthorized, "lease 'l' belongs to another key")
        ) { try Client(host, size: size, key: bob) }
    }

    @Test("One session at a time; the next finds every page")
    func exclusiveAndSuccessor() throws {
        let host = try ShmHost(capacity: .mib(8))
        let first = try Client(host, size: size)
        try first.store(100, [1, 2, 3])
        #expect(
            throws: ShmSessionError.refused(
                .busy, "lease 'l' is in use; detach its client first")
        ) { try Client(host, size: size) }
        #expect(throws: ShmSessionError.self) { try Client(host, size: .mib(2)) }
        first.close()
        let second = try Client(host, size: size)
        #expect(try second.load(99, 5) == [0, 1, 2, 3, 0])
        second.close(release: true)
        let pool = try #require(host.pool)
        #expect(pool.leases().isEmpty && pool.grantedBytes == .zero)
    }

    @Test("While the server is away pages are served; it comes back to the same lease")
    func serverRestart() throws {
        let host = try ShmHost(capacity: .mib(8))
        let client = try Client(host, size: size)
        try client.store(0, [1, 2])
        host.stop()
        try eventually("the client notices") { client.fabric.state == .reconnecting }
        #expect(try client.load(0, 2) == [1, 2])
        try client.store(1, [9])
        #expect(throws: FabricError.unreachable) { try client.store(pages - 1, [1]) }
        try host.start()
        try eventually("the client is back") { client.fabric.state == .connected }
        #expect(try client.load(0, 2) == [1, 9])
        try client.store(pages - 1, [4])
        #expect(client.fabric.counters.reconnects == 1)
        client.close()
    }

    @Test("A lease that is gone after a restart is lost, not silently empty")
    func lostLease() throws {
        let host = try ShmHost(capacity: .mib(8))
        let client = try Client(host, size: size)
        try client.store(0, [1])
        host.stop()
        removeTree(host.directory.file("pool"))
        try host.start()
        try eventually("the client knows") { client.fabric.state == .lost }
        #expect(throws: FabricError.leaseLost) { try client.store(0, [1]) }
        #expect(throws: FabricError.leaseLost) { try client.load(0, 1) }
        client.close()
    }

    @Test("A lease that was ended while its client was cut off is lost, not silently empty")
    func endedLease() throws {
        let host = try ShmHost(capacity: .mib(8))
        let client = try Client(host, size: size)
        try client.store(0, [1])
        host.stop()
        do {
            // A server that the client cannot reach ends the lease; the client still has its files mapped.
            let pool = try MemoryPool(
                PoolOptions(
                    directory: host.directory.file("pool"), capacity: .mib(8), slab: .kib(64)))
            let lease = try #require(pool.leases().first)
            try pool.release(lease.lease.name)
        }
        #expect(throws: FabricError.leaseLost) { try client.load(0, 1) }
        #expect(throws: FabricError.leaseLost) { try client.store(0, [2]) }
        #expect(client.fabric.state == .lost)
        client.close()
    }

    @Test func allocatesNothingPerPage() throws {
        let host = try ShmHost(capacity: .mib(8))
        let client = try Client(host, size: size)
        for _ in 0..<10 { try client.touch(7) }
        let count = try allocations { () throws(FabricError) in
            for _ in 0..<1000 { try client.touch(7) }
        }
        #expect(count == 0)
        client.close()
    }

    @Test("Random work under restarts of server and client agrees with a model")
    func againstModel() throws {
        for seed in TestSeed.several(3, first: 11, filter: "FabricShmTests") {
            var random = seed.random
            let host = try ShmHost(capacity: .mib(2))
            var client = try Client(host, size: size)
            var model = [UInt8](repeating: 0, count: pages)
            for _ in 0..<3000 {
                let first = random.below(pages - 20)
                let count = 1 + random.below(20)
                switch random.below(400) {
                case 0:
                    host.stop()
                    try host.start()
                case 1:
                    client.close()
                    client = try Client(host, size: size)
                case 2..<160:
                    let bytes = (0..<count).map { _ in UInt8(1 + random.below(255)) }
                    do throws(FabricError) {
                        try client.store(first, bytes)
                        model.replaceSubrange(first..<first + count, with: bytes)
                    } catch {
                        #expect(error == .noSpace || error == .unreachable, "\(seed)")
                        // What was stored of it is unknown: settle it.
                        try client.discard(first, count)
                        for page in first..<first + count { model[page] = 0 }
                    }
                case 160..<240:
                    let long = min(pages - first, count * 8)
                    try client.discard(first, long)
                    for page in first..<first + long { model[page] = 0 }
                default:
                    let loaded = try client.load(first, count)
                    try #require(loaded == Array(model[first..<first + count]), "\(seed)")
                }
            }
            client.close(release: true)
            #expect(host.pool?.grantedBytes == .zero, "\(seed)")
        }
    }
}
