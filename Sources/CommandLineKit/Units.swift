package import FarMemory

/// Why a text is not a value of its kind. The message is the end of a sentence that starts with the option's name.
package struct UnitError: Error, Equatable, CustomStringConvertible {
    package let message: String
    package var description: String { message }

    init(_ message: String) { self.message = message }
}

/// Parsers for values with units, shared by flags, `FARMEM_*` variables and the configuration file. Pure.
///
/// Bare numbers are refused: `--capacity 4` could mean bytes, pages or GiB. Nothing is rounded or clamped.
package enum Units {
    private static let sizeUnits: [(String, UInt64)] = [
        ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40),
    ]
    private static let durationUnits: [(String, UInt64)] = [
        ("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000),
        ("m", 60_000_000_000), ("h", 3_600_000_000_000), ("d", 86_400_000_000_000),
    ]

    /// `4GiB`, `1.5MiB`, `4096B`: binary units only, a whole number of bytes.
    package static func size(_ text: String) throws(UnitError) -> ByteCount {
        let example = "write a size like 512KiB, 64MiB or 4GiB"
        return ByteCount(try quantity(text, units: sizeUnits, example: example))
    }

    /// `250us`, `1.5s`, `2m`: a whole number of nanoseconds.
    package static func duration(_ text: String) throws(UnitError) -> Nanoseconds {
        let example = "write a duration like 250us, 10ms, 2s or 1h"
        let nanoseconds = try quantity(text, units: durationUnits, example: example)
        guard let value = Int64(exactly: nanoseconds) else {
            throw UnitError("'\(text)' is too long; \(example)")
        }
        return Nanoseconds(value)
    }

    /// `64MiB/s`: bytes per second.
    package static func rate(_ text: String) throws(UnitError) -> ByteCount {
        let example = "write a rate like 64MiB/s"
        guard text.hasSuffix("/s") else { throw UnitError("'\(text)' is not a rate; \(example)") }
        let amount = String(text.dropLast(2))
        return ByteCount(try quantity(amount, units: sizeUnits, example: example))
    }

    /// `0.99` or `99%`: between 0 and 1, in steps of 10^-9.
    package static func ratio(_ text: String) throws(UnitError) -> Double {
        let isPercent = text.hasSuffix("%")
        let number = Array((isPercent ? text.dropLast() : text[...]).utf8)
        let parts = number.split(separator: 0x2E, omittingEmptySubsequences: false)
        let fraction = parts.count == 2 ? parts[1] : []
        let isWellFormed =
            number.allSatisfy { (0x30...0x39).contains($0) || $0 == 0x2E } && parts.count <= 2
            && parts.first?.isEmpty == false && (parts.count == 1 || !fraction.isEmpty)
        guard isWellFormed, let whole = parts.first else {
            throw UnitError("'\(text)' is not a ratio; write one like 0.25 or 25%")
        }
        let one = UInt64(ratioStepsOfOne)
        guard fraction.count <= 9,
            let steps = scaled(
                whole: whole, fraction: fraction, unit: isPercent ? one / 100 : one)
        else { throw UnitError("'\(text)' has too many digits; write one like 0.25 or 25%") }
        guard steps <= one else {
            throw UnitError("'\(text)' is more than 1; write 0 to 1, or 0% to 100%")
        }
        return Double(steps) / ratioStepsOfOne
    }

    private static let ratioStepsOfOne = 1e9

    /// A ratio as `ratio` reads it back: decimal, never with an exponent.
    static func ratioText(_ ratio: Double) -> String {
        let steps = Int64((ratio * ratioStepsOfOne).rounded())
        let digits = String(Int64(ratioStepsOfOne) + steps % Int64(ratioStepsOfOne)).dropFirst()
        let last = digits.lastIndex { $0 != "0" }
        let whole = "\(steps / Int64(ratioStepsOfOne))"
        return last.map { "\(whole).\(digits[...$0])" } ?? whole
    }

    /// A whole number within the range, digits only (and a leading minus where the range allows it).
    package static func integer(
        _ text: String, in range: ClosedRange<Int64>
    ) throws(UnitError) -> Int64 {
        guard text.first != "+", let value = Int64(text) else {
            throw UnitError("'\(text)' is not a whole number")
        }
        guard range.contains(value) else {
            throw UnitError("\(value) is out of range; allowed is \(rangeText(range))")
        }
        return value
    }

    static func rangeText(_ range: ClosedRange<Int64>) -> String {
        range.upperBound == .max
            ? "\(range.lowerBound) or more" : "\(range.lowerBound) to \(range.upperBound)"
    }

    /// `unix:/path`, `tcp://host:port`, `tcp:host:port` or `host:port`; IPv6 addresses in brackets.
    package static func endpoint(_ text: String) throws(UnitError) -> Endpoint {
        let example = "write unix:/path/to/socket or 127.0.0.1:8080"
        if text.hasPrefix("unix:") {
            var path = text.dropFirst("unix:".count)
            // unix:///run/x is a URL's way to write /run/x; more slashes mean no more than one.
            let slashes = path.prefix { $0 == "/" }.count
            if slashes == 2 { throw UnitError("'\(text)' is ambiguous; \(example)") }
            if slashes > 2 { path = path.dropFirst(slashes - 1) }
            guard !path.isEmpty else { throw UnitError("'\(text)' has no path; \(example)") }
            // sun_path has 108 bytes with its terminator.
            guard path.utf8.count <= 107, !path.utf8.contains(0) else {
                throw UnitError("the socket path of '\(text)' is longer than 107 bytes")
            }
            return .unix(path: String(path))
        }
        var rest = text[...]
        for prefix in ["tcp://", "tcp:"] where rest.hasPrefix(prefix) {
            rest = rest.dropFirst(prefix.count)
            break
        }
        guard let colon = rest.lastIndex(of: ":") else {
            throw UnitError("'\(text)' has no port; \(example)")
        }
        var host = rest[..<colon]
        let digits = rest[rest.index(after: colon)...]
        guard digits.allSatisfy({ ("0"..."9").contains($0) }), let port = UInt16(digits) else {
            throw UnitError("the port of '\(text)' is not a number from 0 to 65535; \(example)")
        }
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
        } else if host.contains(":") {
            throw UnitError("'\(text)': put an IPv6 address in brackets, like [::1]:8080")
        }
        let allowed = host.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") }
        guard !host.isEmpty, allowed else {
            throw UnitError("'\(text)' has no valid host; \(example)")
        }
        return .tcp(host: String(host), port: port)
    }

    /// `digits[.digits]unit` as a whole number of the smallest unit, without floating point.
    private static func quantity(
        _ text: String, units: [(String, UInt64)], example: String
    ) throws(UnitError) -> UInt64 {
        let bytes = Array(text.utf8)
        let numberEnd =
            bytes.firstIndex { !(0x30...0x39).contains($0) && $0 != 0x2E } ?? bytes.count
        let suffix = String(decoding: bytes[numberEnd...], as: UTF8.self)
        guard numberEnd > 0 else {
            throw UnitError("'\(text)' is not a number with a unit; \(example)")
        }
        guard let unit = units.first(where: { $0.0 == suffix })?.1 else {
            let what = suffix.isEmpty ? "has no unit" : "has no known unit"
            throw UnitError("'\(text)' \(what); \(example)")
        }
        let parts = bytes[..<numberEnd].split(separator: 0x2E, omittingEmptySubsequences: false)
        let fraction = parts.count == 2 ? parts[1] : []
        guard parts.count <= 2, let whole = parts.first, !whole.isEmpty,
            parts.count == 1 || (!fraction.isEmpty && fraction.count <= 9)
        else { throw UnitError("'\(text)' is not a number with a unit; \(example)") }
        guard let total = scaled(whole: whole, fraction: fraction, unit: unit) else {
            throw UnitError(
                "'\(text)' is too large, or not a whole number of the smallest unit; \(example)")
        }
        return total
    }

    /// `whole.fraction × unit`, nil on overflow or when it is not whole.
    private static func scaled(
        whole: ArraySlice<UInt8>, fraction: ArraySlice<UInt8>, unit: UInt64
    ) -> UInt64? {
        guard let high = UInt64(String(decoding: whole, as: UTF8.self)) else { return nil }
        let (product, overflow) = high.multipliedReportingOverflow(by: unit)
        guard !overflow else { return nil }
        guard !fraction.isEmpty else { return product }
        guard let low = UInt64(String(decoding: fraction, as: UTF8.self)) else { return nil }
        var scale: UInt64 = 1
        for _ in fraction { scale *= 10 }
        // Nine digits of fraction and the largest unit (a day in ns) stay far below 128 bits.
        let (quotient, remainder) = scale.dividingFullWidth(low.multipliedFullWidth(by: unit))
        guard remainder == 0 else { return nil }
        let (sum, carry) = product.addingReportingOverflow(quotient)
        return carry ? nil : sum
    }
}
