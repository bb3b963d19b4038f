import CSwapShims
import Fabric
import FarMemory
import Glibc
import LinuxSystem
import SwapDevice
import TestSupport
import Testing

@safe private final class MemoryFallback: FallbackStore {
    var pages: [UInt64: [UInt8]] = [:]
    var isBroken = false

    func load(_ range: PageRange, into bytes: UnsafeMutableRawPointer) -> Bool {
        guard !isBroken else { return false }
        for index in 0..<range.count {
            guard let page = pages[range.first + UInt64(index)] else { return false }
            unsafe (bytes + index * pageBytes).copyMemory(from: page, byteCount: pageBytes)
        }
        return true
    }

    func store(_ range: PageRange, from bytes: UnsafeRawPointer) -> Bool {
        guard !isBroken else { return false }
        for index in 0..<range.count {
            pages[range.first + UInt64(index)] = unsafe Array(
                UnsafeRawBufferPointer(start: bytes + index * pageBytes, count: pageBytes))
        }
        return true
    }

    func discard(_ range: PageRange) {
        for page in range.first..<range.end { pages[page] = nil }
    }
}

/// A path over faulty far memory, with buffers to call it.
@safe private final class Rig {
    let channel = FaultyChannel()
    let fallback: MemoryFallback?
    let clock = TestClock()
    let region: SharedRegion
    let path: PagePath
    let buffer: UnsafeMutableRawPointer
    let vectors: UnsafeMutablePointer<iovec>

    init(fallback mode: FallbackMode? = nil) throws {
        let size = ByteCount.mib(4)
        let file = try makeMemoryFile(
            "test", size: UInt64(SharedRegion.length(workers: 1, size: size)), fixedSize: true)
        region = try SharedRegion(
            creatingIn: file, workers: 1, size: size, hasFallback: mode != nil)
        fallback = mode == nil ? nil : MemoryFallback()
        unsafe buffer = .allocate(byteCount: 16 * pageBytes, alignment: pageBytes)
        unsafe vectors = .allocate(capacity: 16)
        path = unsafe PagePath(
            channel: channel, fallback: fallback, locations: region.locations,
            counters: region.counters(worker: 0), clock: clock,
            policy: PathPolicy(mode: mode ?? .refused))
    }

    deinit {
        unsafe buffer.deallocate()
        unsafe vectors.deallocate()
    }

    func store(_ page: UInt64, _ byte: UInt8) throws(FabricError) {
        unsafe buffer.initializeMemory(as: UInt8.self, repeating: byte, count: pageBytes)
        unsafe try path.store(PageRange(first: page, count: 1), from: buffer)
    }

    func load(_ page: UInt64) throws(FabricError) -> UInt8 {
        let filled = unsafe try path.load(
            PageRange(first: page, count: 1), staging: buffer, vectors: vectors)
        precondition(filled == 1)
        return unsafe vectors[0].iov_base.load(as: UInt8.self)
    }
}

@Suite struct PagePathTests {
    @Test func aLoadIsTriedAgainUntilItSucceeds() throws {
        let rig = try Rig()
        try rig.store(3, 7)
        rig.channel.failures = [.unreachable, .deadlinePassed, .peerError(5), .protocolViolation]
        #expect(try rig.load(3) == 7)
    }

    @Test func aLoadThatNobodyCanServeFailsAtItsDeadlineAndNotBefore() throws {
        let rig = try Rig()
        rig.channel.failures = Array(repeating: .unreachable, count: 1_000_000)
        #expect(throws: FabricError.unreachable) { _ = try rig.load(3) }
        #expect(rig.clock.time > 29_900_000_000 && rig.clock.time < 30_100_000_000)
    }

    @Test func aFullPoolRefusesAtOnce() throws {
        let rig = try Rig()
        rig.channel.failures = [.noSpace]
        #expect(throws: FabricError.noSpace) { try rig.store(1, 1) }
        #expect(rig.clock.time == 1)
    }

