import PoolProtocol

/// What decodes must encode to something that decodes to the same value. The first byte chooses the message.
@Sendable func fuzzNBD(_ bytes: [UInt8]) {
    guard let kind = bytes.first else { return }
    let data = Array(bytes.dropFirst())
    switch kind % 9 {
    case 0:
        guard let value = try? NBDGreeting(data) else { return }
        precondition((try? NBDGreeting(value.encoded)) == value)
    case 1:
        guard let value = try? NBDOptionHeader(data) else { return }
        let again = NBDOptionHeader.encode(value.option)
        precondition((try? NBDOptionHeader(again))?.option == value.option)
    case 2:
        guard let value = try? NBDOptionReplyHeader(data) else { return }
        precondition(Int(value.length) <= NBDWire.optionBytesMax, "a reply may not be longer")
    case 3:
        guard let value = try? NBDExportRequest(data) else { return }
        precondition((try? NBDExportRequest(value.encoded)) == value)
    case 4:
        guard let value = try? NBDContextRequest(data) else { return }
        precondition((try? NBDContextRequest(value.encoded)) == value)
    case 5:
        guard let value = try? NBDExportFact(data) else { return }
        precondition((try? NBDExportFact(value.encoded)) == value)
    case 6:
        guard let value = try? NBDContextReply(data) else { return }
        precondition((try? NBDContextReply(value.encoded)) == value)
    case 7:
        _ = try? decodeNBDClientFlags(data)
        _ = try? decodeNBDExportNameReply(data)
    default: fuzzTransmission(data)
    }
}

/// Requests and replies in the fixed-size headers of the transmission phase.
private func fuzzTransmission(_ data: [UInt8]) {
    var room = [UInt8](repeating: 0, count: NBDWire.requestBytes)
    if data.count >= NBDWire.requestBytes {
        // SAFETY: both arrays hold at least `requestBytes`.
        let request = unsafe data.withUnsafeBytes {
            unsafe $0.baseAddress.flatMap { unsafe NBDRequest(at: $0) }
        }
        if let request {
            let again = unsafe room.withUnsafeMutableBytes { buffer -> NBDRequest? in
                guard let base = buffer.baseAddress else { return nil }
                unsafe request.encode(to: base)
                return unsafe NBDRequest(at: UnsafeRawPointer(base))
            }
            precondition(again == request, "a request changes on the way")
        }
    }
    guard data.count >= NBDWire.structuredReplyBytes else { return }
    // SAFETY: both arrays hold at least `structuredReplyBytes`, the longer of the two headers.
    let reply = unsafe data.withUnsafeBytes {
        unsafe $0.baseAddress.flatMap { unsafe NBDReply(at: $0) }
    }
    guard let reply else { return }
    let again = unsafe room.withUnsafeMutableBytes { buffer -> NBDReply? in
        guard let base = buffer.baseAddress else { return nil }
        let length = unsafe reply.encode(to: base)
        precondition(unsafe NBDReply.headerBytes(at: UnsafeRawPointer(base)) == length)
        return unsafe NBDReply(at: UnsafeRawPointer(base))
    }
    precondition(again == reply, "a reply changes on the way")
}

/// A URI that parses must print as one that parses to the same.
@Sendable func fuzzNBDURI(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    if let uri = try? NBDURI(text) {
        precondition((try? NBDURI(uri.description)) == uri, "'\(uri)' does not read back")
    }
    _ = try? parseNBDListener(text)
}
