import CWireFormat

extension FrameHeader {
    /// Reads a header; `bytes` has exactly `byteCount` of them.
    package static func decode(_ bytes: some Collection<UInt8>) throws(ControlDecodeError)
        -> FrameHeader
    {
        var reader = FieldReader(bytes)
        guard bytes.count == byteCount else {
            throw .wrongLength(type: 0, length: bytes.count)
        }
        guard reader.take(UInt32.self) == UInt32(FM_WIRE_MAGIC) else { throw .badMagic }
        let version = reader.take(UInt16.self)
        guard version == UInt16(FM_WIRE_VERSION) else { throw .unsupportedVersion(version) }
        let type = reader.take(UInt16.self)
        let length = reader.take(UInt32.self)
        guard length <= UInt32(FM_WIRE_PAYLOAD_MAX) else { throw .payloadTooLong(length) }
        return FrameHeader(
            type: type, payloadLength: Int(length), cookie: reader.take(UInt32.self))
    }
}

extension ControlMessage {
    /// Reads the payload of a frame whose header was read.
    package static func decode(
        type: UInt16, payload: some Collection<UInt8>
    ) throws(ControlDecodeError) -> ControlMessage {
        guard let expected = payloadLength(of: type) else { throw .unknownType(type) }
        guard expected.contains(payload.count) else {
            throw .wrongLength(type: type, length: payload.count)
        }
        var reader = FieldReader(payload)
        switch fm_frame_type(UInt32(type)) {
        case FM_FRAME_HELLO: return try hello(&reader)
        case FM_FRAME_WELCOME: return try welcome(&reader)
        case FM_FRAME_AUTH:
            let name = try reader.takeText(Int(FM_WIRE_NAME_MAX))
            return .auth(keyName: name, mac: reader.takeBytes(Int(FM_WIRE_MAC_BYTES)))
        case FM_FRAME_ERROR:
            let raw = reader.take(UInt32.self)
            guard let code = ControlErrorCode(rawValue: raw) else { throw .badField("error code") }
            return .error(code, try reader.takeText(Int(FM_WIRE_TEXT_MAX)))
        case FM_FRAME_OPEN: return try open(&reader)
        case FM_FRAME_OPENED: return try opened(&reader)
        case FM_FRAME_GRANT: return .grant(try slabs(&reader, emptyAllowed: false))
        case FM_FRAME_GRANTED: return .granted(try slabs(&reader, emptyAllowed: true))
        case FM_FRAME_RETURN: return .returnSlabs(try slabs(&reader, emptyAllowed: false))
        case FM_FRAME_PING: return .ping
        case FM_FRAME_PONG: return .pong
        case FM_FRAME_CLOSE: return .close
        case FM_FRAME_RELEASE: return .release
        case FM_FRAME_OPENED_RDMA: return .openedRDMA(try openedRDMA(&reader))
        case FM_FRAME_GRANTED_KEYS: return try grantedKeys(&reader, length: payload.count)
        case FM_FRAME_HELD: return .held(try slabs(&reader, emptyAllowed: false))
        case FM_FRAME_RESUME: return try resume(&reader)
        default: return .ok
        }
    }

    /// How long the payload of each type may be: all but one are of fixed length.
    private static func payloadLength(of type: UInt16) -> ClosedRange<Int>? {
        if fm_frame_type(UInt32(type)) == FM_FRAME_GRANTED_KEYS {
            return MemoryLayout<fm_slabs>.size...MemoryLayout<fm_granted_keys>.size
        }
        return fixedLength(of: type).map { $0...$0 }
    }

    private static func fixedLength(of type: UInt16) -> Int? {
        switch fm_frame_type(UInt32(type)) {
        case FM_FRAME_HELLO: MemoryLayout<fm_hello>.size
        case FM_FRAME_WELCOME: MemoryLayout<fm_welcome>.size
        case FM_FRAME_AUTH: MemoryLayout<fm_auth>.size
        case FM_FRAME_ERROR: MemoryLayout<fm_error>.size
        case FM_FRAME_OPEN: MemoryLayout<fm_open>.size
        case FM_FRAME_OPENED: MemoryLayout<fm_opened>.size
        case FM_FRAME_GRANT, FM_FRAME_GRANTED, FM_FRAME_RETURN, FM_FRAME_HELD:
            MemoryLayout<fm_slabs>.size
        case FM_FRAME_OPENED_RDMA: MemoryLayout<fm_opened_rdma>.size
        case FM_FRAME_RESUME: MemoryLayout<fm_resume>.size
        case FM_FRAME_OK, FM_FRAME_PING, FM_FRAME_PONG, FM_FRAME_CLOSE, FM_FRAME_RELEASE: 0
        default: nil
        }
    }

    private static func hello(
        _ reader: inout FieldReader<some Collection<UInt8>>
    ) throws(ControlDecodeError) -> ControlMessage {
        let (low, high) = (reader.take(UInt16.self), reader.take(UInt16.self))
        guard low <= high else { throw .badField("version range") }
        let features = reader.take(UInt32.self)
        let name = try reader.takeText(Int(FM_WIRE_NAME_MAX))
        return .hello(versions: low...high, features: features, clientName: name)
    }

    private static func welcome(
        _ reader: inout FieldReader<some Collection<UInt8>>
    ) throws(ControlDecodeError) -> ControlMessage {
        let version = reader.take(UInt16.self)
        let auth = reader.take(UInt8.self)
        guard auth <= 1 else { throw .badField("auth_required") }
        _ = reader.take(UInt8.self)
        let slab = reader.take(UInt32.self)
        guard isSlabSize(slab) else { throw .badField("slab_bytes") }
        _ = reader.take(UInt32.self)
        return .welcome(
            version: version, authRequired: auth == 1, slabBytes: slab,
            challenge: reader.takeBytes(Int(FM_WIRE_CHALLENGE_BYTES)))
    }