    @Test func aStoreGivesUpWithinItsDeadline() throws {
        let rig = try Rig()
        rig.channel.failures = Array(repeating: .unreachable, count: 1_000_000)
        #expect(throws: FabricError.unreachable) { try rig.store(1, 1) }
        #expect(rig.clock.time < 1_100_000_000)
    }

    @Test func aRefusedPageComesBackFromTheFallbackAndNotFromOldFarBytes() throws {
        let rig = try Rig(fallback: .refused)
        try rig.store(5, 1)
        rig.channel.failures = [.noSpace]
        try rig.store(5, 2)
        #expect(rig.channel.memory[5]?.first == 1)
        #expect(try rig.load(5) == 2)
        // Far memory takes it again: the fallback's bytes are old now.
        try rig.store(5, 3)
        #expect(rig.fallback?.pages[5]?.first == 2)
        #expect(try rig.load(5) == 3)
    }

    @Test func aMirroredPageSurvivesTheMemoryNode() throws {
        let rig = try Rig(fallback: .mirror)
        try rig.store(9, 4)
        rig.channel.failures = Array(repeating: .leaseLost, count: 10)
        #expect(try rig.load(9) == 4)
    }

    @Test func withoutFarMemoryAndFallbackTheStoreFails() throws {
        let rig = try Rig(fallback: .refused)
        rig.fallback?.isBroken = true
        rig.channel.failures = [.noSpace]
        #expect(throws: FabricError.noSpace) { try rig.store(1, 1) }
        #expect(unsafe rig.region.counters(worker: 0).value(.fallbackErrors) == 1)
    }

    @Test func aDiscardedPageIsForgottenEverywhere() throws {
        let rig = try Rig(fallback: .mirror)
        try rig.store(2, 8)
        try rig.path.discard(PageRange(first: 2, count: 1))
        #expect(rig.fallback?.pages.isEmpty == true)
        #expect(try rig.load(2) == 0)
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func randomFaultsNeverYieldOtherBytes(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let rig = try Rig(fallback: seed % 2 == 0 ? .mirror : .refused)
        var model: [UInt64: UInt8] = [:]
        let errors: [FabricError] = [.noSpace, .unreachable, .deadlinePassed, .leaseLost]
        for step in 0..<3000 {
            let page = UInt64(random.below(32))
            rig.channel.failures =
                random.chance(1, in: 3) ? [errors[random.below(errors.count)]] : []
            if random.chance(1, in: 2) {
                let byte = UInt8(random.below(255) + 1)
                do throws(FabricError) {
                    try rig.store(page, byte)
                    model[page] = byte
                } catch {
                    // The kernel keeps such a page; what is out is not defined until its next store.
                    model[page] = nil
                    rig.channel.failures = []
                    try rig.path.discard(PageRange(first: page, count: 1))
                }
            } else if let expected = model[page] {
                do throws(FabricError) {
                    let got = try rig.load(page)
                    #expect(got == expected, "seed \(seed) step \(step)")
                } catch {
                    #expect(error == .leaseLost || error == .noSpace)
                }
            }
        }
    }
}

@Suite struct FuseRequestTests {
    private func decode(_ bytes: [UInt8]) -> (UInt64, FuseRequest) {
        unsafe bytes.withUnsafeBytes { unsafe decodeFuseRequest($0) }
    }

    private func request(
        _ opcode: fuse_opcode, node: UInt64 = FuseNode.device, body: [UInt8] = [],
        claimed: Int? = nil
    ) -> [UInt8] {
        var header = fuse_in_header()
        header.len = UInt32(claimed ?? MemoryLayout<fuse_in_header>.size + body.count)
        header.opcode = opcode.rawValue
        header.unique = 77
        header.nodeid = node
        return unsafe withUnsafeBytes(of: header) { unsafe Array($0) } + body
    }

    @Test func aShortOrLyingHeaderIsMalformed() {
        #expect(decode([]).1 == .malformed)
        #expect(decode([1, 2, 3]).1 == .malformed)
        #expect(decode(request(FUSE_GETATTR, claimed: 4096)).1 == .malformed)
    }

