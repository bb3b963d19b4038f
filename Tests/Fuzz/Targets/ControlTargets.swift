import PoolProtocol

/// A frame of the control protocol: what decodes must encode to a frame that decodes to the same.
@Sendable func fuzzControl(_ bytes: [UInt8]) {
    guard let header = try? FrameHeader.decode(bytes.prefix(FrameHeader.byteCount)) else { return }
    let payload = bytes.dropFirst(FrameHeader.byteCount).prefix(header.payloadLength)
    guard let message = try? ControlMessage.decode(type: header.type, payload: payload) else {
        return
    }
    let frame = message.encoded(cookie: header.cookie)
    guard let again = try? FrameHeader.decode(frame.prefix(FrameHeader.byteCount)) else {
        preconditionFailure("an encoded header does not decode")
    }
    precondition(again.cookie == header.cookie && again.type == header.type)
    let repeated = try? ControlMessage.decode(
        type: again.type, payload: frame.dropFirst(FrameHeader.byteCount))
    precondition(repeated == message, "a message changes on the way")
    if case .open(let name, _, _) = message { precondition(isLeaseName(name)) }
}

/// What comes with an RDMA connection, asked for, accepted or refused: the first byte says which.
@Sendable func fuzzRDMAConnection(_ bytes: [UInt8]) {
    let data = bytes.dropFirst()
    switch bytes.first {
    case 0:
        guard let request = try? RDMAConnectRequest.decode(data) else { return }
        precondition((try? RDMAConnectRequest.decode(request.encoded())) == request)
    case 1:
        guard let accept = try? RDMAAccept.decode(data) else { return }
        precondition((try? RDMAAccept.decode(accept.encoded())) == accept)
    default:
        guard let reject = RDMAReject.decode(data) else { return }
        precondition(RDMAReject.decode(reject.encoded()) == reject)
    }
}

/// The file of keys that an operator writes: keys with secrets of allowed lengths, or the line that is wrong.
@Sendable func fuzzKeys(_ bytes: [UInt8]) {
    do throws(KeyFileError) {
        let keys = try SharedKey.parse(String(decoding: bytes, as: UTF8.self))
        precondition(keys.allSatisfy { SharedKey.secretBytes.contains($0.secret.count) })
        precondition(Set(keys.map(\.name)).count == keys.count, "a name twice")
    } catch {
        precondition(error.line >= 0 && !error.reason.isEmpty)
    }
}
