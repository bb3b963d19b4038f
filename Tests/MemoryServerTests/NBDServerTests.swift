import FarMemory
import Glibc
import LinuxSystem
import MemoryServer
import PoolProtocol
import Telemetry
import TestSupport
import Testing

/// A server on a unix socket and what it serves.
final class ServedScratch {
    let exports: ScratchExports
    let directory: TemporaryDirectory
    let server: NBDServer
    private let thread: WorkerThread
    var path: String { directory.file("s") }

    init(
        mebibytes: Int = 16, capacity: Int? = nil, security: NBDSecurity = NBDSecurity(),
        _ change: (inout NBDLimits) -> Void = { _ in }
    ) throws {
        exports = try ScratchExports(mebibytes: mebibytes, capacity: capacity)
        directory = try TemporaryDirectory()
        var limits = NBDLimits()
        change(&limits)
        let server = try NBDServer(
            .unix(path: directory.file("s")), exports: exports, security: security, limits: limits,
            counters: NBDCounters(MetricRegistry()), log: Logger(level: .error))
        self.server = server
        thread = try WorkerThread("accept") { server.run() }
    }

    deinit {
        _ = server.stop(timeout: 5_000_000_000)
        thread.join()
    }
}

/// A bare client: bytes out, bytes in, so that tests can misbehave.
final class BareClient {
    let socket: FileDescriptor
    var structured = false

    init(_ path: String) throws {
        socket = try connectUnix(path)
        try socket.setSocketTimeouts(receive: 10_000_000_000, send: 10_000_000_000)
        #expect(
            try receive(NBDGreeting.bytes)
                == NBDGreeting(flags: [.fixedNewstyle, .noZeroes]).encoded)
        try send(encodeNBDClientFlags([.fixedNewstyle, .noZeroes]))
    }

    func send(_ bytes: [UInt8]) throws {
        unsafe try bytes.withUnsafeBytes { unsafe try socket.writeAll($0) }
    }

    /// Receives exactly so many bytes; fewer when the server closed.
    func receive(_ count: Int) throws -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            var piece = [UInt8](repeating: 0, count: count - bytes.count)
            let got = unsafe try piece.withUnsafeMutableBytes { unsafe try socket.read(into: $0) }
            if got == 0 { break }
            bytes += piece[..<got]
        }
        return bytes
    }

    /// Whether the server has closed (or closes within the socket's timeout).
    func isClosed() -> Bool {
        do { return try receive(1).isEmpty } catch {
            return (error as? SystemError)?.code != EAGAIN
        }
    }

    func option(_ option: NBDOption, _ data: [UInt8] = []) throws -> [(NBDOptionReply, [UInt8])] {
        try send(NBDOptionHeader.encode(option, data))
        var replies: [(NBDOptionReply, [UInt8])] = []
        while true {
            let header = try NBDOptionReplyHeader(receive(NBDWire.optionReplyBytes))
            #expect(header.option == option)
            replies.append((header.reply, try receive(Int(header.length))))
            if header.reply == .acknowledge || header.reply.isError { return replies }
        }
    }

    func go(structured: Bool = false, contexts: Bool = false) throws {
        self.structured = structured
        if structured { _ = try option(.structuredReply) }
        if contexts {
            let request = NBDContextRequest(name: "x", queries: [NBDWire.allocationContext])
            _ = try option(.setMetaContext, request.encoded)
        }
        let last = try option(.go, NBDExportRequest(name: "x").encoded).last
        #expect(last?.0 == .acknowledge)
    }

    func request(
        _ command: NBDCommand, _ offset: UInt64, _ length: Int, flags: NBDCommandFlags = [],
        cookie: UInt64 = 1, payload: [UInt8] = []
    ) throws {
        let request = NBDRequest(
            command: command, flags: flags, cookie: cookie, offset: offset, length: UInt32(length))
        var bytes = [UInt8](repeating: 0, count: NBDWire.requestBytes)
        unsafe bytes.withUnsafeMutableBytes { unsafe request.encode(to: $0.baseAddress!) }
        try send(bytes + payload)
    }

    func reply() throws -> NBDReply? {
        var bytes = try receive(4)
        guard bytes.count == 4 else { return nil }
        let length = unsafe bytes.withUnsafeBytes {
            unsafe NBDReply.headerBytes(at: $0.baseAddress!)
        }
        bytes += try receive(try #require(length) - 4)
        return unsafe bytes.withUnsafeBytes { unsafe NBDReply(at: $0.baseAddress!) }
    }

    func errorOf(
        _ command: NBDCommand, _ offset: UInt64, _ length: Int, flags: NBDCommandFlags = []
    )
        throws -> NBDErrorNumber?
    {
        let payload = [UInt8](repeating: 7, count: command == .write ? length : 0)
        try request(command, offset, length, flags: flags, payload: payload)
        guard case .simple(_, let error) = try reply() else { return nil }
        return error
    }

    func read(_ offset: UInt64, _ length: Int) throws -> [UInt8] {
        try request(.read, offset, length)
        #expect(try reply() == .simple(cookie: 1, error: .none))
        return try receive(length)
    }
}

