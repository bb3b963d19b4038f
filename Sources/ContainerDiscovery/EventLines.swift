/// Cuts a feed into lines within a bound: a longer line is dropped whole and counted.
package struct EventLines: Sendable {
    private var partial: [UInt8] = []
    private var isSkipping = false
    private let bytesMax: Int
    /// Lines that were too long.
    package private(set) var dropped = 0

    package init(bytesMax: Int = AnswerLimits.eventBytes) { self.bytesMax = bytesMax }

    /// The lines that are complete with this piece, without empty ones.
    package mutating func take(_ piece: [UInt8]) -> [[UInt8]] {
        var lines: [[UInt8]] = []
        var rest = piece[...]
        while let end = rest.firstIndex(of: 0x0A) {
            append(rest[..<end])
            if !isSkipping, !partial.allSatisfy({ $0 == 0x20 || $0 == 0x0D }) {
                lines.append(partial)
            }
            partial.removeAll(keepingCapacity: true)
            isSkipping = false
            rest = rest[(end + 1)...]
        }
        append(rest)
        return lines
    }

    private mutating func append(_ bytes: ArraySlice<UInt8>) {
        guard !isSkipping else { return }
        guard partial.count + bytes.count <= bytesMax else {
            partial = []
            isSkipping = true
            dropped += 1
            return
        }
        partial += bytes
    }
}
