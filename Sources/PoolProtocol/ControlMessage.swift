// PoolProtocol: what is said between memserver and its clients, as bytes. Pure: no sockets, no clock.
//
// This part: the control protocol of shared-memory and RDMA leases, both directions. Control messages are rare
// (slabs are granted many at a time), so they are plain values; pages never pass through here.
// Thread model: values only. Invariant: whatever bytes come in, decoding gives a message within the
// protocol's bounds or a typed error, and reads nothing outside of the frame.

import CWireFormat

/// A run of slabs in a lease.
package struct SlabRange: Equatable, Sendable {
    package var first: UInt32
    package var count: UInt32

    package init(first: UInt32, count: UInt32) {
        self.first = first
        self.count = count
    }

    /// One past the last slab; does not overflow.
    package var end: UInt64 { UInt64(first) + UInt64(count) }
}

/// Why the server refused a request.
package enum ControlErrorCode: UInt32, Equatable, Sendable, CaseIterable {
    case version = 1
    case unauthorized, noLease, busy, noSpace, badRequest, exists, notEmpty, limit, `internal`
}

/// How a lease is opened.
package struct OpenFlags: OptionSet, Equatable, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    /// Make the lease when there is none of that name.
    package static let create = OpenFlags(rawValue: FM_OPEN_CREATE.rawValue)
    /// Fail when it exists already.
    package static let exclusive = OpenFlags(rawValue: FM_OPEN_EXCLUSIVE.rawValue)
}

/// What carries the control protocol.
package enum ControlTransport: String, Sendable {
    case shm, rdma
}

/// A lease as it is opened over RDMA.
package struct OpenedRDMA: Equatable, Sendable {
    package var leaseID: UInt64
    package var epoch: UInt64
    /// Bytes, whole slabs.
    package var size: UInt64
    /// The remote address of the lease's first byte.
    package var base: UInt64
    package var slabBytes: UInt32
    package var queuesMax: UInt16
    /// READs that one queue may have under way.
    package var readsMax: UInt16
    package var session: UInt64
    /// 16 bytes.
    package var token: [UInt8]
    package var silenceMilliseconds: UInt32

    package init(
        leaseID: UInt64, epoch: UInt64, size: UInt64, base: UInt64, slabBytes: UInt32,
        queuesMax: UInt16, readsMax: UInt16, session: UInt64, token: [UInt8],
        silenceMilliseconds: UInt32
    ) {
        self.leaseID = leaseID
        self.epoch = epoch
        self.size = size
        self.base = base
        self.slabBytes = slabBytes
        self.queuesMax = queuesMax
        self.readsMax = readsMax
        self.session = session
        self.token = token
        self.silenceMilliseconds = silenceMilliseconds
    }
}

/// One message of the control protocol.
package enum ControlMessage: Equatable, Sendable {
    /// Client: the versions it speaks and its name for the server's log.
    case hello(versions: ClosedRange<UInt16>, features: UInt32, clientName: String)
    /// Server: the version chosen, and 32 random bytes to answer.
    case welcome(version: UInt16, authRequired: Bool, slabBytes: UInt32, challenge: [UInt8])
    /// Client: HMAC-SHA256 of `authenticatedBytes` under the named key.
    case auth(keyName: String, mac: [UInt8])
    case ok
    case error(ControlErrorCode, String)
    case open(leaseName: String, size: UInt64, flags: OpenFlags)
    /// Server: descriptors of the data, the page bitmap and the grants (read-only) come along.
    case opened(leaseID: UInt64, epoch: UInt64, size: UInt64, slabBytes: UInt32)
    case grant(SlabRange)
    /// Server: the part from the first slab on that is granted now; the rest found no space.
    case granted(SlabRange)
    case returnSlabs(SlabRange)
    case ping
    case pong
    /// Client: ends the session; the lease's grace period starts.
    case close
    /// Client: gives the lease back with all it holds.
    case release
    /// Server, over RDMA: the lease, and what its data queues need.
    case openedRDMA(OpenedRDMA)
    /// Server, over RDMA: the part of a run from its first slab on that is granted now, and its keys.
    case grantedKeys(first: UInt32, keys: [UInt32])
    /// Client, over RDMA: which slabs does the lease hold?
    case held(SlabRange)
    /// Client, over RDMA: ends that session if it still is, then opens the lease.
    case resume(leaseName: String, session: UInt64, token: [UInt8])

    /// What a client signs: the challenge, its key's name, and the protocol's own name, so that an
    /// answer cannot be used anywhere else.
    package static func authenticatedBytes(
        challenge: [UInt8], keyName: String, over transport: ControlTransport
    ) -> [UInt8] {
        challenge + Array(keyName.utf8) + Array("farmem-\(transport.rawValue)".utf8)
    }
}

/// What is wrong with bytes that came in. Each of them ends the connection.
package enum ControlDecodeError: Error, Equatable, Sendable {
    case badMagic
    case unsupportedVersion(UInt16)
    case payloadTooLong(UInt32)
    case unknownType(UInt16)
    /// The payload has another length than its type has.
    case wrongLength(type: UInt16, length: Int)
    /// A name or text is not terminated UTF-8, or has bytes after its end.
    case badText
    /// A field has a value that the protocol does not allow.
    case badField(String)
}

/// Head of a frame.
package struct FrameHeader: Equatable, Sendable {
    package static let byteCount = 16

    package var type: UInt16
    package var payloadLength: Int
    package var cookie: UInt32

    package init(type: UInt16, payloadLength: Int, cookie: UInt32) {
        self.type = type
        self.payloadLength = payloadLength
        self.cookie = cookie
    }
}

/// Whether a lease may have this name: 1 to 64 of `[A-Za-z0-9._-]`, not starting with a dot.
package func isLeaseName(_ name: String) -> Bool {
    let bytes = name.utf8
    guard (1...Int(FM_WIRE_NAME_MAX)).contains(bytes.count), bytes.first != UInt8(ascii: ".") else {
        return false
    }
    return bytes.allSatisfy {
        switch $0 {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
        default: false
        }
    }
}
