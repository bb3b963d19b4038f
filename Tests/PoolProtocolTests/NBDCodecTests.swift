import FarMemory
import PoolProtocol
import TestSupport
import Testing

@Suite struct NBDTransmissionTests {
    @Test func requestsComeBackAsTheyWere() throws {
        let seed = TestSeed(filter: "NBDTransmissionTests")
        var random = seed.random
        for _ in 0..<1000 {
            let request = NBDRequest(
                command: NBDCommand(rawValue: UInt16(random.below(9))),
                flags: NBDCommandFlags(rawValue: UInt16(random.below(32))),
                cookie: random.next(), offset: random.next(),
                length: UInt32(truncatingIfNeeded: random.next()))
            var bytes = [UInt8](repeating: 0xff, count: NBDWire.requestBytes)
            unsafe bytes.withUnsafeMutableBytes { unsafe request.encode(to: $0.baseAddress!) }
            let back = unsafe bytes.withUnsafeBytes { unsafe NBDRequest(at: $0.baseAddress!) }
            #expect(back == request, "\(seed)")
        }
    }

    @Test func requestIsLaidOutAsTheProtocolSays() {
        let request = NBDRequest(
            command: .write, flags: .fua, cookie: 0x0102_0304_0506_0708,
            offset: 0x1112_1314_1516_1718, length: 0x2122_2324)
        var bytes = [UInt8](repeating: 0, count: 28)
        unsafe bytes.withUnsafeMutableBytes { unsafe request.encode(to: $0.baseAddress!) }
        #expect(
            bytes == [
                0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8,
                0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24,
            ])
        #expect(request.payloadBytes == 0x2122_2324)
    }

    @Test func wrongMagicIsNoRequestAndNoReply() {
        let bytes = [UInt8](repeating: 0x25, count: 28)
        unsafe bytes.withUnsafeBytes {
            unsafe #expect(NBDRequest(at: $0.baseAddress!) == nil)
            unsafe #expect(NBDReply(at: $0.baseAddress!) == nil)
            unsafe #expect(NBDReply.headerBytes(at: $0.baseAddress!) == nil)
        }
    }

    @Test(arguments: [
        NBDReply.simple(cookie: 7, error: .none),
        .simple(cookie: .max, error: .noSpace),
        .chunk(cookie: 9, type: .offsetData, isLast: false, length: 4104),
        .chunk(cookie: 9, type: .errorOffset, isLast: true, length: 14),
    ]) func repliesComeBack(reply: NBDReply) {
        var bytes = [UInt8](repeating: 0xff, count: 20)
        unsafe bytes.withUnsafeMutableBytes {
            let count = unsafe reply.encode(to: $0.baseAddress!)
            unsafe #expect(NBDReply.headerBytes(at: UnsafeRawPointer($0.baseAddress!)) == count)
            unsafe #expect(NBDReply(at: UnsafeRawPointer($0.baseAddress!)) == reply)
        }
    }
}

