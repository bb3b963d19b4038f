import FarMemory
import PoolProtocol
import TestSupport
import Testing

@Suite("Control messages")
struct ControlMessageTests {
    private static let lease = OpenedRDMA(
        leaseID: 7, epoch: .max, size: 1 << 31, base: 1 << 40, slabBytes: 1 << 20, queuesMax: 64,
        readsMax: 16, session: 5, token: Array(0..<16), silenceMilliseconds: 15_000)
    private static let all: [ControlMessage] = [
        .hello(versions: 1...3, features: 7, clientName: "farswap-12"),
        .welcome(
            version: 1, authRequired: true, slabBytes: 1 << 20,
            challenge: Array(repeating: 0xA5, count: 32)),
        .auth(keyName: "alice", mac: Array(0..<32)), .ok, .error(.noSpace, "the pool is full"),
        .open(leaseName: "far0", size: 1 << 31, flags: [.create]),
        .opened(leaseID: 7, epoch: .max, size: 1 << 31, slabBytes: 1 << 20),
        .grant(SlabRange(first: 3, count: 16)), .granted(SlabRange(first: 3, count: 0)),
        .returnSlabs(SlabRange(first: 9, count: 1)), .ping, .pong, .close, .release,
        .openedRDMA(lease), .grantedKeys(first: 3, keys: [7, .max]),
        .grantedKeys(first: 3, keys: []),
        .grantedKeys(first: 0, keys: Array(repeating: 9, count: 124)),
        .held(SlabRange(first: 0, count: 124)),
        .resume(leaseName: "far0", session: .max, token: Array(1...16)),
    ]

    private static func decode(_ frame: [UInt8]) throws(ControlDecodeError) -> ControlMessage {
        let header = try FrameHeader.decode(frame.prefix(FrameHeader.byteCount))
        return try ControlMessage.decode(
            type: header.type, payload: frame.dropFirst(FrameHeader.byteCount))
    }

    @Test(arguments: all)
    func decodesWhatItEncodes(message: ControlMessage) throws {
        let frame = message.encoded(cookie: 0xDEAD_BEEF)
        let header = try FrameHeader.decode(frame.prefix(FrameHeader.byteCount))
        #expect(header.cookie == 0xDEAD_BEEF)
        #expect(header.payloadLength == frame.count - FrameHeader.byteCount)
        #expect(try Self.decode(frame) == message)
    }

