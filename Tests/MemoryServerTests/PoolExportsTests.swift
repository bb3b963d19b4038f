import FarMemory
import MemoryPool
import MemoryServer
import Testing

@Suite struct PoolExportsTests {
    private let pool: MemoryPool

    init() throws { pool = try MemoryPool(PoolOptions(capacity: .mib(4), slab: .kib(64))) }

    @Test func theSizeThatIsToldIsTheSizeThatIsGiven() throws {
        let exports = PoolExports(pool: pool, autoLease: .kib(100))
        #expect(exports.size("new", key: nil) == 128 << 10)
        #expect(pool.leases().isEmpty, "asking makes nothing")
        let opened = try exports.open("new", key: nil)
        #expect(opened.memory.sizeBytes == 128 << 10)
        #expect(exports.size("new", key: nil) == 128 << 10)
        opened.close()
    }

    @Test func anotherKeysLeaseIsNotToldApartFromNone() throws {
        let exports = PoolExports(pool: pool, autoLease: nil)
        try pool.create("hers", size: .mib(1), owner: "alice", pinned: true)
        for key in [nil, "bob"] {
            #expect(exports.size("hers", key: key) == nil)
            #expect(exports.names(key: key) == [])
            #expect(throws: NBDOpenFailure.unknown) { try exports.open("hers", key: key) }
            #expect(throws: NBDOpenFailure.unknown) { try exports.open("none", key: key) }
        }
        #expect(exports.names(key: "alice") == ["hers"])
    }

    @Test func aLeaseThatIsMappedIsBusy() throws {
        let exports = PoolExports(pool: pool, autoLease: .mib(1))
        let mapped = try pool.attach("l", .exclusive, key: nil, createSize: .mib(1))
        #expect(throws: NBDOpenFailure.busy) { try exports.open("l", key: nil) }
        pool.detach(mapped)
        let (first, second) = (try exports.open("l", key: nil), try exports.open("l", key: nil))
        #expect(first.memory === second.memory)
        first.close()
        second.close()
        #expect(throws: NBDOpenFailure.unknown) { try exports.open("../l", key: nil) }
    }
}
