/// Why a text is not acceptable JSON, and at which byte.
package struct JSONError: Error, Equatable, CustomStringConvertible {
    package enum Reason: String, Sendable {
        case tooLarge = "text is larger than allowed"
        case tooDeep = "nested deeper than allowed"
        case unexpectedEnd = "text ends too early"
        case unexpectedByte = "unexpected character"
        case badNumber = "malformed number"
        case badEscape = "malformed escape in a string"
        case badString = "control character or invalid UTF-8 in a string"
        case duplicateKey = "the same key twice in one object"
        case trailingText = "something follows the value"
    }

    package let reason: Reason
    /// Byte offset from the start of the text.
    package let offset: Int

    package var description: String { "JSON: \(reason.rawValue) at byte \(offset)" }
}

/// Bounds of what the parser accepts.
package struct JSONLimits: Sendable {
    /// Bytes of text.
    package var bytesMax: Int
    /// Arrays and objects inside each other.
    package var depthMax: Int

    package init(bytesMax: Int = 4 << 20, depthMax: Int = 32) {
        self.bytesMax = bytesMax
        self.depthMax = depthMax
    }
}

extension JSONValue {
    /// Parses exactly one JSON value with optional white space around it.
    package static func parse(
        _ bytes: [UInt8], limits: JSONLimits = JSONLimits()
    ) throws(JSONError) -> JSONValue {
        guard bytes.count <= limits.bytesMax else {
            throw JSONError(reason: .tooLarge, offset: limits.bytesMax)
        }
        var parser = JSONParser(bytes: bytes, depthMax: limits.depthMax)
        let value = try parser.parseValue(depth: 0)
        parser.skipSpace()
        guard parser.position == bytes.count else { throw parser.failure(.trailingText) }
        return value
    }

    /// Parses exactly one JSON value with optional white space around it.
    package static func parse(
        _ text: String, limits: JSONLimits = JSONLimits()
    ) throws(JSONError) -> JSONValue {
        try parse(Array(text.utf8), limits: limits)
    }
}

private struct JSONParser {
    let bytes: [UInt8]
    let depthMax: Int
    var position = 0

    init(bytes: [UInt8], depthMax: Int) {
        self.bytes = bytes
        self.depthMax = depthMax
    }

    func failure(_ reason: JSONError.Reason) -> JSONError {
        JSONError(reason: reason, offset: position)
    }

    var current: UInt8? { position < bytes.count ? bytes[position] : nil }

    mutating func skipSpace() {
        while let byte = current, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 {
            position += 1
        }
    }

    mutating func expect(_ scalar: Unicode.Scalar) throws(JSONError) {
        guard let byte = current else { throw failure(.unexpectedEnd) }
        guard byte == UInt8(ascii: scalar) else { throw failure(.unexpectedByte) }
        position += 1
    }

    mutating func accept(_ scalar: Unicode.Scalar) -> Bool {
        guard current == UInt8(ascii: scalar) else { return false }
        position += 1
        return true
    }

    mutating func parseValue(depth: Int) throws(JSONError) -> JSONValue {
        skipSpace()
        guard let byte = current else { throw failure(.unexpectedEnd) }
        switch byte {
        case UInt8(ascii: "{"): return try parseObject(depth: depth)
        case UInt8(ascii: "["): return try parseArray(depth: depth)
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "t"): return try parseWord("true", .bool(true))
        case UInt8(ascii: "f"): return try parseWord("false", .bool(false))
        case UInt8(ascii: "n"): return try parseWord("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try parseNumber()
        default: throw failure(.unexpectedByte)
        }
    }

    mutating func parseWord(_ word: String, _ value: JSONValue) throws(JSONError) -> JSONValue {
        for byte in word.utf8 {
            guard let here = current else { throw failure(.unexpectedEnd) }
            guard here == byte else { throw failure(.unexpectedByte) }
            position += 1
        }
        return value
    }

    mutating func parseArray(depth: Int) throws(JSONError) -> JSONValue {
        guard depth < depthMax else { throw failure(.tooDeep) }
        try expect("[")
        var elements: [JSONValue] = []
        skipSpace()
        if accept("]") { return .array(elements) }
        while true {
            elements.append(try parseValue(depth: depth + 1))
            skipSpace()
            if accept("]") { return .array(elements) }
            try expect(",")
        }
    }

    mutating func parseObject(depth: Int) throws(JSONError) -> JSONValue {
        guard depth < depthMax else { throw failure(.tooDeep) }
        try expect("{")
        var members: [JSONValue.Member] = []
        var keys: Set<String> = []
        skipSpace()
        if accept("}") { return .object(members) }
        while true {
            skipSpace()
            let keyAt = position
            guard let byte = current else { throw failure(.unexpectedEnd) }
            guard byte == UInt8(ascii: "\"") else { throw failure(.unexpectedByte) }
            let key = try parseString()
            guard keys.insert(key).inserted else {
                throw JSONError(reason: .duplicateKey, offset: keyAt)
            }
            skipSpace()
            try expect(":")
            members.append(JSONValue.Member(key, try parseValue(depth: depth + 1)))
            skipSpace()
            if accept("}") { return .object(members) }
            try expect(",")
        }
    }

    mutating func skipDigits() throws(JSONError) {
        let start = position
        while let byte = current, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") {
            position += 1
        }
        guard position > start else { throw failure(.badNumber) }
    }

    mutating func parseNumber() throws(JSONError) -> JSONValue {
        let start = position
        var isWhole = true
        _ = accept("-")
        if !accept("0") { try skipDigits() }
        if accept(".") {
            isWhole = false
            try skipDigits()
        }
        if accept("e") || accept("E") {
            isWhole = false
            if !accept("+") { _ = accept("-") }
            try skipDigits()
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isWhole, let value = Int64(text) { return .integer(value) }
        guard let value = Double(text), value.isFinite else {
            throw JSONError(reason: .badNumber, offset: start)
        }
        return .number(value)
    }

    mutating func parseString() throws(JSONError) -> String {
        let start = position
        try expect("\"")
        var text: [UInt8] = []
        while true {
            guard let byte = current else { throw failure(.unexpectedEnd) }
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let string = String(validating: text, as: UTF8.self) else {
                    throw JSONError(reason: .badString, offset: start)
                }
                return string
            case UInt8(ascii: "\\"): try appendEscape(to: &text)
            case 0..<0x20: throw JSONError(reason: .badString, offset: position - 1)
            default: text.append(byte)
            }
        }
    }

    private mutating func appendEscape(to text: inout [UInt8]) throws(JSONError) {
        guard let byte = current else { throw failure(.unexpectedEnd) }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"): text += String(try parseScalar()).utf8
        default: throw failure(.badEscape)
        }
    }

    /// The scalar of `\uXXXX`, or of a surrogate pair; a lone surrogate is an error.
    private mutating func parseScalar() throws(JSONError) -> Character {
        var code = try parseHex()
        if (0xD800..<0xDC00).contains(code) {
            guard accept("\\"), accept("u") else { throw failure(.badEscape) }
            let low = try parseHex()
            guard (0xDC00..<0xE000).contains(low) else { throw failure(.badEscape) }
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        }
        guard let scalar = Unicode.Scalar(code) else { throw failure(.badEscape) }
        return Character(scalar)
    }

    private mutating func parseHex() throws(JSONError) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = current else { throw failure(.unexpectedEnd) }
            guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else {
                throw failure(.badEscape)
            }
            code = code << 4 | UInt32(digit)
            position += 1
        }
        return code
    }
}
