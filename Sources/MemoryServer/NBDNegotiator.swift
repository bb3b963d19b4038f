import LinuxSystem
import PoolProtocol
import TransportSecurity

/// Why a negotiation ended without an export.
struct NBDRefusal: Error {
    let end: NBDConnectionEnd
    /// More than the end says, for the log.
    var reason = ""

    init(_ end: NBDConnectionEnd, _ reason: String = "") {
        self.end = end
        self.reason = reason
    }
    init(_ end: TransportEnd) { self.end = end == .timedOut ? .handshakeTimeout : .closed }
}

/// The server's side of the fixed newstyle handshake. One per connection, one thread.
struct NBDNegotiator {
    let transport: NBDTransport
    let exports: any NBDExports
    let security: NBDSecurity
    let deadline: Int64
    /// Ends the older connections of the client with this name; false when one does not end in time.
    let fence: @Sendable (_ client: [UInt8], _ deadline: Int64) -> Bool
    private var clientFlags: NBDHandshakeFlags = []
    private var structured = false
    private var wasToldOfTLS = false
    /// The export that base:allocation was agreed for.
    private var contextExport: String?

    /// More options than any client sends; a peer that goes on is not negotiating.
    private static let optionsMax = 64
    static let transmissionFlags: NBDTransmissionFlags = [
        .hasFlags, .sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes, .canMultiConnect, .sendCache,
        .sendFastZero,
    ]

    init(
        _ transport: NBDTransport, exports: any NBDExports, security: NBDSecurity, deadline: Int64,
        fence: @escaping @Sendable ([UInt8], Int64) -> Bool
    ) {
        self.transport = transport
        self.exports = exports
        self.security = security
        self.deadline = deadline
        self.fence = fence
    }

    /// Negotiates until the client has an export or goes.
    mutating func run() throws(NBDRefusal) -> (NBDAgreement, NBDOpenExport) {
        do throws(NBDRefusal) {
            return try negotiate()
        } catch {
            // Leaving is all that such a client can do; an operator should hear of it all the same.
            guard wasToldOfTLS, !transport.isEncrypted, error.reason.isEmpty else { throw error }
            throw NBDRefusal(.refused, "the client wanted an export without TLS")
        }
    }

    private mutating func negotiate() throws(NBDRefusal) -> (NBDAgreement, NBDOpenExport) {
        try send(NBDGreeting(flags: [.fixedNewstyle, .noZeroes]).encoded)
        guard let flags = try decode(decodeNBDClientFlags, of: receive(4)),
            flags.contains(.fixedNewstyle)
        else { throw NBDRefusal(.malformed) }
        clientFlags = flags
        for _ in 0..<Self.optionsMax {
            let header = try decode(NBDOptionHeader.init, of: receive(16))
            guard header.length <= UInt32(NBDWire.optionBytesMax) else {
                throw NBDRefusal(.oversized)
            }
            let data = try receive(Int(header.length))
            if let agreed = try answer(header.option, data) { return agreed }
        }
        throw NBDRefusal(.malformed)
    }

    private mutating func answer(
        _ option: NBDOption, _ data: [UInt8]
    ) throws(NBDRefusal) -> (NBDAgreement, NBDOpenExport)? {
        if option == .abort {
            try reply(option, .acknowledge)
            throw NBDRefusal(.disconnected)
        }
        if option == .startTLS {
            try startTLS(data)
            return nil
        }
        if security.credentials != nil && !transport.isEncrypted {
            wasToldOfTLS = true
            if option == .exportName { throw NBDRefusal(.refused) }
            try reply(option, .tlsRequired, "this server speaks only TLS: use nbds:// with a key")
            return nil
        }
        switch option {
        case .fence: try fence(data)
        case .exportName: return try exportName(data)
        case .go, .info: return try go(option, data)
        case .list: try list(data)
        case .structuredReply:
            structured = data.isEmpty || structured
            try reply(option, data.isEmpty ? .acknowledge : .invalid)
        case .listMetaContext, .setMetaContext: try metaContext(option, data)
        default: try reply(option, .unsupported)
        }
        return nil
    }

    private mutating func startTLS(_ data: [UInt8]) throws(NBDRefusal) {
        guard data.isEmpty, !transport.isEncrypted else { return try reply(.startTLS, .invalid) }
        guard let credentials = security.credentials else { return try reply(.startTLS, .policy) }
        try reply(.startTLS, .acknowledge)
        do throws(TLSError) {
            try transport.encrypt(credentials, deadline: deadline)
        } catch {
            throw NBDRefusal(.refused, error.description)
        }
        guard transport.identity != nil || !security.needsIdentity else {
            throw NBDRefusal(.refused, "the client proved no key and no certificate")
        }
        // What was agreed in the clear does not count.
        structured = false
        contextExport = nil
    }

    private func fence(_ data: [UInt8]) throws(NBDRefusal) {
        guard data.count == NBDWire.fenceBytes else { return try reply(.fence, .invalid) }
        guard fence(data, deadline) else {
            return try reply(.fence, .policy, "an older connection of this client does not end")
        }
        try reply(.fence, .acknowledge)
    }

