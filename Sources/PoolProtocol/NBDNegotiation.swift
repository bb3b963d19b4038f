/// A cursor over received bytes: every read is checked against what is there.
struct NBDByteReader {
    private let bytes: ArraySlice<UInt8>
    private var next: Int

    init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        next = bytes.startIndex
    }

    var remaining: Int { bytes.endIndex - next }

    mutating func take(_ count: Int) throws(NBDProtocolError) -> ArraySlice<UInt8> {
        guard count >= 0, count <= remaining else { throw .badLength(UInt64(max(0, count))) }
        defer { next += count }
        return bytes[next..<next + count]
    }

    mutating func integer<T: FixedWidthInteger & UnsignedInteger>(
        _: T.Type
    ) throws(NBDProtocolError) -> T {
        var value: T = 0
        for byte in try take(T.bitWidth / 8) { value = (value << 8) | T(byte) }
        return value
    }

    mutating func text(_ count: Int) throws(NBDProtocolError) -> String {
        guard count <= NBDWire.textBytesMax else { throw .badLength(UInt64(count)) }
        guard let text = String(validating: try take(count), as: UTF8.self) else { throw .badText }
        return text
    }

    /// A text behind its length of 32 bits.
    mutating func countedText() throws(NBDProtocolError) -> String {
        try text(Int(try integer(UInt32.self)))
    }

    func requireEnd() throws(NBDProtocolError) {
        guard remaining == 0 else { throw .badLength(UInt64(remaining)) }
    }
}

extension [UInt8] {
    /// Integers one after another, big-endian, each in its own width.
    init<each T: FixedWidthInteger & UnsignedInteger>(bigEndian values: repeat each T) {
        self = []
        for value in repeat each values {
            for shift in stride(from: type(of: value).bitWidth - 8, through: 0, by: -8) {
                append(UInt8(truncatingIfNeeded: value >> shift))
            }
        }
    }

    /// A text behind its length of 32 bits.
    init(counted text: String) { self = [UInt8](bigEndian: UInt32(text.utf8.count)) + text.utf8 }
}

/// The server's first 18 bytes.
package struct NBDGreeting: Equatable, Sendable {
    package static let bytes = 18
    package var flags: NBDHandshakeFlags

    package init(flags: NBDHandshakeFlags) { self.flags = flags }

    package init(_ bytes: [UInt8]) throws(NBDProtocolError) {
        var reader = NBDByteReader(bytes[...])
        let magic = try reader.integer(UInt64.self)
        guard magic == NBDWire.serverMagic else { throw .badMagic(magic) }
        let version = try reader.integer(UInt64.self)
        guard version == NBDWire.optionMagic else { throw .badMagic(version) }
        flags = NBDHandshakeFlags(rawValue: try reader.integer(UInt16.self))
    }

    package var encoded: [UInt8] {
        [UInt8](bigEndian: NBDWire.serverMagic, NBDWire.optionMagic, flags.rawValue)
    }
}

/// One option that a client sends: header, then `length` bytes.
package struct NBDOptionHeader: Equatable, Sendable {
    package var option: NBDOption
    package var length: UInt32

    /// Reads 16 bytes.
    package init(_ bytes: [UInt8]) throws(NBDProtocolError) {
        var reader = NBDByteReader(bytes[...])
        let magic = try reader.integer(UInt64.self)
        guard magic == NBDWire.optionMagic else { throw .badMagic(magic) }
        option = NBDOption(rawValue: try reader.integer(UInt32.self))
        length = try reader.integer(UInt32.self)
    }

    /// A whole option, header and data.
    package static func encode(_ option: NBDOption, _ data: [UInt8] = []) -> [UInt8] {
        [UInt8](bigEndian: NBDWire.optionMagic, option.rawValue, UInt32(data.count)) + data
    }
}

/// The header of the server's answer to an option.
package struct NBDOptionReplyHeader: Equatable, Sendable {
    package var option: NBDOption
    package var reply: NBDOptionReply
    package var length: UInt32

    /// Reads 20 bytes.
    package init(_ bytes: [UInt8]) throws(NBDProtocolError) {
        var reader = NBDByteReader(bytes[...])
        let magic = try reader.integer(UInt64.self)
        guard magic == NBDWire.optionReplyMagic else { throw .badMagic(magic) }
        option = NBDOption(rawValue: try reader.integer(UInt32.self))
        reply = NBDOptionReply(rawValue: try reader.integer(UInt32.self))
        length = try reader.integer(UInt32.self)
        guard length <= UInt32(NBDWire.optionBytesMax) else { throw .badLength(UInt64(length)) }
    }

    /// A whole answer, header and data.
    package static func encode(
        _ option: NBDOption, _ reply: NBDOptionReply, _ data: [UInt8] = []
    ) -> [UInt8] {
        [UInt8](
            bigEndian: NBDWire.optionReplyMagic, option.rawValue, reply.rawValue,
            UInt32(data.count)) + data
    }
}

