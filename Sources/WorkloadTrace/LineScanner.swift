import Glibc
import LinuxSystem

/// The lines of a file as bytes, for files of hundreds of megabytes: nothing is allocated per line. One owner.
@safe struct LineScanner: ~Copyable {
    let path: String
    private let file: FileDescriptor
    /// Owned: allocated by init, freed by deinit.
    private let buffer: UnsafeMutableRawBufferPointer
    private var filled = 0
    private var position = 0
    /// Of the line that `next` gave last.
    private(set) var number = 0
    private(set) var bytesRead = 0

    private static let bufferBytes = 1 << 20
    private static let lineBytesMax = 192 << 10

    init(_ path: String) throws(TraceError) {
        self.path = path
        do throws(SystemError) {
            file = try FileDescriptor.open(path, O_RDONLY)
        } catch {
            throw .unreadable(path, error.reason)
        }
        unsafe buffer = .allocate(byteCount: Self.bufferBytes, alignment: 16)
    }

    deinit { unsafe buffer.deallocate() }

    /// Calls `body` with the next line, without its end, and its number; false at the end of the file. Empty lines are skipped.
    mutating func next(
        _ body: (ByteLine, Int) throws(TraceError) -> Void
    ) throws(TraceError) -> Bool {
        while true {
            // SAFETY: position <= filled <= count; the buffer lives as long as self, and the line is not kept by the caller.
            let rest = unsafe UnsafeRawBufferPointer(rebasing: buffer[position..<filled])
            if let start = rest.baseAddress,
                let end = unsafe memchr(start, Int32(UInt8(ascii: "\n")), rest.count)
            {
                let length = unsafe UnsafeRawPointer(end) - start
                position += length + 1
                number += 1
                let line = unsafe ByteLine(
                    trimming: UnsafeRawBufferPointer(rebasing: rest[..<length]))
                if line.isEmpty { continue }
                try body(line, number)
                return true
            }
            if try fill() { continue }
            guard position < filled else { return false }
            // SAFETY: as above; the last line has no end.
            let last = unsafe ByteLine(
                trimming: UnsafeRawBufferPointer(rebasing: buffer[position..<filled]))
            position = filled
            number += 1
            if last.isEmpty { return false }
            try body(last, number)
            return true
        }
    }

    /// Moves the rest to the front and reads more; false at the end of the file.
    private mutating func fill() throws(TraceError) -> Bool {
        let rest = filled - position
        guard rest < Self.lineBytesMax else {
            throw .malformed(file: path, line: number + 1, "longer than \(Self.lineBytesMax) bytes")
        }
        // SAFETY: both ranges lie in the buffer; memmove allows them to overlap.
        if let base = unsafe buffer.baseAddress { unsafe memmove(base, base + position, rest) }
        position = 0
        filled = rest
        do throws(SystemError) {
            let got = unsafe try file.read(
                into: UnsafeMutableRawBufferPointer(rebasing: buffer[rest...]))
            filled += got
            bytesRead += got
            return got > 0
        } catch {
            throw .unreadable(path, error.reason)
        }
    }
}

/// A line in a scanner's buffer, or a field of it; valid only inside the scanner's callback.
@safe struct ByteLine {
    // SAFETY: whoever holds a ByteLine is inside LineScanner.next's callback, during which the buffer does not move.
    let bytes: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { unsafe self.bytes = bytes }

    /// Without a carriage return at the end.
    init(trimming bytes: UnsafeRawBufferPointer) {
        let isCarriage = unsafe bytes.last == UInt8(ascii: "\r")
        unsafe self.bytes =
            isCarriage ? UnsafeRawBufferPointer(rebasing: bytes.dropLast()) : bytes
    }

    var isEmpty: Bool { unsafe bytes.isEmpty }
    var count: Int { unsafe bytes.count }
    var text: String { unsafe String(decoding: bytes, as: UTF8.self) }

    /// Takes the field before the next comma off the front of `rest`; nil when nothing is left.
    static func takeField(_ rest: inout ByteLine?) -> ByteLine? {
        guard let line = rest else { return nil }
        let bytes = unsafe line.bytes
        guard let start = bytes.baseAddress,
            let comma = unsafe memchr(start, Int32(UInt8(ascii: ",")), bytes.count)
        else {
            rest = nil
            return line
        }
        let length = unsafe UnsafeRawPointer(comma) - start
        // SAFETY: the comma lies in the line, so both parts do.
        rest = unsafe ByteLine(UnsafeRawBufferPointer(rebasing: bytes[(length + 1)...]))
        return unsafe ByteLine(UnsafeRawBufferPointer(rebasing: bytes[..<length]))
    }