    @Test("The bytes of a frame are as documented")
    func layout() {
        let frame = ControlMessage.grant(SlabRange(first: 0x0102, count: 3)).encoded(cookie: 9)
        #expect(
            frame == [
                0x46, 0x4D, 0x45, 0x4D, 1, 0, 8, 0, 8, 0, 0, 0, 9, 0, 0, 0,  // head
                2, 1, 0, 0, 3, 0, 0, 0,
            ])
    }

    @Test(arguments: all)
    func refusesOtherLengths(message: ControlMessage) throws {
        let frame = message.encoded(cookie: 1)
        let payload = Array(frame.dropFirst(FrameHeader.byteCount))
        for wrong in [payload + [0], Array(payload.dropLast())] where wrong != payload {
            #expect(
                throws: ControlDecodeError.wrongLength(type: message.frameType, length: wrong.count)
            ) { try ControlMessage.decode(type: message.frameType, payload: wrong) }
        }
    }

    @Test func refusesBrokenHeads() {
        let good = ControlMessage.ping.encoded(cookie: 1)
        func broken(_ index: Int, _ value: UInt8) -> ControlDecodeError? {
            var bytes = good
            bytes[index] = value
            do throws(ControlDecodeError) {
                _ = try Self.decode(bytes)
                return nil
            } catch {
                return error
            }
        }
        #expect(broken(0, 0) == .badMagic)
        #expect(broken(4, 2) == .unsupportedVersion(2))
        #expect(broken(6, 99) == .unknownType(99))
        #expect(broken(9, 0xFF) == .payloadTooLong(0xFF00))
        #expect(throws: ControlDecodeError.wrongLength(type: 0, length: 3)) {
            try FrameHeader.decode([0x46, 0x4D, 0x45])
        }
    }

    @Test func refusesBadFields() throws {
        func payload(_ message: ControlMessage, _ index: Int, _ value: UInt8) -> [UInt8] {
            var bytes = Array(message.encoded(cookie: 0).dropFirst(FrameHeader.byteCount))
            bytes[index] = value
            return bytes
        }
        let open = ControlMessage.open(leaseName: "far0", size: 4096, flags: [])
        let cases: [(ControlMessage, Int, UInt8, ControlDecodeError)] = [
            (open, 1, 0x2F, .badField("lease_name")),  // a slash
            (open, 1, 0, .badText),  // bytes behind the end
            (open, 2, 0xFF, .badText),  // not UTF-8
            (open, 72, 8, .badField("flags")),
            (
                .hello(versions: 2...3, features: 0, clientName: ""), 2, 1,
                .badField("version range")
            ),
            (.grant(SlabRange(first: 0, count: 1)), 4, 0, .badField("count")),
            (.error(.busy, ""), 0, 99, .badField("error code")),
            (
                .opened(leaseID: 1, epoch: 1, size: 1 << 20, slabBytes: 1 << 20), 24, 1,
                .badField("slab_bytes")
            ),
            (.openedRDMA(Self.lease), 32, 1, .badField("slab_bytes")),
            (.openedRDMA(Self.lease), 16, 1, .badField("size")),
            (.openedRDMA(Self.lease), 36, 0, .badField("queues_max")),
            (.openedRDMA(Self.lease), 38, 0, .badField("reads_max")),
            (.held(SlabRange(first: 0, count: 1)), 4, 0, .badField("count")),
            (.grantedKeys(first: 0, keys: [1]), 4, 2, .wrongLength(type: 16, length: 12)),
            (
                .resume(leaseName: "far0", session: 1, token: Array(0..<16)), 0, 0x2F,
                .badField("lease_name")
            ),
        ]
        for (message, index, value, error) in cases {
            #expect(throws: error) {
                try ControlMessage.decode(
                    type: message.frameType, payload: payload(message, index, value))
            }
        }
        var around = Self.lease
        around.base = .max
        #expect(throws: ControlDecodeError.badField("base")) {
            try Self.decode(ControlMessage.openedRDMA(around).encoded(cookie: 0))
        }
        let wrap = ControlMessage.grant(SlabRange(first: .max, count: .max)).encoded(cookie: 0)
        #expect(throws: ControlDecodeError.badField("slab range")) { try Self.decode(wrap) }
    }

    @Test(
        "Random bytes give a message or a typed error, and what decodes encodes to the same bytes")
    func randomBytes() throws {
        let seed = TestSeed(filter: "ControlMessageTests")
        var random = seed.random
        for _ in 0..<20_000 {
            let base = Self.all[random.below(Self.all.count)]
            var frame = base.encoded(cookie: 5)
            for _ in 0...random.below(3) {
                frame[random.below(frame.count)] = UInt8(truncatingIfNeeded: random.next())
            }
            guard let message = try? Self.decode(frame) else { continue }
            let again = message.encoded(cookie: 5)
            // Reserved fields are not kept; the message is.
            #expect(try Self.decode(again) == message, "\(seed)")
        }
    }

    @Test func leaseNames() {
        for good in ["a", "far0", "A.b_c-9", String(repeating: "x", count: 64)] {
            #expect(isLeaseName(good))
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "ä", String(repeating: "x", count: 65)] {
            #expect(!isLeaseName(bad))
        }
    }

    @Test func keyFiles() throws {
        let hex = "00112233445566778899aabbccddeeFF"
        let keys = try SharedKey.parse("# keys\n\nalice:\(hex)\nbob:\(hex)00\r\n")
        #expect(keys.map(\.name) == ["alice", "bob"])
        #expect(keys[0].secret.last == 0xFF && keys[1].secret.count == 17)
        for (text, line) in [
            ("alice", 1), ("alice:zz", 1), ("alice:00", 1), ("\na b:\(hex)", 2),
            ("a:\(hex)\na:\(hex)", 2), ("a:\(hex)0", 1), (":\(hex)", 1),
        ] {
            let error = #expect(throws: KeyFileError.self) { try SharedKey.parse(text) }
            #expect(error?.line == line)
            #expect(error?.description.contains(hex) == false)
        }
    }
}
