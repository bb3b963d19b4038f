import FarMemory
import Glibc
import LinuxSystem

/// A generator of files in the published formats and of their size, for machines that do not have the data sets. The same seed gives the same
/// bytes.
package struct TraceGenerator: Sendable {
    package var seed: UInt64
    /// Functions of 2021: 424; of 2019: 46,000.
    package var functions: Int
    /// Days of 2021: 14. The files of 2019 are of one day each.
    package var days: Int
    /// Calls of 2021 altogether, nearly.
    package var calls: Int

    package init(seed: UInt64, functions: Int, days: Int = 14, calls: Int = 1_980_000) {
        precondition(functions > 0 && days > 0 && calls > 0, "nothing to generate")
        self.seed = seed
        self.functions = functions
        self.days = days
        self.calls = calls
    }
}

/// Appends text to a file through a buffer.
struct TraceWriter: ~Copyable {
    private let file: FileDescriptor
    private let path: String
    private var buffer: [UInt8] = []
    private(set) var bytesWritten = 0

    private static let bufferBytes = 1 << 20

    init(_ path: String) throws(TraceError) {
        self.path = path
        do throws(SystemError) {
            file = try FileDescriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        } catch {
            throw .unreadable(path, error.reason)
        }
        buffer.reserveCapacity(Self.bufferBytes + 64 << 10)
    }

    mutating func append(_ text: String) { buffer.append(contentsOf: text.utf8) }
    mutating func append(_ bytes: [UInt8]) { buffer.append(contentsOf: bytes) }
    mutating func comma() { buffer.append(UInt8(ascii: ",")) }

    /// A whole number, zero or more.
    mutating func append(number: Int) {
        if number < 10 {
            buffer.append(UInt8(ascii: "0") + UInt8(max(0, number)))
        } else {
            append("\(number)")
        }
    }

    /// With so many decimals.
    mutating func append(_ value: Double, decimals: Int) {
        var scale = 1
        for _ in 0..<decimals { scale *= 10 }
        let scaled = Int((value * Double(scale)).rounded())
        append("\(scaled / scale)")
        let digits = "\(scaled % scale)"
        buffer.append(UInt8(ascii: "."))
        buffer.append(
            contentsOf: repeatElement(UInt8(ascii: "0"), count: decimals - digits.utf8.count))
        append(digits)
    }

    mutating func endLine() throws(TraceError) {
        buffer.append(UInt8(ascii: "\n"))
        if buffer.count >= Self.bufferBytes { try flush() }
    }

    mutating func flush() throws(TraceError) {
        // SAFETY: the array lives through the call.
        let outcome = unsafe buffer.withUnsafeBytes { bytes in
            Result<Void, SystemError> { () throws(SystemError) in unsafe try file.writeAll(bytes) }
        }
        if case .failure(let error) = outcome { throw .unreadable(path, error.reason) }
        bytesWritten += buffer.count
        buffer.removeAll(keepingCapacity: true)
    }
}

extension SeededRandom {
    /// Exponential with this mean.
    mutating func exponential(_ mean: Double) -> Double { -mean * log(1 - unit()) }

    /// Standard normal (Box and Muller).
    mutating func normal() -> Double {
        (-2 * log(1 - unit())).squareRoot() * cos(2 * Double.pi * unit())
    }

    /// 64 hexadecimal digits, as the data sets name things.
    mutating func digest() -> [UInt8] {
        let hex = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(64)
        for _ in 0..<4 {
            var word = next()
            for _ in 0..<16 {
                text.append(hex[Int(word & 15)])
                word >>= 4
            }
        }
        return text
    }
}

/// How loud an hour is: lowest at night, highest in the afternoon, 1 on average (the data sets swing by about half).
func dayShape(_ seconds: Double, swing: Double) -> Double {
    1 + swing * sin(2 * Double.pi * (seconds / 86_400 - 0.4))
}
