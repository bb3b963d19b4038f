package import FarMemory

// The law: in any second at most the rate is written to far memory, by all containers together.
//
// A bucket of tokens does not hold that: after a quiet time it lets its burst pass and the rate on top. And a grant is not a write:
// what was granted may be written any time until its report. So each grant counts in full until it is reported; from
// then on what was written counts for one more second. Whatever a second [a, b] saw written was, when the last grant
// that wrote in it was made, either not reported yet or reported after a: it was counted, and the sum was at most
// the rate. Seconds are kept in 64 slots and the one that has begun, so that a little less than the rate is granted, never more.

/// The bandwidth that all containers share.
package struct BandwidthBudget: Equatable, Sendable {
    private static let slotsPerSecond = 64
    private static let slotTime: Int64 = 1_000_000_000 / Int64(slotsPerSecond)

    /// Nil: no limit.
    private let bytesPerSecond: UInt64?
    private let burst: UInt64
    /// Written per slot, the last second and what has begun of the next.
    private var slots = [UInt64](repeating: 0, count: slotsPerSecond + 1)
    private var slotNumber: Int64
    private var writtenLately: UInt64 = 0
    /// Granted and not settled.
    private(set) var underWay: UInt64 = 0

    /// At most `burst` is under way at any time. A rate of nil is no limit.
    package init(rate: ByteCount?, burst: ByteCount, at now: Nanoseconds) {
        bytesPerSecond = rate?.bytes
        self.burst = burst.bytes
        slotNumber = now.nanoseconds / Self.slotTime
    }

    /// What could be granted at `now`, in whole pages.
    package mutating func available(at now: Nanoseconds) -> ByteCount {
        guard let bytesPerSecond else { return ByteCount(pages: ByteCount(UInt64.max / 2).pages) }
        advance(to: now)
        let counted = underWay + writtenLately
        let left = counted < bytesPerSecond ? bytesPerSecond - counted : 0
        let room = underWay < burst ? burst - underWay : 0
        return ByteCount(pages: ByteCount(min(left, room)).pages)
    }

    /// Grants at most `wanted`, in whole pages. Each grant is to be settled once.
    package mutating func take(upTo wanted: ByteCount, at now: Nanoseconds) -> ByteCount {
        let granted = min(ByteCount(pages: wanted.pages), available(at: now))
        underWay += granted.bytes
        return granted
    }

    /// A grant is over, and this much of it was written.
    package mutating func settle(
        _ granted: ByteCount, written: ByteCount, at now: Nanoseconds
    ) {
        advance(to: now)
        underWay -= min(underWay, granted.bytes)
        guard bytesPerSecond != nil else { return }
        slots[Int(slotNumber % Int64(slots.count))] += written.bytes
        writtenLately += written.bytes
    }

    private mutating func advance(to now: Nanoseconds) {
        let number = now.nanoseconds / Self.slotTime
        guard number > slotNumber else { return }
        let count = Int64(slots.count)
        for passed in 0..<min(number - slotNumber, count) {
            let index = Int((number - passed) % count)
            writtenLately -= slots[index]
            slots[index] = 0
        }
        slotNumber = number
    }
}
