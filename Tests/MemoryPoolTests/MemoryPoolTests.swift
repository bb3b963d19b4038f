import FarMemory
import Glibc
import LinuxSystem
import TestSupport
import Testing

@testable import MemoryPool

@Suite("Memory pool")
struct MemoryPoolTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory(inMemory: true) }

    private var path: String { directory.file("pool") }

    private func pool(
        _ capacity: ByteCount = .mib(8), slab: ByteCount? = .kib(64),
        grace: Nanoseconds = .seconds(60)
    ) throws -> MemoryPool {
        try MemoryPool(
            PoolOptions(directory: path, capacity: capacity, slab: slab, grace: grace))
    }

    private func bytesInMemory(_ lease: Lease) throws -> UInt64 {
        try lease.withDescriptors { descriptors in
            var facts = stat()
            let got = unsafe fstat(descriptors[0], &facts)
            return try #require(got == 0 ? UInt64(facts.st_blocks) * 512 : nil)
        }
    }

    private func fill(_ lease: Lease, page: Int, _ byte: UInt8) {
        // SAFETY: the tests touch granted slabs only.
        unsafe memset(lease.base + page * pageBytes, Int32(byte), pageBytes)
        lease.pages.set(page)
    }

    private func byte(_ lease: Lease, page: Int) -> UInt8 {
        unsafe lease.base.load(fromByteOffset: page * pageBytes + 77, as: UInt8.self)
    }

    @Test("A lease is thin: memory comes with grants and leaves with returns, scrubbed")
    func thinAndScrubbed() throws {
        let pool = try pool()
        let lease = try pool.create("a", size: .mib(100), pinned: true)
        #expect(try bytesInMemory(lease) == 0)
        #expect(try lease.grant(5..<7) == 2)
        #expect(try bytesInMemory(lease) == 128 << 10)
        #expect(pool.grantedBytes == .kib(128))
        fill(lease, page: 5 * 16, 0xEE)
        #expect(throws: PoolError.notEmpty) { try lease.giveBack(5..<7) }
        lease.pages.clear(5 * 16)
        try lease.giveBack(5..<7)
        #expect(try bytesInMemory(lease) == 0)
        #expect(pool.grantedBytes == .zero)
        #expect(try lease.grant(5..<6) == 1)
        #expect(byte(lease, page: 5 * 16) == 0)
    }

    @Test("Capacity is shared by all leases and never exceeded")
    func capacity() throws {
        let pool = try pool(.mib(1))
        let a = try pool.create("a", size: .mib(4), pinned: true)
        let b = try pool.create("b", size: .mib(4), pinned: true)
        #expect(try a.grant(0..<10) == 10)
        #expect(try b.grant(0..<10) == 6)
        #expect(throws: PoolError.noSpace) { try b.grant(6..<7) }
        #expect(try b.grant(0..<10) == 6)
        #expect(pool.ledger.refusedTotal == 3)
        try a.giveBack(0..<1)
        #expect(try b.grant(6..<8) == 1)
        #expect(pool.grantedBytes == .mib(1))
    }

    @Test func quota() throws {
        let pool = try pool()
        let lease = try pool.create("a", size: .mib(1), quota: .kib(128), pinned: true)
        #expect(try lease.grant(0..<5) == 2)
        #expect(throws: PoolError.quotaUsedUp) { try lease.grant(2..<3) }
        #expect(throws: PoolError.outOfRange) { try lease.grant(15..<17) }
        #expect(throws: PoolError.outOfRange) { try lease.giveBack(15..<17) }
    }

    @Test("A pool opened again has every lease, byte for byte")
    func reopening() throws {
        var epoch: UInt64 = 0
        do {
            let pool = try pool()
            let lease = try pool.create("far0", size: .mib(2), owner: "alice", pinned: false)
            epoch = lease.epoch
            _ = try lease.grant(1..<3)
            fill(lease, page: 17, 0x5A)
            fill(lease, page: 40, 0xA5)
        }
        let pool = try pool(slab: nil)
        #expect(pool.slab == .kib(64))
        let lease = try pool.attach("far0", .exclusive, key: "alice", expectedSize: .mib(2))
        #expect(lease.epoch == epoch && lease.grantedSlabs == 2 && lease.storedPages == 2)
        #expect(byte(lease, page: 17) == 0x5A && byte(lease, page: 40) == 0xA5)
        #expect(pool.grantedBytes == .kib(128))
        #expect(try pool.create("b", size: .mib(1), pinned: true).id > lease.id)
    }

    @Test("What a crash left half done is put right at the next start")
    func crashRemains() throws {
        do {
            let pool = try pool()
            let lease = try pool.create("a", size: .mib(1), pinned: true)
            _ = try lease.grant(0..<2)
            // Allocated and not marked as granted, as between the two steps of a grant; and a stray page bit.
            try lease.withDescriptors { descriptors in
                let number = try #require(descriptors.first)
                let file = FileDescriptor(owning: dup(number))
                try file.allocate(offset: 8 << 16, length: 1 << 16)
            }
            lease.pages.set(8 * 16)
        }
        _ = try FileDescriptor.open("\(path)/lease-9.data", O_CREAT | O_WRONLY, mode: 0o600)
        let pool = try pool()
        let lease = try #require(pool.leases().first?.lease)
        #expect(try bytesInMemory(lease) == 128 << 10)
        #expect(lease.storedPages == 0)
        #expect(!fileExists("\(path)/lease-9.data"))
    }

    @Test func secondServerIsRefused() throws {
        let first = try pool()
        #expect(throws: PoolError.poolInUse(path)) { try pool() }
        _ = first.slab
    }

    @Test func wrongPools() throws {
        #expect(throws: PoolError.notInMemory("/proc/farmem-pool")) {
            try MemoryPool(PoolOptions(directory: "/proc/farmem-pool", capacity: .mib(1)))
        }
        do {
            let pool = try pool()
            _ = try pool.create("a", size: .mib(1), pinned: true).grant(0..<4)
        }
        #expect(throws: PoolError.otherSlabSize(.kib(64))) { try pool(slab: .kib(128)) }
        #expect(throws: PoolError.capacityBelowGranted(.kib(256))) { try pool(.kib(128)) }
        let manifest = try readSmallText("\(path)/manifest")
        try replaceFile("\(path)/manifest", with: String(manifest.dropLast(3)))
        #expect(throws: PoolError.self) { try pool() }
        let changed = manifest.replacing("pinned", with: "temporary")
        try replaceFile("\(path)/manifest", with: changed)
        #expect(
            throws: PoolError.corrupt(
                file: "\(path)/manifest", reason: "its checksum is wrong")
        ) { try pool() }
        try replaceFile("\(path)/manifest", with: manifest)
        let data = try FileDescriptor.open("\(path)/lease-1.data", O_RDWR)
        try data.truncate(to: 4096)
        #expect(throws: PoolError.self) { try pool() }
    }

    @Test func attaching() throws {
        let pool = try pool()
        #expect(throws: PoolError.noSuchLease("a")) { try pool.attach("a", .shared, key: nil) }
        let lease = try pool.attach("a", .exclusive, key: "k", createSize: .kib(100))
        #expect(lease.size == .kib(128))
        #expect(throws: PoolError.leaseBusy("a")) { try pool.attach("a", .exclusive, key: "k") }
        #expect(throws: PoolError.leaseBusy("a")) { try pool.attach("a", .shared, key: "k") }
        #expect(throws: PoolError.notOwner("a")) { try pool.attach("a", .shared, key: nil) }
        #expect(throws: PoolError.notOwner("a")) { try pool.attach("a", .shared, key: "other") }
        #expect(throws: PoolError.leaseBusy("a")) { try pool.release("a") }
        pool.detach(lease)
        #expect(throws: PoolError.otherSize(.kib(128))) {
            try pool.attach("a", .shared, key: "k", expectedSize: .mib(1))
        }
        _ = try pool.attach("a", .shared, key: "k")
        _ = try pool.attach("a", .shared, key: "k")
        #expect(throws: PoolError.leaseBusy("a")) { try pool.attach("a", .exclusive, key: "k") }
        for name in ["", "a/b", "..", "a b", String(repeating: "x", count: 65)] {
            #expect(throws: PoolError.invalidName(name)) {
                try pool.create(name, size: .mib(1), pinned: true)
            }
        }
        #expect(throws: PoolError.invalidSize(.zero)) {
            try pool.create("b", size: .zero, pinned: true)
        }
        #expect(throws: PoolError.leaseExists("a")) {
            try pool.create("a", size: .mib(1), pinned: true)
        }
    }

    @Test("A lease without a client ends after its grace period; a pinned one does not")
    func grace() throws {
        let pool = try pool(grace: .seconds(10))
        let lease = try pool.attach("temporary", .exclusive, key: nil, createSize: .mib(1))
        _ = try lease.grant(0..<4)
        _ = try pool.create("pinned", size: .mib(1), pinned: true).grant(0..<1)
        let later = monotonicNow() + 3_600_000_000_000
        #expect(try pool.expire(now: later) == [])
        pool.detach(lease)
        #expect(try pool.expire(now: monotonicNow() + 9_000_000_000) == [])
        #expect(try pool.expire(now: later) == ["temporary"])
        #expect(pool.grantedBytes == .kib(64))
        #expect(try directoryEntries(path).filter { $0.hasPrefix("lease-1.") } == [])
        #expect(lease.isGone)
        #expect(throws: PoolError.noSuchLease("temporary")) { try lease.grant(0..<1) }
    }

    @Test(
        "A client that allocates outside of its grants or changes the file's length gains nothing")
    func audit() throws {
        let pool = try pool()
        let lease = try pool.create("a", size: .mib(1), pinned: true)
        _ = try lease.grant(0..<1)
        #expect(try lease.audit() == .zero)
        let number = lease.withDescriptors { $0[0] }
        let file = FileDescriptor(owning: dup(number))
        try file.allocate(offset: 4 << 16, length: 3 << 16)
        #expect(try lease.audit() == .kib(192))
        try file.truncate(to: 0)
        _ = try lease.audit()
        #expect(try file.size() == 1 << 20)
        #expect(try bytesInMemory(lease) == 64 << 10)
    }

    @Test("Without a directory the files cannot be cut short")
    func memoryFiles() throws {
        let pool = try MemoryPool(PoolOptions(capacity: .mib(1), slab: .kib(64)))
        let lease = try pool.create("a", size: .mib(1), pinned: true)
        #expect(try lease.grant(0..<1) == 1)
        let file = FileDescriptor(owning: dup(lease.withDescriptors { $0[0] }))
        #expect(throws: SystemError.self) { try file.truncate(to: 0) }
        let grants = lease.withDescriptors { $0[2] }
        var byte: UInt8 = 0xFF
        #expect(unsafe write(grants, &byte, 1) == -1)
    }

    @Test("Random grants, returns, leases and restarts agree with a model")
    func againstModel() throws {
        for seed in TestSeed.several(4, first: 1, filter: "MemoryPoolTests") {
            var random = seed.random
            var model: [String: Set<Int>] = [:]
            var current: MemoryPool? = try pool(.mib(1))
            for _ in 0..<400 {
                if random.chance(1, in: 40) {
                    current = nil
                    current = try self.pool(.mib(1))
                }
                let pool = try #require(current)
                let name = "l\(random.below(3))"
                let lease = pool.leases().first { $0.lease.name == name }?.lease
                let slab = random.below(12)
                switch random.below(10) {
                case 0 where lease == nil:
                    try pool.create(name, size: .kib(64 * 16), pinned: true)
                    model[name] = []
                case 1 where lease != nil && random.chance(1, in: 4):
                    try pool.release(name)
                    model[name] = nil
                case 2...6:
                    let granted = model.values.reduce(0) { $0 + $1.count }
                    let missing = (slab..<slab + 4).filter { model[name]?.contains($0) == false }
                    let done = (try? lease?.grant(slab..<slab + 4)) ?? 0
                    if lease != nil, granted + missing.count <= 16 { #expect(done == 4, "\(seed)") }
                    model[name]?.formUnion(slab..<slab + done)
                default:
                    try lease?.giveBack(slab..<slab + 2)
                    model[name]?.subtract(slab..<slab + 2)
                }
                #expect(Set(pool.leases().map(\.lease.name)) == Set(model.keys), "\(seed)")
                for status in pool.leases() {
                    let slabs = (0..<16).filter { status.lease.isGranted($0) }
                    #expect(Set(slabs) == model[status.lease.name], "\(seed)")
                    let bytes = try bytesInMemory(status.lease)
                    #expect(bytes == UInt64(slabs.count) << 16, "\(seed)")
                }
                let slabs = model.values.reduce(0) { $0 + $1.count }
                #expect(pool.grantedBytes.bytes == UInt64(slabs) << 16, "\(seed)")
            }
            current = nil
            removeTree(path)
        }
    }
}
