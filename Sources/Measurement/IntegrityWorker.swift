import CLinuxShims
package import FarMemory
import Glibc
package import LinuxSystem

/// What one process of the integrity run saw.
package struct IntegrityReport: Equatable, Sendable {
    package var touches: UInt64 = 0
    package var wrongPages: UInt64 = 0
    package var swapIns: UInt64 = 0
    package var worstStall: Nanoseconds = .zero

    package init() {}

    /// One line, as the worker prints it and the parent reads it.
    package var line: String {
        "\(touches) \(wrongPages) \(swapIns) \(worstStall.nanoseconds)"
    }

    package init?(line: String) {
        let numbers = line.split(whereSeparator: \.isWhitespace).compactMap { UInt64($0) }
        guard numbers.count == 4 else { return nil }
        touches = numbers[0]
        wrongPages = numbers[1]
        swapIns = numbers[2]
        worstStall = Nanoseconds(Int64(clamping: numbers[3]))
    }

    package mutating func add(_ other: IntegrityReport) {
        touches += other.touches
        wrongPages += other.wrongPages
        swapIns += other.swapIns
        worstStall = max(worstStall, other.worstStall)
    }
}

/// Touches pages in random order for as long as they keep coming back from swap, and checks each of them
/// against what was last written there. A page carries the process, its own address, its generation
/// and words derived from them all over it, so that a stale, torn or crossed page cannot pass.
package struct IntegrityWorker: ~Copyable {
    private let region: MemoryMapping
    private let pages: Int
    private var generations: [UInt32]
    private var random: SeededRandom
    private let identity: UInt64

    package init(size: ByteCount, seed: UInt64) throws(SystemError) {
        region = try MemoryMapping(anonymous: Int(size.bytes))
        pages = Int(size.pages.pages)
        generations = [UInt32](repeating: 0, count: pages)
        random = SeededRandom(seed: seed)
        identity = UInt64(getpid()) << 32
    }

    private static let wordsPerPage = pageBytes / 8

    /// Word `index` of a page: different for every process, address, generation and place in the page.
    private func word(_ page: Int, _ index: Int) -> UInt64 {
        let key = identity ^ UInt64(generations[page]) << 44 ^ UInt64(page) << 12 ^ UInt64(index)
        return key &* 0x9e37_79b9_7f4a_7c15 ^ key >> 29
    }

    private func write(_ page: Int) {
        let base = unsafe (region.base + page * pageBytes).assumingMemoryBound(to: UInt64.self)
        for index in 0..<Self.wordsPerPage { unsafe base[index] = word(page, index) }
    }

    private func isRight(_ page: Int) -> Bool {
        let base = unsafe (region.base + page * pageBytes).assumingMemoryBound(to: UInt64.self)
        var right = true
        for index in 0..<Self.wordsPerPage where unsafe base[index] != word(page, index) {
            right = false
        }
        return right
    }

    /// Runs until `swapIns` pages came back by a major fault, until the deadline, or until `stopped` says so.
    package mutating func run(
        swapIns: UInt64, deadline: Int64, stopped: () -> Bool
    ) -> IntegrityReport {
        var report = IntegrityReport()
        for page in 0..<pages { write(page) }
        unsafe madvise(region.base, region.count, MADV_RANDOM)
        let before = majorFaults()
        while report.swapIns < swapIns {
            for _ in 0..<256 {
                let page = random.below(pages)
                let start = monotonicNow()
                if !isRight(page) { report.wrongPages += 1 }
                report.worstStall = max(report.worstStall, Nanoseconds(monotonicNow() - start))
                report.touches += 1
                // A third of the pages change, so that old bytes in far memory are really old.
                if random.chance(1, in: 3) {
                    generations[page] &+= 1
                    write(page)
                }
            }
            report.swapIns = UInt64(majorFaults() - before)
            if monotonicNow() > deadline || stopped() { break }
        }
        return report
    }
}