@Suite struct NBDNegotiationTests {
    @Test func greeting() throws {
        let greeting = NBDGreeting(flags: [.fixedNewstyle, .noZeroes])
        #expect(greeting.encoded == Array("NBDMAGICIHAVEOPT".utf8) + [0, 3])
        #expect(try NBDGreeting(greeting.encoded) == greeting)
        #expect(throws: NBDProtocolError.badLength(2)) {
            try NBDGreeting(Array("NBDMAGICIHAVEOPT".utf8))
        }
        // The oldstyle handshake has another second word.
        #expect(throws: NBDProtocolError.badMagic(0x0042_0281_861253)) {
            try NBDGreeting(
                Array("NBDMAGIC".utf8) + [0, 0, 0x42, 0x02, 0x81, 0x86, 0x12, 0x53, 0, 0])
        }
    }

    @Test func options() throws {
        let request = NBDExportRequest(name: "swap-1", wanted: [.blockSize, .name])
        #expect(try NBDExportRequest(request.encoded) == request)
        let frame = NBDOptionHeader.encode(.go, request.encoded)
        let header = try NBDOptionHeader(Array(frame[..<16]))
        #expect(header.option == .go && Int(header.length) == request.encoded.count)
        let contexts = NBDContextRequest(name: "x", queries: ["base:", "base:allocation"])
        #expect(try NBDContextRequest(contexts.encoded) == contexts)
        let reply = NBDOptionReplyHeader.encode(.go, .acknowledge)
        #expect(try NBDOptionReplyHeader(reply).reply == .acknowledge)
        for fact in [
            NBDExportFact.export(size: 1 << 40, flags: [.hasFlags, .sendTrim]),
            .blockSize(minimum: 1, preferred: 4096, maximum: 1 << 25),
            .text(.description, "far memory"), .epoch(.max),
        ] {
            #expect(try NBDExportFact(fact.encoded) == fact)
        }
        let context = NBDContextReply(id: 1, name: NBDWire.allocationContext)
        #expect(try NBDContextReply(context.encoded) == context)
    }

    /// Lengths and counts inside options that promise more than is there, or less.
    @Test func malformedOptionsAreRefused() {
        #expect(throws: NBDProtocolError.badLength(9)) {
            try NBDExportRequest([0, 0, 0, 9, 65, 0, 0])
        }
        #expect(throws: NBDProtocolError.badLength(0xffff_ffff)) {
            try NBDExportRequest([0xff, 0xff, 0xff, 0xff])
        }
        #expect(throws: NBDProtocolError.badLength(2)) {
            try NBDExportRequest([0, 0, 0, 0, 0xff, 0xff])
        }
        #expect(throws: NBDProtocolError.badLength(1)) {
            try NBDExportRequest([0, 0, 0, 0, 0, 0, 0])
        }
        #expect(throws: NBDProtocolError.badText) {
            try NBDExportRequest([0, 0, 0, 1, 0xff, 0, 0])
        }
        #expect(throws: NBDProtocolError.badLength(0xffff_ffff)) {
            try NBDContextRequest([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])
        }
        #expect(throws: NBDProtocolError.badMagic(0)) {
            try NBDOptionHeader([UInt8](repeating: 0, count: 16))
        }
        var reply = NBDOptionReplyHeader.encode(.go, .info)
        reply[16] = 0xff
        #expect(throws: NBDProtocolError.badLength(0xff00_0000)) { try NBDOptionReplyHeader(reply) }
    }

    /// Whatever arrives, the decoders throw or return; and what they return encodes to the same bytes.
    @Test func noInputBreaksTheDecoders() {
        let seed = TestSeed(filter: "NBDNegotiationTests")
        var random = seed.random
        let valid = NBDContextRequest(name: "abc", queries: ["base:allocation", "x:y"]).encoded
        for _ in 0..<20_000 {
            var bytes = random.chance(1, in: 2) ? valid : random.bytes(random.below(40))
            if !bytes.isEmpty { bytes[random.below(bytes.count)] = UInt8(random.below(256)) }
            if random.chance(1, in: 4) { bytes.removeLast(min(bytes.count, random.below(8))) }
            if let context = try? NBDContextRequest(bytes) {
                #expect(context.encoded == bytes, "\(seed)")
            }
            if let export = try? NBDExportRequest(bytes) {
                #expect(export.encoded == bytes, "\(seed)")
            }
            _ = try? NBDExportFact(bytes)
            _ = try? NBDContextReply(bytes)
            _ = try? NBDOptionReplyHeader(bytes)
        }
    }

    @Test func clientFlags() throws {
        #expect(try decodeNBDClientFlags([0, 0, 0, 3]) == [.fixedNewstyle, .noZeroes])
        #expect(try decodeNBDClientFlags([0, 0, 0, 4]) == nil)
        #expect(encodeNBDClientFlags([.noZeroes]) == [0, 0, 0, 2])
    }
}

@Suite struct NBDURITests {
    @Test func formsOfTheStandard() throws {
        #expect(
            try NBDURI("nbd://example.com")
                == NBDURI(
                    endpoint: .tcp(host: "example.com", port: 10809), export: ""))
        #expect(
            try NBDURI("nbd://[::1]:10810/a%20b/c")
                == NBDURI(
                    endpoint: .tcp(host: "::1", port: 10810), export: "a b/c"))
        #expect(
            try NBDURI("nbd+unix:///swap?socket=/run/x.sock")
                == NBDURI(
                    endpoint: .unix(path: "/run/x.sock"), export: "swap"))
        #expect(
            try NBDURI("nbds://alice@h/e?tls-psk-file=/k")
                == NBDURI(
                    endpoint: .tcp(host: "h", port: 10809), export: "e", usesTLS: true,
                    user: "alice",
                    pskFile: "/k"))
        #expect(
            try NBDURI("nbds+unix:///?socket=/s&tls-certificates=/c")
                == NBDURI(
                    endpoint: .unix(path: "/s"), export: "", usesTLS: true, certificates: "/c"))
    }

    @Test(arguments: [
        "", "nbd", "nbd:", "http://h/x", "nbd://", "nbd:///x", "nbd://h:99999/", "nbd://h:x/",
        "nbd+unix:///x", "nbd+unix://h/x?socket=/s", "nbd+unix:///x?socket=", "nbd://h/x?socket=/s",
        "nbd://h/%zz", "nbd://h/%4", "nbd://h/%00", "nbd://h/%ff", "nbd://[::1/x", "nbd://[::1]x/",
        "nbd://h/x?sokcet=/s", "nbd://h/x#y",
    ]) func malformed(text: String) {
        #expect(throws: NBDURIError.self) { try NBDURI(text) }
    }

    @Test func textComesBack() throws {
        for text in [
            "nbd://h:10809/x", "nbd://[::1]:1/", "nbd+unix:///x?socket=/run/a%20b",
            "nbds://u@h:5/x?tls-certificates=/c&tls-psk-file=/p", "nbds://a%2Fb@h:5/x/y",
        ] {
            #expect(try NBDURI(text).description == text)
        }
    }

    @Test func listeners() throws {
        #expect(try parseNBDListener("tcp://127.0.0.1:0") == .tcp(host: "127.0.0.1", port: 0))
        #expect(try parseNBDListener("tcp://[::1]:9") == .tcp(host: "::1", port: 9))
        #expect(try parseNBDListener("tcp://h") == .tcp(host: "h", port: 10809))
        #expect(try parseNBDListener("unix:/run/x") == .unix(path: "/run/x"))
        for text in ["unix:x", "unix:", "tcp:1", "tcp://", "tcp://h:1/x", "nbd://h", "x"] {
            #expect(throws: NBDURIError.self) { try parseNBDListener(text) }
        }
    }
}
