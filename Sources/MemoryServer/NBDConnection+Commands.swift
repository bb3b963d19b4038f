import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol
import Telemetry

/// A read that is answered in chunks, round by round.
struct NBDLongRead {
    var cookie: UInt64
    var offset: UInt64
    var remaining: Int
}

extension NBDConnection {
    /// Carries out one request whose payload lies at `payload`.
    func execute(
        _ request: NBDRequest, _ payload: UnsafeMutableRawPointer
    ) throws(TransportEnd) {
        if let error = rangeError(request) ?? flagError(request) {
            counters.refused.add(1, shard: shard)
            return try answer(request, error)
        }
        switch request.command {
        case .read: try read(request)
        case .write:
            let stored = unsafe memory.store(
                payload, offset: request.offset, count: Int(request.length))
            try answer(request, stored ? .none : .noSpace)
        case .flush, .cache:
            // Memory is as durable as it gets at once; nothing waits anywhere.
            try answer(request, .none)
        case .trim:
            // Replies that point into these pages leave first.
            try batch.flush()
            memory.discard(offset: request.offset, count: UInt64(request.length))
            try answer(request, .none)
        case .writeZeroes: try writeZeroes(request)
        case .blockStatus: try blockStatus(request)
        default: try answer(request, .invalid)
        }
    }

    /// Why the request's range cannot be served.
    func rangeError(_ request: NBDRequest) -> NBDErrorNumber? {
        if request.command == .flush || request.command == .disconnect {
            return nil
        }
        let (end, overflow) = request.offset.addingReportingOverflow(UInt64(request.length))
        let isInside = !overflow && end <= memory.sizeBytes
        switch request.command {
        case .read:
            if request.length == 0 || !isInside { return .invalid }
            return request.length > NBDWire.payloadBytesMax ? .overflow : nil
        case .write, .writeZeroes:
            if request.length == 0 { return .invalid }
            return isInside ? nil : .noSpace
        default:
            return request.length > 0 && isInside ? nil : .invalid
        }
    }

    /// Why the request's flags cannot be served.
    func flagError(_ request: NBDRequest) -> NBDErrorNumber? {
        var known: NBDCommandFlags = .fua
        switch request.command {
        case .read: known.insert(.dontFragment)
        case .writeZeroes:
            known.insert(.noHole)
            known.insert(.fastZero)
        case .blockStatus: known.insert(.requireOne)
        default: break
        }
        if !known.isSuperset(of: request.flags) { return .invalid }
        if request.flags.contains(.dontFragment) && !structured { return .invalid }
        return nil
    }

    /// A reply without data. Reads and block status may only fail in the negotiated way.
    func answer(_ request: NBDRequest, _ error: NBDErrorNumber) throws(TransportEnd) {
        let isStructured =
            structured && (request.command == .read || request.command == .blockStatus)
        guard isStructured else {
            let header = unsafe try batch.header(NBDWire.simpleReplyBytes)
            unsafe NBDReply.simple(cookie: request.cookie, error: error).encode(to: header)
            return
        }
        let header = unsafe try batch.header(NBDWire.structuredReplyBytes + 6)
        unsafe NBDReply.chunk(cookie: request.cookie, type: .error, isLast: true, length: 6)
            .encode(to: header)
        unsafe header.putBigEndian(error.rawValue, NBDWire.structuredReplyBytes)
        unsafe header.putBigEndian(UInt16(0), NBDWire.structuredReplyBytes + 4)
    }

    private func read(_ request: NBDRequest) throws(TransportEnd) {
        let count = Int(request.length)
        guard structured else {
            let header = unsafe try batch.header(NBDWire.simpleReplyBytes)
            unsafe NBDReply.simple(cookie: request.cookie, error: .none).encode(to: header)
            return try batch.data(memory, offset: Int(request.offset), count: count)
        }
        if count > Self.chunkBytes && !request.flags.contains(.dontFragment) {
            // SAFETY: parseRound stops while the table is full.
            unsafe longReads[longReadCount] = NBDLongRead(
                cookie: request.cookie, offset: request.offset, remaining: count)
            longReadCount += 1
            return
        }
        try chunk(request.cookie, request.offset, count, isLast: true)
    }

