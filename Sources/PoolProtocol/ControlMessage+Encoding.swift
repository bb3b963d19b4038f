import CWireFormat

extension ControlMessage {
    /// The frame as bytes. Names longer than the protocol's 64 bytes are a programming error; texts of
    /// errors are cut.
    package func encoded(cookie: UInt32) -> [UInt8] {
        var writer = FrameWriter()
        writePayload(to: &writer)
        return writer.frame(type: frameType, cookie: cookie)
    }

    /// The type on the wire.
    package var frameType: UInt16 {
        let type =
            switch self {
            case .hello: FM_FRAME_HELLO
            case .welcome: FM_FRAME_WELCOME
            case .auth: FM_FRAME_AUTH
            case .ok: FM_FRAME_OK
            case .error: FM_FRAME_ERROR
            case .open: FM_FRAME_OPEN
            case .opened: FM_FRAME_OPENED
            case .grant: FM_FRAME_GRANT
            case .granted: FM_FRAME_GRANTED
            case .returnSlabs: FM_FRAME_RETURN
            case .ping: FM_FRAME_PING
            case .pong: FM_FRAME_PONG
            case .close: FM_FRAME_CLOSE
            case .release: FM_FRAME_RELEASE
            case .openedRDMA: FM_FRAME_OPENED_RDMA
            case .grantedKeys: FM_FRAME_GRANTED_KEYS
            case .held: FM_FRAME_HELD
            case .resume: FM_FRAME_RESUME
            }
        return UInt16(type.rawValue)
    }

    private func writePayload(to writer: inout FrameWriter) {
        switch self {
        case .hello(let versions, let features, let clientName):
            writer.put(versions.lowerBound)
            writer.put(versions.upperBound)
            writer.put(features)
            writer.put(cut(clientName, Int(FM_WIRE_NAME_MAX)), width: Int(FM_WIRE_NAME_MAX))
        case .welcome(let version, let authRequired, let slabBytes, let challenge):
            precondition(challenge.count == Int(FM_WIRE_CHALLENGE_BYTES), "a challenge is 32 bytes")
            writer.put(version)
            writer.put(UInt8(authRequired ? 1 : 0))
            writer.put(UInt8(0))
            writer.put(slabBytes)
            writer.put(UInt32(0))
            writer.bytes += challenge
        case .auth(let keyName, let mac):
            precondition(mac.count == Int(FM_WIRE_MAC_BYTES), "HMAC-SHA256 is 32 bytes")
            writer.put(Array(keyName.utf8), width: Int(FM_WIRE_NAME_MAX))
            writer.bytes += mac
        case .error(let code, let text):
            writer.put(code.rawValue)
            writer.put(cut(text, Int(FM_WIRE_TEXT_MAX)), width: Int(FM_WIRE_TEXT_MAX))
        case .open(let leaseName, let size, let flags):
            writer.put(Array(leaseName.utf8), width: Int(FM_WIRE_NAME_MAX))
            writer.put(size)
            writer.put(flags.rawValue)
            writer.put(UInt32(0))
        case .opened(let leaseID, let epoch, let size, let slabBytes):
            writer.put(leaseID)
            writer.put(epoch)
            writer.put(size)
            writer.put(slabBytes)
            writer.put(UInt32(0))
        case .openedRDMA(let lease): put(lease, to: &writer)
        case .grantedKeys(let first, let keys):
            precondition(keys.count <= Int(FM_RDMA_KEYS_MAX), "124 keys fit into a frame")
            writer.put(first)
            writer.put(UInt32(keys.count))
            for key in keys { writer.put(key) }
        case .resume(let leaseName, let session, let token):
            precondition(token.count == Int(FM_RDMA_TOKEN_BYTES), "a token is 16 bytes")
            writer.put(Array(leaseName.utf8), width: Int(FM_WIRE_NAME_MAX))
            writer.put(session)
            writer.bytes += token
        case .grant(let slabs), .granted(let slabs), .returnSlabs(let slabs), .held(let slabs):
            writer.put(slabs.first)
            writer.put(slabs.count)
        case .ok, .ping, .pong, .close, .release: break
        }
    }

    private func put(_ lease: OpenedRDMA, to writer: inout FrameWriter) {
        precondition(lease.token.count == Int(FM_RDMA_TOKEN_BYTES), "a token is 16 bytes")
        writer.put(lease.leaseID)
        writer.put(lease.epoch)
        writer.put(lease.size)
        writer.put(lease.base)
        writer.put(lease.slabBytes)
        writer.put(lease.queuesMax)
        writer.put(lease.readsMax)
        writer.put(lease.session)
        writer.bytes += lease.token
        writer.put(lease.silenceMilliseconds)
        writer.put(UInt32(0))
    }
}

/// At most `limit` bytes of UTF-8, cut between characters.
func cut(_ text: String, _ limit: Int) -> [UInt8] {
    var text = text
    while text.utf8.count > limit { text.removeLast() }
    return Array(text.utf8)
}

/// Little-endian fields one after the other.
struct FrameWriter {
    var bytes: [UInt8]

    /// Behind room for the header.
    init() { bytes = [UInt8](repeating: 0, count: FrameHeader.byteCount) }

    /// Without a header.
    init(empty: ()) { bytes = [] }

    mutating func put(_ value: some FixedWidthInteger & UnsignedInteger) {
        for shift in stride(from: 0, to: value.bitWidth, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }

    /// Text in a field of fixed width, padded with zero bytes.
    mutating func put(_ text: [UInt8], width: Int) {
        precondition(text.count <= width, "a text of \(text.count) bytes in a field of \(width)")
        bytes += text
        bytes += repeatElement(0, count: width - text.count)
    }

    func frame(type: UInt16, cookie: UInt32) -> [UInt8] {
        var head = FrameWriter()
        head.bytes.removeAll(keepingCapacity: true)
        head.put(UInt32(FM_WIRE_MAGIC))
        head.put(UInt16(FM_WIRE_VERSION))
        head.put(type)
        head.put(UInt32(bytes.count - FrameHeader.byteCount))
        head.put(cookie)
        return head.bytes + bytes[FrameHeader.byteCount...]
    }
}