    private func exportName(_ data: [UInt8]) throws(NBDRefusal) -> (NBDAgreement, NBDOpenExport) {
        guard let name = String(validating: data, as: UTF8.self) else {
            throw NBDRefusal(.malformed)
        }
        let opened: NBDOpenExport
        do throws(NBDOpenFailure) {
            opened = try exports.open(name, key: transport.identity)
        } catch {
            throw NBDRefusal(.refused)
        }
        do throws(NBDRefusal) {
            try send(
                encodeNBDExportNameReply(
                    size: opened.memory.sizeBytes, flags: exportFlags,
                    withZeroes: !clientFlags.contains(.noZeroes)))
        } catch {
            opened.close()
            throw error
        }
        return (agreement(opened, name), opened)
    }

    private var exportFlags: NBDTransmissionFlags {
        structured ? Self.transmissionFlags.union(.sendDF) : Self.transmissionFlags
    }

    private func agreement(_ opened: NBDOpenExport, _ name: String) -> NBDAgreement {
        NBDAgreement(
            memory: opened.memory, structured: structured,
            allocationContext: structured && contextExport == name)
    }

    private func go(
        _ option: NBDOption, _ data: [UInt8]
    ) throws(NBDRefusal) -> (NBDAgreement, NBDOpenExport)? {
        guard let request = try? NBDExportRequest(data) else {
            try reply(option, .invalid)
            return nil
        }
        guard option == .go else {
            if let size = exports.size(request.name, key: transport.identity) {
                try sendFacts(option, size, nil)
            } else {
                try reply(option, .unknownExport, "no such export")
            }
            return nil
        }
        let opened: NBDOpenExport
        do throws(NBDOpenFailure) {
            opened = try exports.open(request.name, key: transport.identity)
        } catch {
            try replyFailure(option, error)
            return nil
        }
        do throws(NBDRefusal) {
            let asked = request.wanted.contains(.epoch)
            try sendFacts(
                option, opened.memory.sizeBytes, asked ? opened.memory.epoch : nil)
        } catch {
            opened.close()
            throw error
        }
        return (agreement(opened, request.name), opened)
    }

    private func replyFailure(_ option: NBDOption, _ failure: NBDOpenFailure) throws(NBDRefusal) {
        switch failure {
        case .unknown: try reply(option, .unknownExport, "no such export")
        case .busy: try reply(option, .policy, "the lease is in use")
        case .noSpace: try reply(option, .policy, "the pool has no room for another lease")
        case .shuttingDown: try reply(option, .shutdown)
        }
    }

    private func sendFacts(
        _ option: NBDOption, _ size: UInt64, _ epoch: UInt64?
    ) throws(NBDRefusal) {
        var facts: [NBDExportFact] = [
            .export(size: size, flags: exportFlags),
            .blockSize(
                minimum: 1, preferred: 4096, maximum: UInt32(NBDWire.payloadBytesMax)),
        ]
        if let epoch { facts.append(.epoch(epoch)) }
        var bytes: [UInt8] = []
        for fact in facts { bytes += NBDOptionReplyHeader.encode(option, .info, fact.encoded) }
        try send(bytes + NBDOptionReplyHeader.encode(option, .acknowledge))
    }

    private func list(_ data: [UInt8]) throws(NBDRefusal) {
        guard data.isEmpty else { return try reply(.list, .invalid) }
        for name in exports.names(key: transport.identity) {
            try send(NBDOptionReplyHeader.encode(.list, .server, encodeNBDListEntry(name)))
        }
        try reply(.list, .acknowledge)
    }

    private mutating func metaContext(_ option: NBDOption, _ data: [UInt8]) throws(NBDRefusal) {
        guard structured, let request = try? NBDContextRequest(data) else {
            return try reply(option, .invalid)
        }
        guard exports.size(request.name, key: transport.identity) != nil else {
            return try reply(option, .unknownExport, "no such export")
        }
        let isListing = option == .listMetaContext
        let matches = request.queries.contains {
            $0 == NBDWire.allocationContext || (isListing && $0 == "base:")
        }
        if option == .setMetaContext { contextExport = matches ? request.name : nil }
        if matches || (isListing && request.queries.isEmpty) {
            let context = NBDContextReply(
                id: isListing ? 0 : NBDWire.allocationContextID, name: NBDWire.allocationContext)
            try send(NBDOptionReplyHeader.encode(option, .metaContext, context.encoded))
        }
        try reply(option, .acknowledge)
    }

    // MARK: Bytes

    private func receive(_ count: Int) throws(NBDRefusal) -> [UInt8] {
        do throws(TransportEnd) {
            return try transport.receiveExactly(count, deadline: deadline)
        } catch {
            throw NBDRefusal(error)
        }
    }

    private func send(_ bytes: [UInt8]) throws(NBDRefusal) {
        do throws(TransportEnd) { try transport.send(bytes) } catch { throw NBDRefusal(error) }
    }

    private func reply(
        _ option: NBDOption, _ reply: NBDOptionReply, _ text: String = ""
    ) throws(NBDRefusal) {
        try send(NBDOptionReplyHeader.encode(option, reply, Array(text.utf8)))
    }

    private func decode<T>(
        _ body: ([UInt8]) throws(NBDProtocolError) -> T, of bytes: [UInt8]
    ) throws(NBDRefusal) -> T {
        do throws(NBDProtocolError) { return try body(bytes) } catch {
            throw NBDRefusal(.malformed)
        }
    }
}
