/// Commands of the transmission phase.
package struct NBDCommand: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }
    @inlinable package static var read: NBDCommand { NBDCommand(rawValue: 0) }
    @inlinable package static var write: NBDCommand { NBDCommand(rawValue: 1) }
    @inlinable package static var disconnect: NBDCommand { NBDCommand(rawValue: 2) }
    @inlinable package static var flush: NBDCommand { NBDCommand(rawValue: 3) }
    @inlinable package static var trim: NBDCommand { NBDCommand(rawValue: 4) }
    @inlinable package static var cache: NBDCommand { NBDCommand(rawValue: 5) }
    @inlinable package static var writeZeroes: NBDCommand { NBDCommand(rawValue: 6) }
    @inlinable package static var blockStatus: NBDCommand { NBDCommand(rawValue: 7) }
}

/// Flags of one command.
package struct NBDCommandFlags: OptionSet, Sendable {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }
    @inlinable package static var fua: NBDCommandFlags { NBDCommandFlags(rawValue: 1) }
    @inlinable package static var noHole: NBDCommandFlags { NBDCommandFlags(rawValue: 2) }
    @inlinable package static var dontFragment: NBDCommandFlags { NBDCommandFlags(rawValue: 4) }
    @inlinable package static var requireOne: NBDCommandFlags { NBDCommandFlags(rawValue: 8) }
    @inlinable package static var fastZero: NBDCommandFlags { NBDCommandFlags(rawValue: 16) }
}

/// Error numbers of replies; the protocol fixes them, whatever the platform's errno are.
package struct NBDErrorNumber: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt32
    @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }
    @inlinable package static var none: NBDErrorNumber { NBDErrorNumber(rawValue: 0) }
    @inlinable package static var notPermitted: NBDErrorNumber { NBDErrorNumber(rawValue: 1) }
    @inlinable package static var inputOutput: NBDErrorNumber { NBDErrorNumber(rawValue: 5) }
    @inlinable package static var noMemory: NBDErrorNumber { NBDErrorNumber(rawValue: 12) }
    @inlinable package static var invalid: NBDErrorNumber { NBDErrorNumber(rawValue: 22) }
    @inlinable package static var noSpace: NBDErrorNumber { NBDErrorNumber(rawValue: 28) }
    @inlinable package static var overflow: NBDErrorNumber { NBDErrorNumber(rawValue: 75) }
    @inlinable package static var notSupported: NBDErrorNumber { NBDErrorNumber(rawValue: 95) }
    @inlinable package static var shutdown: NBDErrorNumber { NBDErrorNumber(rawValue: 108) }
}

/// Kinds of structured reply chunks; the high bit marks an error.
package struct NBDChunkType: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }
    @inlinable package static var none: NBDChunkType { NBDChunkType(rawValue: 0) }
    @inlinable package static var offsetData: NBDChunkType { NBDChunkType(rawValue: 1) }
    @inlinable package static var offsetHole: NBDChunkType { NBDChunkType(rawValue: 2) }
    @inlinable package static var blockStatus: NBDChunkType { NBDChunkType(rawValue: 5) }
    @inlinable package static var error: NBDChunkType { NBDChunkType(rawValue: 0x8001) }
    @inlinable package static var errorOffset: NBDChunkType { NBDChunkType(rawValue: 0x8002) }
    @inlinable package var isError: Bool { rawValue & 0x8000 != 0 }
}

/// What base:allocation says of an extent.
package enum NBDExtentFlags {
    /// Nothing is allocated.
    package static let hole: UInt32 = 1
    /// It reads as zeros.
    package static let zero: UInt32 = 2
}