    /// One chunk of data, or of a hole when no page of it holds anything.
    private func chunk(
        _ cookie: UInt64, _ offset: UInt64, _ count: Int, isLast: Bool
    ) throws(TransportEnd) {
        let first = Int(offset) / pageBytes
        let end = (Int(offset) + count + pageBytes - 1) / pageBytes
        let run = memory.run(from: first, to: end)
        let isHole = !run.stored && run.end == end && count > pageBytes
        let header = unsafe try batch.header(
            NBDWire.structuredReplyBytes + (isHole ? 12 : 8))
        unsafe NBDReply.chunk(
            cookie: cookie, type: isHole ? .offsetHole : .offsetData, isLast: isLast,
            length: isHole ? 12 : UInt32(count + 8)
        ).encode(to: header)
        unsafe header.putBigEndian(offset, NBDWire.structuredReplyBytes)
        if isHole {
            unsafe header.putBigEndian(UInt32(count), NBDWire.structuredReplyBytes + 8)
        } else {
            try batch.data(memory, offset: Int(offset), count: count)
        }
    }

    /// Adds the next chunk of the next long read in turn.
    func continueLongRead() throws(TransportEnd) {
        if longReadNext >= longReadCount { longReadNext = 0 }
        var read = unsafe longReads[longReadNext]
        let count = min(read.remaining, Self.chunkBytes)
        let isLast = count == read.remaining
        try chunk(read.cookie, read.offset, count, isLast: isLast)
        if isLast {
            longReadCount -= 1
            unsafe longReads[longReadNext] = unsafe longReads[longReadCount]
        } else {
            read.offset += UInt64(count)
            read.remaining -= count
            unsafe longReads[longReadNext] = read
            longReadNext += 1
        }
    }

    private func writeZeroes(_ request: NBDRequest) throws(TransportEnd) {
        try batch.flush()
        let count = UInt64(request.length)
        guard request.flags.contains(.noHole) else {
            memory.zero(offset: request.offset, count: count)
            return try answer(request, .none)
        }
        // Keeping the memory means writing it: that is not fast.
        if request.flags.contains(.fastZero) { return try answer(request, .notSupported) }
        let done = memory.zeroKeepingMemory(offset: request.offset, count: count)
        try answer(request, done ? .none : .noSpace)
    }

    /// base:allocation of a range: runs of pages that hold something, and of holes.
    private func blockStatus(_ request: NBDRequest) throws(TransportEnd) {
        guard structured && allocationContext else { return try answer(request, .invalid) }
        try batch.flush()
        unsafe extents.putBigEndian(NBDWire.allocationContextID, 0)
        let limit = request.flags.contains(.requireOne) ? 1 : Self.extentsMax
        var at = request.offset
        let end = request.offset + UInt64(request.length)
        let endPage = Int((end + UInt64(pageBytes) - 1) / UInt64(pageBytes))
        var count = 0
        while at < end && count < limit {
            let run = memory.run(from: Int(at) / pageBytes, to: endPage)
            let runEnd = min(end, UInt64(run.end) * UInt64(pageBytes))
            let flags = run.stored ? 0 : NBDExtentFlags.hole | NBDExtentFlags.zero
            unsafe extents.putBigEndian(UInt32(runEnd - at), 4 + count * 8)
            unsafe extents.putBigEndian(flags, 8 + count * 8)
            at = runEnd
            count += 1
        }
        let length = 4 + 8 * count
        let header = unsafe try batch.header(NBDWire.structuredReplyBytes)
        unsafe NBDReply.chunk(
            cookie: request.cookie, type: .blockStatus, isLast: true, length: UInt32(length)
        ).encode(to: header)
        unsafe batch.bytes(extents, length)
        try batch.flush()
    }
}
