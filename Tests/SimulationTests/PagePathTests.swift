import Fabric
import FabricSimulator
import FarMemory
import Glibc
import LinuxSystem
import SwapDevice
import TestSupport
import Testing

extension VirtualClock: PathClock {}

/// The real client, as a swap device's worker uses it.
private struct PathClient: PageClient {
    let path: PagePath

    func load(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>
    ) throws(FabricError) -> Int {
        unsafe try path.load(range, staging: staging, vectors: vectors)
    }
    func store(_ range: PageRange, from bytes: UnsafeRawPointer) throws(FabricError) {
        unsafe try path.store(range, from: bytes)
    }
    func discard(_ range: PageRange) throws(FabricError) { try path.discard(range) }
}

/// A local disk that sometimes fails. It takes time, as disks do.
@safe private final class SimulatedDisk: FallbackStore {
    private let memory: UnsafeMutableRawPointer
    private let clock: VirtualClock
    private var random: SeededRandom
    private let storeFailuresPer10k: Int
    private let loadFailuresPer10k: Int
    private(set) var storeFailures = 0
    private(set) var loadFailures = 0

    init(size: ByteCount, clock: VirtualClock, seed: UInt64, storeFailures: Int, loadFailures: Int)
    {
        // SAFETY: owned by this object, freed in deinit; the length is that of the device.
        unsafe memory = .allocate(byteCount: Int(size.bytes), alignment: pageBytes)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0xDD, count: Int(size.bytes))
        self.clock = clock
        random = SeededRandom(seed: seed)
        storeFailuresPer10k = storeFailures
        loadFailuresPer10k = loadFailures
    }

    deinit { unsafe memory.deallocate() }

    private func offset(_ range: PageRange) -> Int { Int(range.first) * pageBytes }

    func load(_ range: PageRange, into bytes: UnsafeMutableRawPointer) -> Bool {
        clock.sleep(until: clock.now() + 100_000)
        if random.chance(loadFailuresPer10k, in: 10_000) {
            loadFailures += 1
            return false
        }
        unsafe bytes.copyMemory(from: memory + offset(range), byteCount: range.count * pageBytes)
        return true
    }

    func store(_ range: PageRange, from bytes: UnsafeRawPointer) -> Bool {
        clock.sleep(until: clock.now() + 100_000)
        let fails = random.chance(storeFailuresPer10k, in: 10_000)
        // What a failed write leaves on a disk is anything: here, a part of it.
        let count = fails ? random.below(range.count * pageBytes) : range.count * pageBytes
        unsafe (memory + offset(range)).copyMemory(from: bytes, byteCount: count)
        if fails { storeFailures += 1 }
        return !fails
    }

    func discard(_ range: PageRange) {
        unsafe (memory + offset(range)).initializeMemory(
            as: UInt8.self, repeating: 0xDD, count: range.count * pageBytes)
    }
}

/// One simulated device: workers, far memory, disk.
private struct Device {
    var options: SimulatorOptions
    var mode: FallbackMode?
    var diskStoreFailures = 0
    var diskLoadFailures = 0
    var requests = 2000

    func run(
        seed: UInt64, before: (SimulatedFabric, VirtualClock) -> Void = { _, _ in }
    ) throws -> (result: WorkloadResult, events: SimulatorEvents) {
        let clock = VirtualClock()
        let fabric = SimulatedFabric(options: options, clock: clock)
        let file = try makeMemoryFile(
            "simulated-swap", size: UInt64(SharedRegion.length(workers: 2, size: options.size)),
            fixedSize: true)
        let region = try SharedRegion(
            creatingIn: file, workers: 2, size: options.size, hasFallback: mode != nil)
        let disk = SimulatedDisk(
            size: options.size, clock: clock, seed: seed ^ 0xD15C, storeFailures: diskStoreFailures,
            loadFailures: diskLoadFailures)
        var clients: [any PageClient] = []
        for worker in 0..<2 {
            clients.append(
                PathClient(
                    path: unsafe PagePath(
                        channel: try fabric.makeChannel(), fallback: mode == nil ? nil : disk,
                        locations: region.locations, counters: region.counters(worker: worker),
                        clock: clock, policy: PathPolicy(mode: mode ?? .refused))))
        }
        before(fabric, clock)
        let workload = Workload(
            clients: clients, pageCount: Int(options.size.pages.pages), clock: clock, seed: seed)
        workload.run(requests: requests)
        fabric.heal()
        workload.readEverything()
        return (workload.result, fabric.events)
    }
}

