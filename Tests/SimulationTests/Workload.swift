import Fabric
import FabricSimulator
import FarMemory
import Glibc
import TestSupport

/// What the workload drives: a bare channel, or the real client on top of one.
protocol PageClient {
    func load(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>
    ) throws(FabricError) -> Int
    func store(_ range: PageRange, from bytes: UnsafeRawPointer) throws(FabricError)
    func discard(_ range: PageRange) throws(FabricError)
}

/// The seam itself, without retries.
struct BareClient: PageClient {
    let channel: any FabricChannel
    let clock: VirtualClock
    var patience: Int64 = 1_000_000_000

    func load(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>
    ) throws(FabricError) -> Int {
        unsafe try channel.load(
            range, staging: staging, vectors: vectors, deadline: clock.now() + patience)
    }
    func store(_ range: PageRange, from bytes: UnsafeRawPointer) throws(FabricError) {
        unsafe try channel.store(range, from: bytes, deadline: clock.now() + patience)
    }
    func discard(_ range: PageRange) throws(FabricError) {
        try channel.discard(range, deadline: clock.now() + patience)
    }
}

/// What a run did.
struct WorkloadResult {
    var loads = 0
    var loadFailures = 0
    /// Of those, loads of pages that the kernel had stored, all of them: a process would die.
    var storedLoadFailures = 0
    var stores = 0
    var storeFailures = 0
    var discards = 0
    /// Wrong pages, in words.
    var problems: [String] = []
    var longestLoad: Int64 = 0
    var longestStore: Int64 = 0
}

/// Random requests as a kernel makes them, checked against the model.
@safe final class Workload {
    private let clients: [any PageClient]
    private let clock: VirtualClock
    private var random: SeededRandom
    private var model: MemoryModel
    private let pageCount: Int
    private(set) var result = WorkloadResult()
    private let staging: UnsafeMutableRawPointer
    private let vectors: UnsafeMutablePointer<iovec>
    private static let pagesMax = 16

    init(clients: [any PageClient], pageCount: Int, clock: VirtualClock, seed: UInt64) {
        self.clients = clients
        self.clock = clock
        self.pageCount = pageCount
        random = SeededRandom(seed: seed)
        model = MemoryModel(pageCount: pageCount)
        // SAFETY: owned by this object, freed in deinit, room for the largest request.
        unsafe staging = .allocate(byteCount: Self.pagesMax * pageBytes, alignment: pageBytes)
        unsafe vectors = .allocate(capacity: Self.pagesMax)
    }

    deinit {
        unsafe staging.deallocate()
        unsafe vectors.deallocate()
    }

    func run(requests: Int) {
        for _ in 0..<requests {
            let count = 1 + (random.chance(1, in: 3) ? random.below(Self.pagesMax) : 0)
            let first = random.below(pageCount - count + 1)
            let range = first..<first + count
            let client = clients[random.below(clients.count)]
            switch random.below(10) {
            case 0..<5: load(range, client)
            case 5..<9: store(range, client)
            default: discard(range, client)
            }
            clock.sleep(until: clock.now() + Int64(random.below(10_000_000)))
        }
    }

    /// Every page that a kernel could want must be there.
    func readEverything() {
        for page in 0..<pageCount { load(page..<page + 1, clients[page % clients.count]) }
    }

    private func load(_ range: Range<Int>, _ client: any PageClient) {
        guard model.isReadable(range) else { return }
        result.loads += 1
        let start = clock.now()
        unsafe staging.initializeMemory(
            as: UInt8.self, repeating: 0xEE, count: range.count * pageBytes)
        do throws(FabricError) {
            let filled = unsafe try client.load(
                PageRange(first: UInt64(range.lowerBound), count: range.count), staging: staging,
                vectors: vectors)
            check(range, vectorCount: filled)
        } catch {
            result.loadFailures += 1
            if model.isStored(range) { result.storedLoadFailures += 1 }
        }
        result.longestLoad = max(result.longestLoad, clock.now() - start)
    }

    /// The vectors must cover the range exactly, in order, with the right bytes.
    private func check(_ range: Range<Int>, vectorCount: Int) {
        var page = range.lowerBound
        for index in 0..<vectorCount {
            let vector = unsafe vectors[index]
            guard let base = unsafe vector.iov_base, unsafe vector.iov_len % pageBytes == 0 else {
                result.problems.append("a vector that is not whole pages")
                return
            }
            for offset in unsafe stride(from: 0, to: vector.iov_len, by: pageBytes) {
                guard page < range.upperBound else {
                    result.problems.append("more bytes than asked for")
                    return
                }
                // A few are enough, and finding out what a word is takes long.
                if result.problems.count < 5,
                    let problem = unsafe model.problem(page: page, bytes: base + offset)
                {
                    result.problems.append(problem)
                }
                page += 1
            }
        }
        if page != range.upperBound { result.problems.append("fewer bytes than asked for") }
    }

    private func store(_ range: Range<Int>, _ client: any PageClient) {
        result.stores += 1
        let version = model.newVersion()
        for (index, page) in range.enumerated() {
            unsafe MemoryModel.fill(staging + index * pageBytes, page: page, version: version)
        }
        let start = clock.now()
        do throws(FabricError) {
            unsafe try client.store(
                PageRange(first: UInt64(range.lowerBound), count: range.count), from: staging)
            model.stored(range, version: version)
        } catch {
            result.storeFailures += 1
            model.failed(range)
        }
        result.longestStore = max(result.longestStore, clock.now() - start)
    }

    private func discard(_ range: Range<Int>, _ client: any PageClient) {
        result.discards += 1
        do throws(FabricError) {
            try client.discard(PageRange(first: UInt64(range.lowerBound), count: range.count))
            model.discarded(range)
        } catch {
            model.failed(range)
        }
    }
}

/// A world with every kind of fault, its rates drawn from the seed ("swarm": some kinds are off in some runs).
func randomOptions(seed: UInt64, family: SimulatorOptions.Family) -> SimulatorOptions {
    var random = SeededRandom(seed: seed)
    var options = SimulatorOptions(seed: random.next())
    options.family = family
    options.size = .kib(UInt64(256 << random.below(3)))
    options.slab = .kib(UInt64(16 << random.below(4)))
    let slabs = Int(options.size.bytes / options.slab.bytes)
    if random.chance(1, in: 2) { options.capacitySlabs = max(1, slabs * 2 / 3) }
    if random.chance(2, in: 3) { options.crashInterval = 2_000_000_000 }
    if random.chance(2, in: 3) { options.cutInterval = 2_000_000_000 }
    if random.chance(1, in: 2) { options.squeezeInterval = 2_000_000_000 }
    if random.chance(1, in: 2) { options.lossPer10k = random.below(100) }
    if random.chance(1, in: 2) { options.delayPer10k = random.below(200) }
    options.outage = 1_000_000...2_000_000_000
    return options
}
