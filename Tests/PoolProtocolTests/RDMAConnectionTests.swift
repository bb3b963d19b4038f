import PoolProtocol
import TestSupport
import Testing

@Suite("RDMA connections")
struct RDMAConnectionTests {
    private static let token: [UInt8] = Array(1...16)
    private static let request = RDMAConnectRequest(
        versions: 1...2, queue: 0x0304, session: 0x0102_0304_0506_0708, token: token)

    @Test("What is encoded lies as in CWireFormat.h, and decodes behind any padding")
    func layout() throws {
        let bytes = Self.request.encoded()
        #expect(
            bytes == [
                0x46, 0x4D, 0x52, 0x44, 1, 0, 2, 0, 4, 3, 0, 0, 0, 0, 0, 0,
                8, 7, 6, 5, 4, 3, 2, 1,
            ] + Self.token)
        #expect(try RDMAConnectRequest.decode(bytes + [0, 9, 9]) == Self.request)

        let accept = RDMAAccept(version: 1, queue: 2, credits: 3)
        #expect(
            accept.encoded() == [
                0x46, 0x4D, 0x52, 0x44, 1, 0, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0,
            ])
        #expect(try RDMAAccept.decode(accept.encoded() + [7]) == accept)

        let reject = RDMAReject(.limit, String(repeating: "ä", count: 99))
        let encoded = reject.encoded()
        #expect(encoded.count == 128 && encoded[..<8] == [0x46, 0x4D, 0x52, 0x44, 1, 0, 9, 0])
        #expect(RDMAReject.decode(encoded)?.text == String(repeating: "ä", count: 60))
        #expect(RDMAReject.decode(encoded)?.code == .limit)
    }

    @Test func refusesWhatIsNoRequest() {
        func decode(_ index: Int, _ value: UInt8) -> ControlDecodeError? {
            var bytes = Self.request.encoded()
            bytes[index] = value
            do throws(ControlDecodeError) {
                _ = try RDMAConnectRequest.decode(bytes)
                return nil
            } catch {
                return error
            }
        }
        #expect(decode(0, 0) == .badMagic)
        #expect(decode(4, 9) == .badField("version range"))
        #expect(throws: ControlDecodeError.wrongLength(type: 0, length: 39)) {
            try RDMAConnectRequest.decode(Self.request.encoded().dropLast())
        }
        #expect(throws: ControlDecodeError.badField("credits")) {
            try RDMAAccept.decode(RDMAAccept(version: 1, queue: 0, credits: 0).encoded())
        }
        #expect(throws: ControlDecodeError.unsupportedVersion(0)) {
            try RDMAAccept.decode(RDMAAccept(version: 0, queue: 1, credits: 1).encoded())
        }
        #expect(RDMAReject.decode([UInt8](repeating: 0, count: 148)) == nil)
        #expect(RDMAReject.decode([]) == nil)
    }

    @Test("Answers to other transports are worth nothing")
    func signedTexts() {
        let challenge = [UInt8](repeating: 1, count: 32)
        func text(_ transport: ControlTransport) -> [UInt8] {
            ControlMessage.authenticatedBytes(
                challenge: challenge, keyName: "k", over: transport)
        }
        #expect(text(.shm) == challenge + Array("kfarmem-shm".utf8))
        #expect(text(.rdma) == challenge + Array("kfarmem-rdma".utf8))
    }
}