    /// What ends before the `commas`-th comma from the left, with the rest behind it; nil when there are fewer.
    func split(afterCommas commas: Int) -> (head: ByteLine, rest: ByteLine)? {
        var from = 0
        var left = commas
        while left > 0 {
            guard let start = unsafe bytes.baseAddress,
                let comma = unsafe memchr(
                    start + from, Int32(UInt8(ascii: ",")), bytes.count - from)
            else { return nil }
            from = unsafe UnsafeRawPointer(comma) - start + 1
            left -= 1
        }
        // SAFETY: from - 1 is the place of a comma in the line.
        return unsafe (
            ByteLine(UnsafeRawBufferPointer(rebasing: bytes[..<(from - 1)])),
            ByteLine(UnsafeRawBufferPointer(rebasing: bytes[from...]))
        )
    }

    /// A whole number of at most 15 digits, nil for anything else.
    var wholeNumber: Int? {
        guard !isEmpty, count <= 15 else { return nil }
        var value = 0
        for index in 0..<count {
            // SAFETY: index < count.
            let digit = unsafe Int(bytes[index]) - 0x30
            guard (0...9).contains(digit) else { return nil }
            value = value * 10 + digit
        }
        return value
    }

    /// Whole numbers between commas into `row`, as many as it has; what is wrong otherwise: a column that is no number, by its index
    /// from 0, or a wrong number of columns.
    func wholeNumbers(into row: inout [UInt32]) -> WrongColumn? {
        var column = 0
        var value: UInt64 = 0
        var digits = 0
        for index in 0...count {
            // SAFETY: index < count; behind the end there is as good as a comma.
            let byte = index < count ? unsafe bytes[index] : UInt8(ascii: ",")
            if byte == UInt8(ascii: ",") {
                guard column < row.count else { return .tooMany }
                guard digits > 0, value <= UInt64(UInt32.max) else { return .notANumber(column) }
                row[column] = UInt32(value)
                column += 1
                value = 0
                digits = 0
                continue
            }
            let digit = UInt64(byte &- 0x30)
            guard digit <= 9, digits < 15 else { return .notANumber(column) }
            value = value * 10 + digit
            digits += 1
        }
        return column == row.count ? nil : .tooFew(column)
    }

    enum WrongColumn {
        case notANumber(Int)
        case tooMany
        case tooFew(Int)
    }

    /// A decimal number of seconds from 0 to 1e9 in nanoseconds, nil for anything else. Digits beyond the ninth are dropped.
    var nanoseconds: Int64? {
        guard !isEmpty, count <= 64 else { return nil }
        var whole: Int64 = 0
        var fraction: Int64 = 0
        var fractionDigits = 0
        var digits = 0
        var isFraction = false
        for index in 0..<count {
            // SAFETY: index < count.
            let byte = unsafe bytes[index]
            if byte == UInt8(ascii: "."), !isFraction {
                isFraction = true
                continue
            }
            let digit = Int64(byte) - 0x30
            guard (0...9).contains(digit) else { return slowNanoseconds }
            digits += 1
            if !isFraction {
                guard whole < 1_000_000_000 else { return nil }
                whole = whole * 10 + digit
            } else if fractionDigits < 9 {
                fraction = fraction * 10 + digit
                fractionDigits += 1
            }
        }
        guard digits > 0, whole < 1_000_000_000 else { return nil }
        while fractionDigits < 9 {
            fraction *= 10
            fractionDigits += 1
        }
        return whole * 1_000_000_000 + fraction
    }

    /// With an exponent: rare.
    private var slowNanoseconds: Int64? {
        guard let value = Double(text), value.isFinite, value >= 0, value < 1e9 else { return nil }
        return Int64(value * 1e9)
    }

    /// A decimal number, zero or more and less than 1e12, nil for anything else.
    var decimal: Double? {
        if let whole = wholeNumber { return Double(whole) }
        guard !isEmpty, count <= 64, let value = Double(text), value.isFinite, value >= 0,
            value < 1e12
        else { return nil }
        return value
    }

    /// FNV-1a over words of eight bytes: names of functions are hexadecimal digests, so nothing stronger is needed.
    var hash: UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        var index = 0
        while index + 8 <= count {
            // SAFETY: index + 8 <= count.
            let word = unsafe bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            hash = (hash ^ word) &* 0x0000_0100_0000_01b3
            hash ^= hash >> 29
            index += 8
        }
        while index < count {
            // SAFETY: index < count.
            hash = unsafe (hash ^ UInt64(bytes[index])) &* 0x0000_0100_0000_01b3
            index += 1
        }
        return hash ^ (hash >> 32)
    }
}
