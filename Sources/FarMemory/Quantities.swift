// FarMemory: the value types that every module shares. Pure: imports nothing, allocates nothing.

/// The page that the kernel swaps and that all of Farmem's protocols count in, in bytes.
package let pageBytes = 4096

/// The default unit of grant (docs/architecture.md): coarse grants leave half of a memory node unused.
package let defaultSlabBytes = 1 << 20

/// A number of bytes, never negative.
package struct ByteCount: Hashable, Comparable, Sendable {
    /// The plain number of bytes.
    package var bytes: UInt64

    @inlinable package init(_ bytes: UInt64) { self.bytes = bytes }
    @inlinable package init(pages: PageCount) { self.bytes = pages.pages * UInt64(pageBytes) }

    package static let zero = ByteCount(0)
    @inlinable package static func kib(_ n: UInt64) -> ByteCount { ByteCount(n << 10) }
    @inlinable package static func mib(_ n: UInt64) -> ByteCount { ByteCount(n << 20) }
    @inlinable package static func gib(_ n: UInt64) -> ByteCount { ByteCount(n << 30) }

    /// Whole pages that fit.
    @inlinable package var pages: PageCount { PageCount(bytes / UInt64(pageBytes)) }
    /// For reports: mebibytes with their fraction.
    @inlinable package var mebibytes: Double { Double(bytes) / 1_048_576 }

    @inlinable package static func < (a: ByteCount, b: ByteCount) -> Bool { a.bytes < b.bytes }
    @inlinable package static func + (a: ByteCount, b: ByteCount) -> ByteCount {
        ByteCount(a.bytes + b.bytes)
    }
    /// Saturates at zero: a remainder of memory is never negative.
    @inlinable package static func - (a: ByteCount, b: ByteCount) -> ByteCount {
        ByteCount(a.bytes >= b.bytes ? a.bytes - b.bytes : 0)
    }
    @inlinable package static func += (a: inout ByteCount, b: ByteCount) { a = a + b }
    @inlinable package static func -= (a: inout ByteCount, b: ByteCount) { a = a - b }
}

extension ByteCount: CustomStringConvertible {
    /// The largest binary unit that divides it, as the unit parser reads it back: `1MiB`, `4097B`.
    package var description: String {
        if bytes == 0 { return "0B" }
        if bytes % (1 << 30) == 0 { return "\(bytes >> 30)GiB" }
        if bytes % (1 << 20) == 0 { return "\(bytes >> 20)MiB" }
        if bytes % (1 << 10) == 0 { return "\(bytes >> 10)KiB" }
        return "\(bytes)B"
    }
}

/// A number of 4 KiB pages, never negative.
package struct PageCount: Hashable, Comparable, Sendable {
    package var pages: UInt64

    @inlinable package init(_ pages: UInt64) { self.pages = pages }
    package static let zero = PageCount(0)

    @inlinable package static func < (a: PageCount, b: PageCount) -> Bool { a.pages < b.pages }
    @inlinable package static func + (a: PageCount, b: PageCount) -> PageCount {
        PageCount(a.pages + b.pages)
    }
    /// Saturates at zero.
    @inlinable package static func - (a: PageCount, b: PageCount) -> PageCount {
        PageCount(a.pages >= b.pages ? a.pages - b.pages : 0)
    }
    @inlinable package static func += (a: inout PageCount, b: PageCount) { a = a + b }
    @inlinable package static func -= (a: inout PageCount, b: PageCount) { a = a - b }
}

/// A length of time, or a moment on the monotonic clock, in nanoseconds.
package struct Nanoseconds: Hashable, Comparable, Sendable {
    package var nanoseconds: Int64

    @inlinable package init(_ nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    package static let zero = Nanoseconds(0)
    @inlinable package static func microseconds(_ n: Int64) -> Nanoseconds { .init(n * 1_000) }
    @inlinable package static func milliseconds(_ n: Int64) -> Nanoseconds { .init(n * 1_000_000) }
    @inlinable package static func seconds(_ n: Int64) -> Nanoseconds { .init(n * 1_000_000_000) }

    @inlinable package var seconds: Double { Double(nanoseconds) / 1e9 }
    @inlinable package var milliseconds: Int64 { nanoseconds / 1_000_000 }
    @inlinable package var microseconds: Int64 { nanoseconds / 1_000 }

    @inlinable package static func < (a: Nanoseconds, b: Nanoseconds) -> Bool {
        a.nanoseconds < b.nanoseconds
    }
    @inlinable package static func + (a: Nanoseconds, b: Nanoseconds) -> Nanoseconds {
        Nanoseconds(a.nanoseconds + b.nanoseconds)
    }
    @inlinable package static func - (a: Nanoseconds, b: Nanoseconds) -> Nanoseconds {
        Nanoseconds(a.nanoseconds - b.nanoseconds)
    }
    @inlinable package static func += (a: inout Nanoseconds, b: Nanoseconds) { a = a + b }
    @inlinable package static func -= (a: inout Nanoseconds, b: Nanoseconds) { a = a - b }
}

extension Nanoseconds: CustomStringConvertible {
    /// The largest unit that divides it, as the unit parser reads it back: `250ms`, `2s`.
    package var description: String {
        if nanoseconds == 0 { return "0s" }
        if nanoseconds % 3_600_000_000_000 == 0 { return "\(nanoseconds / 3_600_000_000_000)h" }
        if nanoseconds % 60_000_000_000 == 0 { return "\(nanoseconds / 60_000_000_000)m" }
        if nanoseconds % 1_000_000_000 == 0 { return "\(nanoseconds / 1_000_000_000)s" }
        if nanoseconds % 1_000_000 == 0 { return "\(nanoseconds / 1_000_000)ms" }
        if nanoseconds % 1_000 == 0 { return "\(nanoseconds / 1_000)us" }
        return "\(nanoseconds)ns"
    }
}
