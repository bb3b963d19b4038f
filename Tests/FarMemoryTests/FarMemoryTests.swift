import FarMemory
import Testing

@Suite struct FarMemoryTests {
    @Test func quantitiesPrintInTheLargestUnitThatDividesThem() {
        #expect(ByteCount.gib(2).description == "2GiB")
        #expect(ByteCount(4097).description == "4097B")
        #expect(Nanoseconds.milliseconds(250).description == "250ms")
        #expect(Nanoseconds.seconds(7200).description == "2h")
    }

    @Test func remaindersOfMemoryAreNeverNegative() {
        #expect(ByteCount.kib(1) - ByteCount.kib(2) == .zero)
        #expect(PageCount(1) - PageCount(3) == .zero)
    }

    @Test func theSameSeedGivesTheSameRun() {
        var a = SeededRandom(seed: 7)
        var b = SeededRandom(seed: 7)
        for _ in 0..<1000 { #expect(a.next() == b.next()) }
    }

    @Test func drawsStayBelowTheirBoundAndReachAllOfIt() {
        var random = SeededRandom(seed: 1)
        var seen = [Bool](repeating: false, count: 10)
        for _ in 0..<1000 { seen[random.below(10)] = true }
        #expect(seen.allSatisfy { $0 })
    }
}