/// One request as it is on the wire. `payloadBytes` follow it when it is a write.
package struct NBDRequest: Equatable, Sendable {
    package var flags: NBDCommandFlags
    package var command: NBDCommand
    package var cookie: UInt64
    package var offset: UInt64
    package var length: UInt32

    @inlinable package init(
        command: NBDCommand, flags: NBDCommandFlags = [], cookie: UInt64, offset: UInt64 = 0,
        length: UInt32 = 0
    ) {
        self.flags = flags
        self.command = command
        self.cookie = cookie
        self.offset = offset
        self.length = length
    }

    /// Bytes that follow the request.
    @inlinable package var payloadBytes: Int { command == .write ? Int(length) : 0 }

    /// Reads a request from at least 28 bytes; nil when the magic number is wrong.
    @inlinable package init?(at bytes: UnsafeRawPointer) {
        // SAFETY: the caller gives at least `requestBytes`.
        guard unsafe bytes.bigEndian(0) == NBDWire.requestMagic else { return nil }
        flags = NBDCommandFlags(rawValue: unsafe bytes.bigEndian(4))
        command = NBDCommand(rawValue: unsafe bytes.bigEndian(6))
        cookie = unsafe bytes.bigEndian(8)
        offset = unsafe bytes.bigEndian(16)
        length = unsafe bytes.bigEndian(24)
    }

    /// Writes 28 bytes.
    @inlinable package func encode(to bytes: UnsafeMutableRawPointer) {
        // SAFETY: the caller gives room for `requestBytes`.
        unsafe bytes.putBigEndian(NBDWire.requestMagic, 0)
        unsafe bytes.putBigEndian(flags.rawValue, 4)
        unsafe bytes.putBigEndian(command.rawValue, 6)
        unsafe bytes.putBigEndian(cookie, 8)
        unsafe bytes.putBigEndian(offset, 16)
        unsafe bytes.putBigEndian(length, 24)
    }
}

/// The header of a reply of either kind.
package enum NBDReply: Equatable, Sendable {
    case simple(cookie: UInt64, error: NBDErrorNumber)
    case chunk(cookie: UInt64, type: NBDChunkType, isLast: Bool, length: UInt32)

    /// How long the header is that begins with these 4 bytes; nil when they begin no reply.
    @inlinable package static func headerBytes(at bytes: UnsafeRawPointer) -> Int? {
        switch unsafe bytes.bigEndian(0) as UInt32 {
        case NBDWire.simpleReplyMagic: NBDWire.simpleReplyBytes
        case NBDWire.structuredReplyMagic: NBDWire.structuredReplyBytes
        default: nil
        }
    }

    /// Reads a whole header; nil when its magic number is wrong.
    @inlinable package init?(at bytes: UnsafeRawPointer) {
        // SAFETY: the caller gives the number of bytes that `headerBytes` asked for.
        switch unsafe bytes.bigEndian(0) as UInt32 {
        case NBDWire.simpleReplyMagic:
            self = .simple(
                cookie: unsafe bytes.bigEndian(8),
                error: NBDErrorNumber(rawValue: unsafe bytes.bigEndian(4)))
        case NBDWire.structuredReplyMagic:
            self = .chunk(
                cookie: unsafe bytes.bigEndian(8),
                type: NBDChunkType(rawValue: unsafe bytes.bigEndian(6)),
                isLast: unsafe (bytes.bigEndian(4) as UInt16) & 1 != 0,
                length: unsafe bytes.bigEndian(16))
        default:
            return nil
        }
    }

    /// Writes the header and returns its length, 16 or 20 bytes.
    @inlinable @discardableResult
    package func encode(to bytes: UnsafeMutableRawPointer) -> Int {
        switch self {
        case .simple(let cookie, let error):
            unsafe bytes.putBigEndian(NBDWire.simpleReplyMagic, 0)
            unsafe bytes.putBigEndian(error.rawValue, 4)
            unsafe bytes.putBigEndian(cookie, 8)
            return NBDWire.simpleReplyBytes
        case .chunk(let cookie, let type, let isLast, let length):
            unsafe bytes.putBigEndian(NBDWire.structuredReplyMagic, 0)
            unsafe bytes.putBigEndian(UInt16(isLast ? 1 : 0), 4)
            unsafe bytes.putBigEndian(type.rawValue, 6)
            unsafe bytes.putBigEndian(cookie, 8)
            unsafe bytes.putBigEndian(length, 16)
            return NBDWire.structuredReplyBytes
        }
    }
}

extension UnsafeRawPointer {
    /// A big-endian integer at an offset in bytes, aligned or not.
    @inlinable package func bigEndian<T: FixedWidthInteger & UnsignedInteger & BitwiseCopyable>(
        _ offset: Int
    ) -> T {
        T(bigEndian: unsafe loadUnaligned(fromByteOffset: offset, as: T.self))
    }
}

extension UnsafeMutableRawPointer {
    /// Writes an integer big-endian at an offset in bytes, aligned or not.
    @inlinable package func putBigEndian<T: FixedWidthInteger & UnsignedInteger & BitwiseCopyable>(
        _ value: T, _ offset: Int
    ) {
        unsafe storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }
}