@Suite struct NBDServerTests {
    @Test func storesOfAnyAlignmentComeBackAndTheRestIsZero() throws {
        let served = try ServedScratch()
        let client = try BareClient(served.path)
        try client.go()
        let seed = TestSeed(filter: "NBDServerTests")
        var random = seed.random
        var model = [UInt8](repeating: 0, count: 16 << 20)
        for _ in 0..<400 {
            let length = 1 + random.below(random.chance(1, in: 8) ? 400_000 : 9000)
            let offset = random.below(model.count - length)
            switch random.below(5) {
            case 0:
                #expect(
                    try client.read(UInt64(offset), length)
                        == Array(model[offset..<offset + length]), "\(seed)")
            case 1:
                #expect(try client.errorOf(.writeZeroes, UInt64(offset), length) == .some(.none))
                for index in offset..<offset + length { model[index] = 0 }
            case 2:
                #expect(
                    try client.errorOf(.writeZeroes, UInt64(offset), length, flags: .noHole)
                        == .some(.none))
                for index in offset..<offset + length { model[index] = 0 }
            default:
                let bytes = random.bytes(length)
                try client.request(.write, UInt64(offset), length, payload: bytes)
                #expect(try client.reply() == .simple(cookie: 1, error: .none))
                model.replaceSubrange(offset..<offset + length, with: bytes)
            }
        }
        #expect(try client.read(0, model.count) == model, "\(seed)")
    }

    @Test func trimGivesMemoryBackAndReadsAsZeros() throws {
        let served = try ServedScratch()
        let client = try BareClient(served.path)
        try client.go()
        #expect(try client.errorOf(.write, 0, 3 << 20) == .some(.none))
        #expect(served.exports.backing.grantedSlabs == 3)
        // All but one page of the second slab.
        #expect(try client.errorOf(.trim, 0, (2 << 20) - 4096) == .some(.none))
        #expect(served.exports.backing.grantedSlabs == 2)
        #expect(try client.read(0, 4096) == [UInt8](repeating: 0, count: 4096))
        #expect(try client.read((2 << 20) - 1, 2) == [7, 7])
        #expect(try client.errorOf(.trim, 0, 16 << 20) == .some(.none))
        #expect(served.exports.backing.grantedSlabs == 0)
    }

    @Test func aFullPoolRefusesWritesAndGoesOn() throws {
        let served = try ServedScratch(mebibytes: 16, capacity: 2)
        let client = try BareClient(served.path)
        try client.go()
        #expect(try client.errorOf(.write, 0, 2 << 20) == .some(.none))
        #expect(try client.errorOf(.write, 4 << 20, 4096) == .noSpace)
        #expect(try client.errorOf(.write, 4 << 20, 1 << 20) == .noSpace)
        #expect(try client.errorOf(.write, 4096, 4096) == .some(.none))
        #expect(try client.errorOf(.trim, 0, 1 << 20) == .some(.none))
        #expect(try client.errorOf(.write, 4 << 20, 4096) == .some(.none))
    }

    @Test func rangesAndFlagsThatCannotBeServedAreAnswered() throws {
        let served = try ServedScratch()
        let client = try BareClient(served.path)
        try client.go()
        let size = UInt64(16 << 20)
        #expect(try client.errorOf(.read, size - 1, 2) == .invalid)
        #expect(try client.errorOf(.read, .max, 2) == .invalid)
        #expect(try client.errorOf(.read, 0, 0) == .invalid)
        #expect(try client.errorOf(.read, 0, 17 << 20) == .invalid)
        #expect(try client.errorOf(.write, size, 512) == .noSpace)
        #expect(try client.errorOf(.write, .max - 10, 100_000) == .noSpace)
        #expect(try client.errorOf(.trim, size, 1) == .invalid)
        #expect(try client.errorOf(.writeZeroes, 1, Int(size)) == .noSpace)
        #expect(
            try client.errorOf(.writeZeroes, 0, 4096, flags: [.noHole, .fastZero]) == .notSupported)
        #expect(try client.errorOf(.read, 0, 1, flags: .dontFragment) == .invalid)
        #expect(try client.errorOf(.write, 0, 1, flags: .requireOne) == .invalid)
        #expect(try client.errorOf(.blockStatus, 0, 4096) == .invalid)
        #expect(try client.errorOf(NBDCommand(rawValue: 99), 0, 1) == .invalid)
        #expect(try client.errorOf(.flush, 0, 0) == .some(.none))
        #expect(try client.errorOf(.cache, 0, 4096) == .some(.none))
        #expect(try client.errorOf(.write, 0, 4096, flags: .fua) == .some(.none))
    }

    /// A read of megabytes does not hold up a small one behind it.
    @Test func smallRequestsOvertakeLongReads() throws {
        let served = try ServedScratch()
        let client = try BareClient(served.path)
        try client.go(structured: true)
        try client.request(.write, 0, 4 << 20, payload: [UInt8](repeating: 9, count: 4 << 20))
        #expect(try client.reply() == .simple(cookie: 1, error: .none))
        try client.request(.read, 0, 4 << 20, cookie: 10)
        try client.request(.read, 4096, 4096, cookie: 11)
        var finished: [UInt64] = []
        var bytes = 0
        while finished.count < 2 {
            guard case .chunk(let cookie, .offsetData, let isLast, let length) = try client.reply()
            else {
                Issue.record("not a data chunk")
                return
            }
            let data = try client.receive(Int(length))
            #expect(data[8...].allSatisfy { $0 == 9 })
            if cookie == 10 { bytes += data.count - 8 }
            if isLast { finished.append(cookie) }
        }
        #expect(finished == [11, 10] && bytes == 4 << 20)
    }

    /// A client may ask for much, say goodbye, and only then read its answers.
    @Test(arguments: [true, false])
    func whatWasAskedBeforeTheEndIsAnswered(byDisconnect: Bool) throws {
        let served = try ServedScratch()
        let client = try BareClient(served.path)
        try client.go(structured: true)
        let bytes = [UInt8](repeating: 7, count: 1 << 20)
        try client.request(.write, 0, bytes.count, payload: bytes)
        #expect(try client.reply() == .simple(cookie: 1, error: .none))
        // In one piece, so that the server finds the end behind the requests.
        let disconnect = [0x25, 0x60, 0x95, 0x13, 0, 0, 0, 2] + [UInt8](repeating: 0, count: 20)
        try client.request(
            .read, 0, bytes.count, cookie: 5, payload: byDisconnect ? disconnect : [])
        if !byDisconnect { shutdown(client.socket.rawValue, Int32(SHUT_WR)) }
        var received = 0
        while received < bytes.count {
            guard case .chunk(5, .offsetData, let isLast, let length) = try client.reply() else {
                Issue.record("the end after \(received) bytes")
                return
            }
            let data = try client.receive(Int(length)).dropFirst(8)
            #expect(data.allSatisfy { $0 == 7 })
            received += data.count
            #expect(isLast == (received == bytes.count))
        }
        #expect(client.isClosed())
    }

    @Test func blockStatusTellsHolesFromData() throws {
        let served = try ServedScratch()
        let client = try BareClient(served.path)
        try client.go(structured: true, contexts: true)
        try client.request(.write, 8192, 4096, payload: [UInt8](repeating: 1, count: 4096))
        _ = try client.reply()
        try client.request(.blockStatus, 0, 1 << 20)
        #expect(
            try client.reply() == .chunk(cookie: 1, type: .blockStatus, isLast: true, length: 28))
        #expect(
            try client.receive(28) == [0, 0, 0, 1]
                + [
                    0, 0, 0x20, 0, 0, 0, 0, 3, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0x0f, 0xd0, 0, 0, 0, 0,
                    3,
                ])
        try client.request(.blockStatus, 0, 1 << 20, flags: .requireOne)
        #expect(
            try client.reply() == .chunk(cookie: 1, type: .blockStatus, isLast: true, length: 12))
    }

    /// Each of these ends its own connection and leaves the server and the others as they were.
    @Test func brokenTrafficEndsOnlyItsConnection() throws {
        let served = try ServedScratch {
            $0.handshake = .milliseconds(300)
            $0.request = .milliseconds(300)
            $0.connections = 4
        }
        let good = try BareClient(served.path)
        try good.go()
        #expect(try good.errorOf(.write, 0, 4096) == .some(.none))
        for step in 0..<6 {
            let bad = try BareClient(served.path)
            switch step {
            case 0: try bad.send([UInt8](repeating: 0xee, count: 64))
            case 1: try bad.send(NBDOptionHeader.encode(.go, [])[..<12] + [0xff, 0xff, 0xff, 0xff])
            case 2: break  // never says anything: the handshake's deadline
            case 3:
                try bad.go()
                try bad.send([UInt8](repeating: 0x5a, count: 28))
            case 4:
                try bad.go()
                try bad.request(.write, 0, 0x7fff_ffff)
            default:
                try bad.go()
                try bad.request(.write, 0, 4096, payload: [1, 2, 3])
            }
            #expect(bad.isClosed(), "step \(step)")
            #expect(try good.read(0, 4096) == [UInt8](repeating: 7, count: 4096), "step \(step)")
        }
    }

    @Test func connectionsAreBounded() throws {
        let served = try ServedScratch { $0.connections = 2 }
        let first = try BareClient(served.path)
        let second = try BareClient(served.path)
        let third = try connectUnix(served.path)
        try third.setSocketTimeouts(receive: 5_000_000_000, send: 0)
        var byte: UInt8 = 0
        #expect(unsafe read(third.rawValue, &byte, 1) == 0)
        _ = (first.socket.rawValue, second.socket.rawValue)
    }

    @Test func unknownExportsAndListing() throws {
        let served = try ServedScratch()
        let client = try BareClient(served.path)
        #expect(
            try client.option(.go, NBDExportRequest(name: "mine").encoded).last?.0 == .unknownExport
        )
        #expect(try client.option(.go, [1, 2, 3]).last?.0 == .invalid)
        let list = try client.option(.list)
        #expect(list.count == 2 && list[0].1 == encodeNBDListEntry("x"))
        #expect(try client.option(.startTLS).last?.0 == .policy)
        #expect(try client.option(NBDOption(rawValue: 77)).last?.0 == .unsupported)
        #expect(
            try client.option(.setMetaContext, NBDContextRequest(name: "x", queries: []).encoded)
                .last?.0 == .invalid)
        #expect(try client.option(.abort).last?.0 == .acknowledge)
        #expect(client.isClosed())
    }
}