    private static func open(
        _ reader: inout FieldReader<some Collection<UInt8>>
    ) throws(ControlDecodeError) -> ControlMessage {
        let name = try reader.takeText(Int(FM_WIRE_NAME_MAX))
        guard isLeaseName(name) else { throw .badField("lease_name") }
        let size = reader.take(UInt64.self)
        let flags = reader.take(UInt32.self)
        guard flags & ~3 == 0 else { throw .badField("flags") }
        return .open(leaseName: name, size: size, flags: OpenFlags(rawValue: flags))
    }

    private static func opened(
        _ reader: inout FieldReader<some Collection<UInt8>>
    ) throws(ControlDecodeError) -> ControlMessage {
        let (id, epoch) = (reader.take(UInt64.self), reader.take(UInt64.self))
        let (size, slab) = (reader.take(UInt64.self), reader.take(UInt32.self))
        guard isSlabSize(slab) else { throw .badField("slab_bytes") }
        guard size > 0, size % UInt64(slab) == 0, size / UInt64(slab) <= UInt64(UInt32.max) else {
            throw .badField("size")
        }
        return .opened(leaseID: id, epoch: epoch, size: size, slabBytes: slab)
    }

    private static func openedRDMA(
        _ reader: inout FieldReader<some Collection<UInt8>>
    ) throws(ControlDecodeError) -> OpenedRDMA {
        let lease = OpenedRDMA(
            leaseID: reader.take(UInt64.self), epoch: reader.take(UInt64.self),
            size: reader.take(UInt64.self), base: reader.take(UInt64.self),
            slabBytes: reader.take(UInt32.self), queuesMax: reader.take(UInt16.self),
            readsMax: reader.take(UInt16.self), session: reader.take(UInt64.self),
            token: reader.takeBytes(Int(FM_RDMA_TOKEN_BYTES)),
            silenceMilliseconds: reader.take(UInt32.self))
        let slab = UInt64(lease.slabBytes)
        guard isSlabSize(lease.slabBytes) else { throw .badField("slab_bytes") }
        guard lease.size > 0, lease.size % slab == 0, lease.size / slab <= UInt64(UInt32.max) else {
            throw .badField("size")
        }
        guard !lease.base.addingReportingOverflow(lease.size).overflow else {
            throw .badField("base")
        }
        guard lease.queuesMax > 0 else { throw .badField("queues_max") }
        guard lease.readsMax > 0 else { throw .badField("reads_max") }
        guard lease.silenceMilliseconds > 0 else { throw .badField("silence_ms") }
        return lease
    }

    private static func grantedKeys(
        _ reader: inout FieldReader<some Collection<UInt8>>, length: Int
    ) throws(ControlDecodeError) -> ControlMessage {
        let range = try slabs(&reader, emptyAllowed: true)
        guard UInt64(length) == 8 + 4 * UInt64(range.count) else {
            throw .wrongLength(type: UInt16(FM_FRAME_GRANTED_KEYS.rawValue), length: length)
        }
        return .grantedKeys(
            first: range.first, keys: (0..<range.count).map { _ in reader.take(UInt32.self) })
    }

    private static func resume(
        _ reader: inout FieldReader<some Collection<UInt8>>
    ) throws(ControlDecodeError) -> ControlMessage {
        let name = try reader.takeText(Int(FM_WIRE_NAME_MAX))
        guard isLeaseName(name) else { throw .badField("lease_name") }
        return .resume(
            leaseName: name, session: reader.take(UInt64.self),
            token: reader.takeBytes(Int(FM_RDMA_TOKEN_BYTES)))
    }

    private static func slabs(
        _ reader: inout FieldReader<some Collection<UInt8>>, emptyAllowed: Bool
    ) throws(ControlDecodeError) -> SlabRange {
        let range = SlabRange(first: reader.take(UInt32.self), count: reader.take(UInt32.self))
        guard range.count > 0 || emptyAllowed else { throw .badField("count") }
        guard range.end <= UInt64(UInt32.max) else { throw .badField("slab range") }
        return range
    }

    /// 64 KiB to 1 GiB, a power of two.
    package static func isSlabSize(_ bytes: UInt32) -> Bool {
        (65_536...1_073_741_824).contains(bytes) && bytes & (bytes - 1) == 0
    }
}

/// Takes little-endian fields off the front. The caller has checked the total length, so a field
/// that is not there is a bug and traps.
struct FieldReader<Bytes: Collection<UInt8>> {
    private let bytes: Bytes
    private var index: Bytes.Index

    init(_ bytes: Bytes) {
        self.bytes = bytes
        index = bytes.startIndex
    }

    mutating func take<T: FixedWidthInteger & UnsignedInteger>(_: T.Type) -> T {
        var value: T = 0
        for shift in stride(from: 0, to: T.bitWidth, by: 8) {
            value |= T(truncatingIfNeeded: bytes[index]) << shift
            bytes.formIndex(after: &index)
        }
        return value
    }

    mutating func takeBytes(_ count: Int) -> [UInt8] {
        let end = bytes.index(index, offsetBy: count)
        defer { index = end }
        return Array(bytes[index..<end])
    }

    /// A text padded with zero bytes; nothing but zeros may follow its end.
    mutating func takeText(_ width: Int) throws(ControlDecodeError) -> String {
        let field = takeBytes(width)
        let text = field.prefix { $0 != 0 }
        guard field[text.count...].allSatisfy({ $0 == 0 }),
            let string = String(validating: text, as: UTF8.self)
        else { throw .badText }
        return string
    }
}