/// The data of INFO and GO: the export and what the client wants to know of it.
package struct NBDExportRequest: Equatable, Sendable {
    package var name: String
    package var wanted: [NBDInformation]

    package init(name: String, wanted: [NBDInformation] = []) {
        self.name = name
        self.wanted = wanted
    }

    package init(_ data: [UInt8]) throws(NBDProtocolError) {
        var reader = NBDByteReader(data[...])
        name = try reader.countedText()
        wanted = []
        for _ in 0..<Int(try reader.integer(UInt16.self)) {
            wanted.append(NBDInformation(rawValue: try reader.integer(UInt16.self)))
        }
        try reader.requireEnd()
    }

    package var encoded: [UInt8] {
        [UInt8](counted: name) + [UInt8](bigEndian: UInt16(wanted.count))
            + wanted.flatMap { [UInt8](bigEndian: $0.rawValue) }
    }
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
package struct NBDContextRequest: Equatable, Sendable {
    package var name: String
    package var queries: [String]

    package init(name: String, queries: [String]) {
        self.name = name
        self.queries = queries
    }

    package init(_ data: [UInt8]) throws(NBDProtocolError) {
        var reader = NBDByteReader(data[...])
        name = try reader.countedText()
        queries = []
        let count = try reader.integer(UInt32.self)
        // Each query has a length of 4 bytes: a count that cannot fit is refused before the loop.
        guard Int(count) * 4 <= reader.remaining else { throw .badLength(UInt64(count)) }
        for _ in 0..<Int(count) {
            queries.append(try reader.countedText())
        }
        try reader.requireEnd()
    }

    package var encoded: [UInt8] {
        [UInt8](counted: name) + [UInt8](bigEndian: UInt32(queries.count))
            + queries.flatMap { [UInt8](counted: $0) }
    }
}

/// One fact that a server tells in an INFO reply.
package enum NBDExportFact: Equatable, Sendable {
    case export(size: UInt64, flags: NBDTransmissionFlags)
    case blockSize(minimum: UInt32, preferred: UInt32, maximum: UInt32)
    case text(NBDInformation, String)
    case epoch(UInt64)
    /// A kind that this end does not know; to be ignored.
    case unknown(NBDInformation)

    package init(_ data: [UInt8]) throws(NBDProtocolError) {
        var reader = NBDByteReader(data[...])
        let kind = NBDInformation(rawValue: try reader.integer(UInt16.self))
        switch kind {
        case .export:
            self = .export(
                size: try reader.integer(UInt64.self),
                flags: NBDTransmissionFlags(rawValue: try reader.integer(UInt16.self)))
        case .blockSize:
            self = .blockSize(
                minimum: try reader.integer(UInt32.self),
                preferred: try reader.integer(UInt32.self),
                maximum: try reader.integer(UInt32.self))
        case .name, .description:
            self = .text(kind, try reader.text(reader.remaining))
        case .epoch:
            self = .epoch(try reader.integer(UInt64.self))
        default:
            self = .unknown(kind)
            return
        }
        try reader.requireEnd()
    }

    package var encoded: [UInt8] {
        switch self {
        case .export(let size, let flags):
            [UInt8](bigEndian: NBDInformation.export.rawValue, size, flags.rawValue)
        case .blockSize(let minimum, let preferred, let maximum):
            [UInt8](bigEndian: NBDInformation.blockSize.rawValue, minimum, preferred, maximum)
        case .text(let kind, let text): [UInt8](bigEndian: kind.rawValue) + text.utf8
        case .epoch(let epoch): [UInt8](bigEndian: NBDInformation.epoch.rawValue, epoch)
        case .unknown(let kind): [UInt8](bigEndian: kind.rawValue)
        }
    }
}

/// A metadata context as a reply names it.
package struct NBDContextReply: Equatable, Sendable {
    package var id: UInt32
    package var name: String

    package init(id: UInt32, name: String) {
        self.id = id
        self.name = name
    }

    package init(_ data: [UInt8]) throws(NBDProtocolError) {
        var reader = NBDByteReader(data[...])
        id = try reader.integer(UInt32.self)
        name = try reader.text(reader.remaining)
    }

    package var encoded: [UInt8] {
        [UInt8](bigEndian: id) + name.utf8
    }
}

/// The data of a SERVER reply to LIST: one export's name.
package func encodeNBDListEntry(_ name: String) -> [UInt8] { [UInt8](counted: name) }

/// What follows EXPORT_NAME: size, flags, and 124 zeros unless the client renounced them.
package func encodeNBDExportNameReply(
    size: UInt64, flags: NBDTransmissionFlags, withZeroes: Bool
) -> [UInt8] {
    [UInt8](bigEndian: size, flags.rawValue)
        + [UInt8](repeating: 0, count: withZeroes ? 124 : 0)
}

/// The four bytes that a client sends after the greeting.
package func encodeNBDClientFlags(_ flags: NBDHandshakeFlags) -> [UInt8] {
    [UInt8](bigEndian: UInt32(flags.rawValue))
}

/// The client's flags; nil when it sets one that the server does not know.
package func decodeNBDClientFlags(_ bytes: [UInt8]) throws(NBDProtocolError) -> NBDHandshakeFlags? {
    var reader = NBDByteReader(bytes[...])
    let raw = try reader.integer(UInt32.self)
    return raw > 3 ? nil : NBDHandshakeFlags(rawValue: UInt16(raw))
}

/// The export's size and flags that follow EXPORT_NAME.
package func decodeNBDExportNameReply(
    _ bytes: [UInt8]
) throws(NBDProtocolError) -> (size: UInt64, flags: NBDTransmissionFlags) {
    var reader = NBDByteReader(bytes[...])
    return (
        try reader.integer(UInt64.self),
        NBDTransmissionFlags(rawValue: try reader.integer(UInt16.self))
    )
}
