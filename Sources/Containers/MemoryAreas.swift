/// One mapping of a process that may hold private anonymous pages, in page numbers.
package struct MemoryArea: Equatable, Sendable {
    package var first: UInt64
    package var end: UInt64

    package init(first: UInt64, end: UInt64) {
        self.first = first
        self.end = end
    }
}

/// Parses /proc/PID/maps for the areas whose pages swap can take: private and writable, apart from
/// the kernel's own. Read-only file mappings are page cache, shared ones belong to nobody alone.
/// Lines that do not parse are skipped: the caller then simply leaves those pages alone.
package func parseMemoryAreas(_ maps: [UInt8]) -> [MemoryArea] {
    var areas: [MemoryArea] = []
    for line in maps.split(separator: UInt8(ascii: "\n")) {
        let words = line.split(separator: UInt8(ascii: " "), maxSplits: 5)
        guard words.count >= 5, words[1].count >= 4 else { continue }
        let flags = Array(words[1])
        guard flags[0] == UInt8(ascii: "r"), flags[1] == UInt8(ascii: "w"),
            flags[3] == UInt8(ascii: "p")
        else { continue }
        let ends = words[0].split(separator: UInt8(ascii: "-"))
        guard ends.count == 2, let first = parseHex(ends[0]), let end = parseHex(ends[1]),
            first < end, first % 4096 == 0, end % 4096 == 0
        else { continue }
        areas.append(MemoryArea(first: first / 4096, end: end / 4096))
    }
    return areas
}

private func parseHex(_ digits: ArraySlice<UInt8>) -> UInt64? {
    guard !digits.isEmpty, digits.count <= 16 else { return nil }
    var value: UInt64 = 0
    for digit in digits {
        let nibble: UInt8
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): nibble = digit - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): nibble = digit - UInt8(ascii: "a") + 10
        default: return nil
        }
        value = value << 4 | UInt64(nibble)
    }
    return value
}
