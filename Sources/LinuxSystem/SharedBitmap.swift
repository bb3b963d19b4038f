package import Synchronization

/// A bitmap in memory that several threads or processes share, changed by atomic operations only.
///
/// It does not own its memory: whoever made the mapping keeps it alive as long as copies of this value
/// are used. Setting releases, reading acquires: what was written before a bit was set is seen by who
/// sees the bit.
@safe package struct SharedBitmap: @unchecked Sendable {
    // SAFETY of @unchecked Sendable: all access goes through atomics.
    @usableFromInline let words: UnsafeMutablePointer<Atomic<UInt64>>
    /// How many bits.
    package let count: Int

    /// Lays a bitmap over memory, aligned to 8, of `SharedBitmap.byteCount(count)` bytes.
    package init(_ memory: UnsafeMutableRawPointer, count: Int) {
        // SAFETY: Atomic<UInt64> has the size, alignment and bits of a UInt64 on Linux.
        unsafe words = memory.assumingMemoryBound(to: Atomic<UInt64>.self)
        self.count = count
    }

    /// Bytes that `count` bits take, whole words.
    package static func byteCount(_ count: Int) -> Int { (count + 63) / 64 * 8 }

    @inlinable package func isSet(_ bit: Int) -> Bool {
        // SAFETY: the callers keep `bit` in 0 ..< count, as everywhere below.
        assert(bit >= 0 && bit < count)
        return unsafe words[bit >> 6].load(ordering: .acquiring) & (1 << UInt64(bit & 63)) != 0
    }

    /// Sets one bit; true when it was set already.
    @inlinable @discardableResult package func set(_ bit: Int) -> Bool {
        assert(bit >= 0 && bit < count)
        let mask: UInt64 = 1 << UInt64(bit & 63)
        return unsafe words[bit >> 6].bitwiseOr(mask, ordering: .acquiringAndReleasing).oldValue
            & mask != 0
    }

    /// Clears one bit; true when it was set.
    @inlinable @discardableResult package func clear(_ bit: Int) -> Bool {
        assert(bit >= 0 && bit < count)
        let mask: UInt64 = 1 << UInt64(bit & 63)
        return unsafe words[bit >> 6].bitwiseAnd(~mask, ordering: .acquiringAndReleasing).oldValue
            & mask != 0
    }

    /// The bits of `range` that lie in word `word`.
    @inlinable static func mask(_ word: Int, _ range: Range<Int>) -> UInt64 {
        let low = max(range.lowerBound - word * 64, 0)
        let high = min(range.upperBound - word * 64, 64)
        return (high == 64 ? ~0 : (1 << UInt64(high)) &- 1) & ~((1 << UInt64(low)) &- 1)
    }

    @inlinable static func wordRange(_ range: Range<Int>) -> Range<Int> {
        range.isEmpty ? 0..<0 : range.lowerBound >> 6..<((range.upperBound + 63) >> 6)
    }

    /// Sets all bits of a range, a word at a time.
    @inlinable package func set(_ range: Range<Int>) {
        assert(range.lowerBound >= 0 && range.upperBound <= count)
        for word in Self.wordRange(range) {
            _ = unsafe words[word].bitwiseOr(
                Self.mask(word, range), ordering: .acquiringAndReleasing)
        }
    }

    /// Clears all bits of a range, a word at a time.
    @inlinable package func clear(_ range: Range<Int>) {
        assert(range.lowerBound >= 0 && range.upperBound <= count)
        for word in Self.wordRange(range) {
            _ = unsafe words[word].bitwiseAnd(
                ~Self.mask(word, range), ordering: .acquiringAndReleasing)
        }
    }

    /// Whether no bit of the range is set.
    @inlinable package func isClear(_ range: Range<Int>) -> Bool {
        for word in Self.wordRange(range)
        where unsafe words[word].load(ordering: .acquiring) & Self.mask(word, range) != 0 {
            return false
        }
        return true
    }

    /// How many bits of the range are set.
    package func countSet(_ range: Range<Int>) -> Int {
        var sum = 0
        for word in Self.wordRange(range) {
            sum +=
                unsafe (words[word].load(ordering: .acquiring) & Self.mask(word, range))
                .nonzeroBitCount
        }
        return sum
    }

    /// How long the run of equal bits that starts at `range.lowerBound` is, at most the range.
    @inlinable package func run(_ range: Range<Int>) -> (isSet: Bool, count: Int) {
        let first = isSet(range.lowerBound)
        var bit = range.lowerBound
        while bit < range.upperBound {
            let word = unsafe words[bit >> 6].load(ordering: .acquiring)
            let rest = (first ? ~word : word) >> UInt64(bit & 63)
            if rest != 0 {
                return (
                    first, min(bit + rest.trailingZeroBitCount, range.upperBound) - range.lowerBound
                )
            }
            bit = (bit | 63) + 1
        }
        return (first, range.count)
    }

    /// The first set bit in the range.
    @inlinable package func firstSet(_ range: Range<Int>) -> Int? {
        for word in Self.wordRange(range) {
            let bits = unsafe words[word].load(ordering: .acquiring) & Self.mask(word, range)
            if bits != 0 { return word * 64 + bits.trailingZeroBitCount }
        }
        return nil
    }
}

extension SharedBitmap {
    /// The words themselves, for loops of their own over many bits. The rules of the type hold.
    package var rawWords: UnsafeMutablePointer<Atomic<UInt64>> { unsafe words }
}

/// A word in memory that several processes share, read and written atomically: what was written before it was
/// set is seen by who sees it. It does not own its memory, as `SharedBitmap` does not.
@safe package struct SharedWord: @unchecked Sendable {
    // SAFETY of @unchecked Sendable: all access goes through the atomic.
    private let word: UnsafeMutablePointer<Atomic<UInt64>>

    /// Lays it over memory aligned to 8.
    package init(_ memory: UnsafeMutableRawPointer) {
        unsafe word = memory.assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    package var value: UInt64 {
        get { unsafe word.pointee.load(ordering: .acquiring) }
        nonmutating set { unsafe word.pointee.store(newValue, ordering: .releasing) }
    }
}
