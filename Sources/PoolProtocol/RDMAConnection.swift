// What two ends of an RDMA connection tell each other while it is made: the connection manager's private data.

import CWireFormat

/// What comes with a connection request.
package struct RDMAConnectRequest: Equatable, Sendable {
    package static let byteCount = MemoryLayout<fm_rdma_connect>.size

    package var versions: ClosedRange<UInt16>
    /// 0: control; from 1 on: data.
    package var queue: UInt16
    /// Of a data queue: what OPENED_RDMA gave. 0 and zeros for the control queue.
    package var session: UInt64
    package var token: [UInt8]

    package init(
        versions: ClosedRange<UInt16>, queue: UInt16, session: UInt64 = 0,
        token: [UInt8] = [UInt8](repeating: 0, count: Int(FM_RDMA_TOKEN_BYTES))
    ) {
        precondition(token.count == Int(FM_RDMA_TOKEN_BYTES), "a token is 16 bytes")
        self.versions = versions
        self.queue = queue
        self.session = session
        self.token = token
    }

    package func encoded() -> [UInt8] {
        var writer = FrameWriter(empty: ())
        writer.put(UInt32(FM_RDMA_MAGIC))
        writer.put(versions.lowerBound)
        writer.put(versions.upperBound)
        writer.put(queue)
        writer.put(UInt16(0))
        writer.put(UInt32(0))
        writer.put(session)
        writer.bytes += token
        return writer.bytes
    }

    /// Reads private data, which devices pad to a length of their own.
    package static func decode(
        _ bytes: some Collection<UInt8>
    ) throws(ControlDecodeError) -> RDMAConnectRequest {
        guard bytes.count >= byteCount else { throw .wrongLength(type: 0, length: bytes.count) }
        var reader = FieldReader(bytes)
        guard reader.take(UInt32.self) == UInt32(FM_RDMA_MAGIC) else { throw .badMagic }
        let (low, high) = (reader.take(UInt16.self), reader.take(UInt16.self))
        guard low <= high else { throw .badField("version range") }
        let queue = reader.take(UInt16.self)
        _ = reader.take(UInt16.self)
        _ = reader.take(UInt32.self)
        return RDMAConnectRequest(
            versions: low...high, queue: queue, session: reader.take(UInt64.self),
            token: reader.takeBytes(Int(FM_RDMA_TOKEN_BYTES)))
    }
}

/// What comes with an accepted connection.
package struct RDMAAccept: Equatable, Sendable {
    package static let byteCount = MemoryLayout<fm_rdma_accept>.size

    package var version: UInt16
    package var queue: UInt16
    /// Control: requests that may wait for their reply. Data: 0.
    package var credits: UInt16

    package init(version: UInt16, queue: UInt16, credits: UInt16) {
        self.version = version
        self.queue = queue
        self.credits = credits
    }

    package func encoded() -> [UInt8] {
        var writer = FrameWriter(empty: ())
        writer.put(UInt32(FM_RDMA_MAGIC))
        writer.put(version)
        writer.put(queue)
        writer.put(credits)
        writer.put(UInt16(0))
        writer.put(UInt32(0))
        return writer.bytes
    }

    package static func decode(
        _ bytes: some Collection<UInt8>
    ) throws(ControlDecodeError) -> RDMAAccept {
        guard bytes.count >= byteCount else { throw .wrongLength(type: 0, length: bytes.count) }
        var reader = FieldReader(bytes)
        guard reader.take(UInt32.self) == UInt32(FM_RDMA_MAGIC) else { throw .badMagic }
        let version = reader.take(UInt16.self)
        guard version > 0 else { throw .unsupportedVersion(version) }
        let accept = RDMAAccept(
            version: version, queue: reader.take(UInt16.self), credits: reader.take(UInt16.self))
        guard accept.queue > 0 || accept.credits > 0 else { throw .badField("credits") }
        return accept
    }
}

/// What comes with a refused connection.
package struct RDMAReject: Equatable, Sendable {
    package static let byteCount = MemoryLayout<fm_rdma_reject>.size

    package var code: ControlErrorCode
    package var text: String

    package init(_ code: ControlErrorCode, _ text: String) {
        self.code = code
        self.text = text
    }

    package func encoded() -> [UInt8] {
        var writer = FrameWriter(empty: ())
        writer.put(UInt32(FM_RDMA_MAGIC))
        writer.put(UInt16(FM_WIRE_VERSION))
        writer.put(UInt16(code.rawValue))
        writer.put(cut(text, Int(FM_RDMA_TEXT_MAX)), width: Int(FM_RDMA_TEXT_MAX))
        return writer.bytes
    }

    /// nil: refused by something else than a memserver, such as a kernel where nobody listens.
    package static func decode(_ bytes: some Collection<UInt8>) -> RDMAReject? {
        guard bytes.count >= byteCount else { return nil }
        var reader = FieldReader(bytes)
        guard reader.take(UInt32.self) == UInt32(FM_RDMA_MAGIC) else { return nil }
        _ = reader.take(UInt16.self)
        guard let code = ControlErrorCode(rawValue: UInt32(reader.take(UInt16.self))) else {
            return nil
        }
        do throws(ControlDecodeError) {
            return RDMAReject(code, try reader.takeText(Int(FM_RDMA_TEXT_MAX)))
        } catch {
            return nil
        }
    }
}