/// What a page that the kernel stored must survive, in thousands of simulated requests per seed.
@Suite struct PagePathTests {
    private static let seeds = TestSeed.several(25, first: 100, filter: "PagePathTests")

    /// Crash, cut, loss, delay, full pool: no wrong page, and, since every outage is shorter than the load deadline, no
    /// failed load either: no process dies.
    @Test(arguments: seeds)
    func pagesSurviveEveryFaultThatPasses(seed: TestSeed) throws {
        for family in [SimulatorOptions.Family.oneSided, .twoSided] {
            for mode in [nil, FallbackMode.refused, .mirror] {
                let device = Device(
                    options: randomOptions(seed: seed.value, family: family), mode: mode)
                let (result, _) = try device.run(seed: seed.value)
                let world = "\(family) \(mode.map { "\($0)" } ?? "no fallback"); \(seed)"
                #expect(result.problems.isEmpty, "\(result.problems.first ?? ""); \(world)")
                #expect(result.loadFailures == 0, "\(world)")
                #expect(result.loads > 100, "\(world)")
                // Fail fast: a page-out never holds reclaim up for longer than the deadline and a disk write.
                #expect(result.longestStore <= 1_010_000_000, "\(world)")
                #expect(result.longestLoad <= 31_000_000_000, "\(world)")
            }
        }
    }

    /// A pool that is refused everything for a while: with a fallback no store fails.
    @Test(arguments: seeds)
    func theFallbackTakesWhatFarMemoryRefuses(seed: TestSeed) throws {
        var options = randomOptions(seed: seed.value, family: .twoSided)
        options.capacitySlabs = 1
        let device = Device(options: options, mode: .refused)
        let (result, events) = try device.run(seed: seed.value)
        #expect(result.problems.isEmpty, "\(result.problems.first ?? ""); \(seed)")
        #expect(result.storeFailures == 0 && result.loadFailures == 0, "\(seed)")
        #expect(events.refusals > 10, "\(seed)")
    }

    /// A disk that fails too: stores may fail, but what was accepted is right.
    @Test(arguments: seeds)
    func aBadDiskLosesNothing(seed: TestSeed) throws {
        for mode in [FallbackMode.refused, .mirror] {
            let device = Device(
                options: randomOptions(seed: seed.value, family: .twoSided), mode: mode,
                diskStoreFailures: 1000, diskLoadFailures: 1000)
            let (result, _) = try device.run(seed: seed.value)
            #expect(result.problems.isEmpty, "\(result.problems.first ?? ""); \(mode) \(seed)")
            #expect(result.loadFailures == 0, "\(mode) \(seed)")
        }
    }

    /// The memory node dies and its pages with it. Mirrored, every page is still there; else what is gone is said to be
    /// gone, and nothing wrong is read.
    @Test(arguments: seeds)
    func aLostMemoryNodeCostsNoMirroredPage(seed: TestSeed) throws {
        for mode in [nil, FallbackMode.refused, .mirror] {
            var options = randomOptions(seed: seed.value, family: .twoSided)
            options.crashInterval = 5_000_000_000
            options.crashLosesPages = true
            let (result, events) = try Device(options: options, mode: mode).run(seed: seed.value)
            let world = "\(mode.map { "\($0)" } ?? "no fallback"); \(seed)"
            #expect(result.problems.isEmpty, "\(result.problems.first ?? ""); \(world)")
            if mode == .mirror {
                #expect(result.storedLoadFailures == 0 && result.storeFailures == 0, "\(world)")
            } else if events.crashes > 0 {
                #expect(result.loadFailures > 0, "\(world)")
            }
        }
    }

    /// The test of the test: without fencing, late stores make wrong pages, and this suite sees them.
    @Test func lateStoresAreNoticed() throws {
        var caught = 0
        for seed in 0..<20 as Range<UInt64> {
            var options = SimulatorOptions(seed: seed)
            options.size = .kib(64)
            options.slab = .kib(16)
            options.fencing = false
            options.delayPer10k = 500
            let (result, _) = try Device(options: options).run(seed: seed)
            if !result.problems.isEmpty { caught += 1 }
        }
        #expect(caught > 10, "only \(caught) of 20 runs were caught")
    }
}
