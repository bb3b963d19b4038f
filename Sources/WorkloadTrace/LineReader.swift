import Glibc
import LinuxSystem

/// The lines of a file, one at a time, in bounded memory.
struct LineReader: ~Copyable {
    let path: String
    private let file: FileDescriptor
    private var buffer = [UInt8](repeating: 0, count: 256 << 10)
    private var filled = 0
    private var position = 0
    private(set) var number = 0

    /// The 2019 files have 1444 columns of at most 64 characters; twice that.
    private static let lineBytesMax = 192 << 10

    init(_ path: String) throws(TraceError) {
        self.path = path
        do throws(SystemError) {
            file = try FileDescriptor.open(path, O_RDONLY)
        } catch {
            throw .unreadable(path, error.reason)
        }
    }

    /// The next line without its end ("\n" or "\r\n"), nil at the end of the file. Empty lines are skipped.
    mutating func next() throws(TraceError) -> ArraySlice<UInt8>? {
        while true {
            if let end = buffer[position..<filled].firstIndex(of: UInt8(ascii: "\n")) {
                let line = trimmed(position..<end)
                position = end + 1
                number += 1
                if line.isEmpty { continue }
                return line
            }
            guard try fill() else {
                guard position < filled else { return nil }
                let line = trimmed(position..<filled)
                position = filled
                number += 1
                return line.isEmpty ? nil : line
            }
        }
    }

    private func trimmed(_ range: Range<Int>) -> ArraySlice<UInt8> {
        var line = buffer[range]
        if line.last == UInt8(ascii: "\r") { line.removeLast() }
        return line
    }

    /// Moves the rest to the front and reads more; false at the end of the file.
    private mutating func fill() throws(TraceError) -> Bool {
        if position > 0 {
            let rest = Array(buffer[position..<filled])
            buffer.replaceSubrange(0..<rest.count, with: rest)
            filled = rest.count
            position = 0
        }
        guard filled < Self.lineBytesMax else {
            throw .malformed(file: path, line: number + 1, "longer than \(Self.lineBytesMax) bytes")
        }
        let from = filled
        do throws(SystemError) {
            let descriptor = file.rawValue
            let got = try check("read") {
                unsafe buffer.withUnsafeMutableBytes { bytes in
                    // SAFETY: from < lineBytesMax < count, so the range lies in the buffer.
                    unsafe read(
                        descriptor, bytes.baseAddress.map { unsafe $0 + from }, bytes.count - from)
                }
            }
            filled += got
            return got > 0
        } catch {
            throw .unreadable(path, error.reason)
        }
    }

    /// An error about the line that `next` gave last.
    func malformed(_ why: String) -> TraceError { .malformed(file: path, line: number, why) }
}

/// The comma-separated fields of a line. The traces quote nothing.
func fields(_ line: ArraySlice<UInt8>) -> [ArraySlice<UInt8>] {
    line.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
}

func text(_ field: ArraySlice<UInt8>) -> String { String(decoding: field, as: UTF8.self) }

/// A whole number of digits only, nil for anything else.
func wholeNumber(_ field: ArraySlice<UInt8>) -> Int? {
    guard !field.isEmpty, field.count <= 15 else { return nil }
    var value = 0
    for byte in field {
        guard (0x30...0x39).contains(byte) else { return nil }
        value = value * 10 + Int(byte - 0x30)
    }
    return value
}

/// A decimal number, zero or more, nil for anything else.
func decimalNumber(_ field: ArraySlice<UInt8>) -> Double? {
    guard !field.isEmpty, field.count <= 64, let value = Double(text(field)), value.isFinite,
        value >= 0
    else { return nil }
    return value
}
