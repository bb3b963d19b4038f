package import FarMemory
import LinuxSystem

/// The seed of a randomised test. `FARMEM_SEED=N` replays a run; without it each run draws a new one.
///
///     let seed = TestSeed(filter: "PoolProperties")
///     var random = seed.random
///     #expect(a == b, "\(seed)")       // a failure prints the command that replays it
package struct TestSeed: Sendable, CustomStringConvertible {
    package let value: UInt64
    private let filter: String

    /// `filter` is what selects the test: its suite or function name.
    package init(filter: String) {
        self.init(
            TestSeed.given ?? (UInt64(bitPattern: wallClockNow()) ^ 0x9e37_79b9), filter: filter)
    }

    /// A fixed seed, or one derived from another.
    package init(_ value: UInt64, filter: String) {
        self.value = value
        self.filter = filter
    }

    /// A seed for the `index`-th of several runs. With `FARMEM_SEED` there is only that one.
    package static func several(_ count: Int, first: UInt64, filter: String) -> [TestSeed] {
        if let given { return [TestSeed(given, filter: filter)] }
        return (0..<UInt64(count)).map { TestSeed(first &+ $0, filter: filter) }
    }

    private static var given: UInt64? { environment("FARMEM_SEED").flatMap { UInt64($0) } }

    package var random: SeededRandom { SeededRandom(seed: value) }

    package var description: String {
        "seed \(value); replay with: tools/test --seed \(value) --filter \(filter)"
    }
}

extension SeededRandom {
    /// `count` random bytes.
    package mutating func bytes(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count {
            var word = next()
            for _ in 0..<8 {
                bytes.append(UInt8(truncatingIfNeeded: word))
                word >>= 8
            }
        }
        bytes.removeLast(bytes.count - count)
        return bytes
    }
}