    @Test func aWriteWhosePayloadIsCutIsMalformed() {
        var write = fuse_write_in()
        write.size = 4096
        let body = unsafe withUnsafeBytes(of: write) { unsafe Array($0) }
        #expect(decode(request(FUSE_WRITE, body: body)).1 == .malformed)
        let whole = decode(request(FUSE_WRITE, body: body + [UInt8](repeating: 1, count: 4096)))
        #expect(whole == (77, .write(offset: 0, count: 4096)))
    }

    @Test func onlyTheOneNameIsFound() {
        #expect(
            decode(request(FUSE_LOOKUP, node: FuseNode.root, body: Array("swap\0".utf8))).1
                == .lookup(isDevice: true))
        #expect(
            decode(request(FUSE_LOOKUP, node: FuseNode.root, body: Array("swap".utf8))).1
                == .lookup(isDevice: false))
    }

    @Test(arguments: 1...20) func randomBytesNeverTrap(seed: Int) {
        var random = SeededRandom(seed: UInt64(seed))
        for _ in 0..<2000 {
            var bytes = (0..<random.below(200)).map { _ in UInt8(truncatingIfNeeded: random.next())
            }
            if bytes.count >= 8 {
                // An honest length and a known operation, so that the bodies are reached.
                bytes.replaceSubrange(0..<4, with: [UInt8(bytes.count), 0, 0, 0])
                bytes.replaceSubrange(4..<8, with: [UInt8(random.below(50)), 0, 0, 0])
            }
            _ = decode(bytes)
        }
    }
}

@Suite struct SharedRegionTests {
    @Test func aRegionOfAnotherVersionIsRefused() throws {
        let file = try makeMemoryFile("test", size: 1 << 20, fixedSize: false)
        #expect(throws: SystemError.self) {
            _ = try SharedRegion(openingIn: file, populate: false).workers
        }
    }

    @Test func whatOneProcessWritesAnotherReads() throws {
        let size = ByteCount.mib(8)
        let length = SharedRegion.length(workers: 3, size: size)
        let file = try makeMemoryFile("test", size: UInt64(length), fixedSize: true)
        let first = try SharedRegion(
            creatingIn: file, workers: 3, size: size, hasFallback: false)
        unsafe first.counters(worker: 2).add(.pagesIn, 5)
        unsafe first.slot(worker: 1).recordExecuted(99, outcome: 28)
        let second = try SharedRegion(openingIn: file, populate: true)
        #expect(second.workers == 3 && second.size == size)
        #expect(unsafe second.counters(worker: 2).value(.pagesIn) == 5)
        #expect(unsafe second.slot(worker: 1).executed == 99)
        #expect(unsafe second.slot(worker: 1).outcome == 28)
        #expect(unsafe second.slot(worker: 0).received == 0)
    }

    @Test func namesAreChecked() {
        #expect(DeviceDirectory.isName("far0"))
        #expect(!DeviceDirectory.isName("../x"))
        #expect(!DeviceDirectory.isName(".."))
        #expect(!DeviceDirectory.isName(""))
    }
}

@Suite struct DeviceRecordTests {
    /// What a keeper must be started with again survives as it was, word for word.
    @Test func theKeepersCommandIsRemembered() throws {
        let scratch = try TemporaryDirectory()
        let directory = DeviceDirectory(runtime: scratch.path)
        var record = DeviceRecord(name: "d", url: "nbd://h/e", size: .mib(4), frontend: "nbd")
        record.keeperCommand = [
            "/p/farswap", "nbd-keeper", "nbd://h/e?a=b", "--key", "", "= =", "é",
        ]
        record.device = "/dev/nbd3"
        record.raised = [.haltPoll: 200_000, .pageCluster: 5]
        try directory.save(record)
        #expect(try directory.load("d") == record)
        record.keeperCommand = []
        try directory.save(record)
        #expect(try directory.load("d") == record)
    }
}
