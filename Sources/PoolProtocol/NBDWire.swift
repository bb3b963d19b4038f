// The NBD protocol for both ends: fixed newstyle negotiation and transmission, as the NetworkBlockDevice
// project's doc/proto.md states it. Pure: bytes in, values out; no sockets, no clock.
//
// Thread model: values only. Nothing in NBDTransmission.swift allocates; negotiation (NBDNegotiation.swift)
// works on arrays, for it runs once per connection.

/// The numbers of the protocol, big-endian on the wire.
package enum NBDWire {
    /// "NBDMAGIC", the first word that a server sends.
    package static let serverMagic: UInt64 = 0x4e42_444d_4147_4943
    /// "IHAVEOPT", before the server's flags and before each option.
    package static let optionMagic: UInt64 = 0x4948_4156_454f_5054
    package static let optionReplyMagic: UInt64 = 0x0003_e889_0455_65a9
    package static let requestMagic: UInt32 = 0x2560_9513
    package static let simpleReplyMagic: UInt32 = 0x6744_6698
    package static let structuredReplyMagic: UInt32 = 0x668e_33ef

    package static let requestBytes = 28
    package static let simpleReplyBytes = 16
    package static let structuredReplyBytes = 20
    package static let optionHeaderBytes = 16
    package static let optionReplyBytes = 20

    /// The longest payload of one request, both ways: what all clients stay below by default.
    package static let payloadBytesMax = 32 << 20
    /// What names a client in a fence.
    package static let fenceBytes = 16
    /// The longest option that a server reads: an export name and a few metadata queries fit.
    package static let optionBytesMax = 16 << 10
    /// The longest text that the protocol allows in names and messages.
    package static let textBytesMax = 4096
    /// The one metadata context that is offered, and the number that stands for it.
    package static let allocationContext = "base:allocation"
    package static let allocationContextID: UInt32 = 1

    package static let defaultPort: UInt16 = 10809
}

/// What the server says of itself before options.
package struct NBDHandshakeFlags: OptionSet, Sendable {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }
    package static let fixedNewstyle = NBDHandshakeFlags(rawValue: 1)
    package static let noZeroes = NBDHandshakeFlags(rawValue: 2)
}

/// What an export can do.
package struct NBDTransmissionFlags: OptionSet, Hashable, Sendable {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }
    package static let hasFlags = NBDTransmissionFlags(rawValue: 1 << 0)
    package static let readOnly = NBDTransmissionFlags(rawValue: 1 << 1)
    package static let sendFlush = NBDTransmissionFlags(rawValue: 1 << 2)
    package static let sendFUA = NBDTransmissionFlags(rawValue: 1 << 3)
    package static let rotational = NBDTransmissionFlags(rawValue: 1 << 4)
    package static let sendTrim = NBDTransmissionFlags(rawValue: 1 << 5)
    package static let sendWriteZeroes = NBDTransmissionFlags(rawValue: 1 << 6)
    package static let sendDF = NBDTransmissionFlags(rawValue: 1 << 7)
    package static let canMultiConnect = NBDTransmissionFlags(rawValue: 1 << 8)
    package static let sendCache = NBDTransmissionFlags(rawValue: 1 << 10)
    package static let sendFastZero = NBDTransmissionFlags(rawValue: 1 << 11)
}

/// Options of the negotiation.
package struct NBDOption: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let exportName = NBDOption(rawValue: 1)
    package static let abort = NBDOption(rawValue: 2)
    package static let list = NBDOption(rawValue: 3)
    package static let startTLS = NBDOption(rawValue: 5)
    package static let info = NBDOption(rawValue: 6)
    package static let go = NBDOption(rawValue: 7)
    package static let structuredReply = NBDOption(rawValue: 8)
    package static let listMetaContext = NBDOption(rawValue: 9)
    package static let setMetaContext = NBDOption(rawValue: 10)
    /// Farmem's own ("FM" and 1): 16 bytes name the client. The server ends that client's older connections,
    /// with all that they still carry, before it acknowledges: so a store that was given up on one connection
    /// cannot land after a newer one on the next. Other servers answer that they do not know it.
    package static let fence = NBDOption(rawValue: 0x464d_0001)
}

/// Answers to options; the high bit marks an error.
package struct NBDOptionReply: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let acknowledge = NBDOptionReply(rawValue: 1)
    package static let server = NBDOptionReply(rawValue: 2)
    package static let info = NBDOptionReply(rawValue: 3)
    package static let metaContext = NBDOptionReply(rawValue: 4)
    package static let unsupported = NBDOptionReply(rawValue: 0x8000_0001)
    package static let policy = NBDOptionReply(rawValue: 0x8000_0002)
    package static let invalid = NBDOptionReply(rawValue: 0x8000_0003)
    package static let tlsRequired = NBDOptionReply(rawValue: 0x8000_0005)
    package static let unknownExport = NBDOptionReply(rawValue: 0x8000_0006)
    package static let shutdown = NBDOptionReply(rawValue: 0x8000_0007)
    package static let blockSizeRequired = NBDOptionReply(rawValue: 0x8000_0008)
    package static let tooBig = NBDOptionReply(rawValue: 0x8000_0009)

    package var isError: Bool { rawValue & 0x8000_0000 != 0 }
}

/// Facts in an INFO or GO exchange.
package struct NBDInformation: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }
    package static let export = NBDInformation(rawValue: 0)
    package static let name = NBDInformation(rawValue: 1)
    package static let description = NBDInformation(rawValue: 2)
    package static let blockSize = NBDInformation(rawValue: 3)
    /// Farmem's own ("FM"): a number drawn anew with each lease. A client that finds another number
    /// after a reconnect knows that its pages are gone. Sent only to who asks.
    package static let epoch = NBDInformation(rawValue: 0x464d)
}

/// Why bytes are not the protocol.
package enum NBDProtocolError: Error, Equatable, Sendable {
    /// A word that must be a magic number is another.
    case badMagic(UInt64)
    /// A length that the frame or the limits do not allow.
    case badLength(UInt64)
    /// A text that is not UTF-8.
    case badText
    /// A reply that answers something else than what was asked.
    case unexpectedReply(UInt32)
}
