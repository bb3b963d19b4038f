import FarMemory
import TestSupport
import Testing

@testable import OffloadPolicy

@Suite struct LatencyRingTests {
    /// Sorting anew each time is what it must agree with.
    @Test(arguments: TestSeed.several(4, first: 1, filter: "LatencyRingTests"))
    func aRingIsSortedAsItIsFilled(seed: TestSeed) {
        var random = seed.random
        for kept in [1, 2, 32, 64] {
            var ring = LatencyRing(kept: kept)
            var last: [UInt32] = []
            for step in 0..<400 {
                let value = UInt32(random.below(random.chance(1, in: 2) ? 8 : 1_000_000))
                ring.put(value)
                last.append(value)
                if last.count > kept { last.removeFirst() }
                #expect(ring.count == last.count)
                let sorted = last.sorted()
                for percent in [0, 25, 50, 75, 95, 100] {
                    let rank = max(1, (sorted.count * percent + 99) / 100)
                    #expect(ring.percentile(percent) == Int64(sorted[rank - 1]), "\(seed) \(step)")
                }
                if random.chance(1, in: 200) {
                    ring.removeAll()
                    last = []
                    #expect(ring.count == 0)
                }
            }
        }
    }

    @Test(arguments: TestSeed.several(2, first: 1, filter: "LatencyRingTests"))
    func theMeanAndTheFirstRequestsAreThoseOfTheLast64(seed: TestSeed) {
        var random = seed.random
        var ordinary = OrdinaryLatencies()
        var last: [(value: UInt32, isFirst: Bool)] = []
        for _ in 0..<500 {
            let isFirst = random.chance(1, in: 5)
            let value = UInt32.max - UInt32(random.below(1000))
            ordinary.put(value, isFirst: isFirst)
            last.append((value, isFirst))
            if last.count > 64 { last.removeFirst() }
            #expect(ordinary.count == last.count)
            #expect(
                ordinary.mean == last.reduce(0) { $0 + Int64($1.value) } / Int64(last.count))
            #expect(ordinary.firsts == last.count { $0.isFirst })
        }
    }
}
