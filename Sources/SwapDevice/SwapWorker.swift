import CSwapShims
import Fabric
import FarMemory
import Glibc
package import LinuxSystem

/// How a worker ended.
package enum WorkerEnd: Equatable, Sendable {
    /// The file system was unmounted, or the connection aborted.
    case unmounted
    /// /dev/fuse could not be read, or an answer not be given, for another reason. The request that was not
    /// answered is still in the slot, for a successor.
    case failed(Int32)
}

/// One thread's loop: take a request from the kernel, carry it out, answer it.
///
/// The order of steps is the crash contract. The kernel writes the request into the slot (it is now
/// *received*); it is carried out; the slot says *executed*; it is answered; the slot is forgotten. A
/// successor repeats what was received only, and merely answers what was executed, failures as well: by then
/// the kernel may have had the answer and may have stored another page there, which repeating would overwrite.
@safe package final class SwapWorker {
    private let fuse: Int32
    private let slot: RequestSlot
    private let path: PagePath
    private let counters: SwapCounters
    private let sizeBytes: UInt64
    private let spin: Int64
    private let staging: UnsafeMutableRawPointer
    private let vectors: UnsafeMutablePointer<iovec>
    private let header: UnsafeMutablePointer<fuse_out_header>
    private let body: UnsafeMutableRawPointer
    private static let bodyBytes = 256
    /// Keeps the reads of `touch` from being optimised away.
    private(set) package var touched: UInt8 = 0
    /// Why the last request could not be answered; 0 when it was.
    private var unanswered: Int32 = 0

    /// - Parameter spin: how long to poll for the next request before sleeping, nanoseconds; 0 sleeps
    ///   at once. The descriptor must be non-blocking when it is not 0.
    package init(
        fuse: Int32, slot: RequestSlot, path: PagePath, counters: SwapCounters, sizeBytes: UInt64,
        spin: Int64
    ) throws(SystemError) {
        self.fuse = fuse
        unsafe self.slot = unsafe slot
        self.path = path
        unsafe self.counters = unsafe counters
        self.sizeBytes = sizeBytes
        self.spin = spin
        unsafe staging = UnsafeMutableRawPointer.allocate(
            byteCount: SwapLimits.requestBytes, alignment: pageBytes)
        unsafe staging.initializeMemory(
            as: UInt8.self, repeating: 0, count: SwapLimits.requestBytes)
        unsafe vectors = .allocate(capacity: SwapLimits.requestPages + 2)
        unsafe vectors.initialize(repeating: iovec(), count: SwapLimits.requestPages + 2)
        unsafe header = .allocate(capacity: 1)
        unsafe header.initialize(to: fuse_out_header())
        unsafe body = .allocate(byteCount: Self.bodyBytes, alignment: 16)
        unsafe body.initializeMemory(as: UInt8.self, repeating: 0, count: Self.bodyBytes)
    }

    deinit {
        unsafe staging.deallocate()
        unsafe vectors.deallocate()
        unsafe header.deallocate()
        unsafe body.deallocate()
    }

    /// Finishes what a killed predecessor left in this slot. Before `run`. Nil when that went well.
    package func finishPredecessorsRequest() -> WorkerEnd? {
        let unique = unsafe slot.received
        guard unique != 0 else { return nil }
        let header = unsafe slot.request.loadUnaligned(as: fuse_in_header.self)
        let length = Int(header.len)
        guard length >= MemoryLayout<fuse_in_header>.size, unsafe length <= slot.capacity else {
            unsafe counters.add(.malformedRequests)
            unsafe slot.forget()
            return nil
        }
        let outcome = unsafe slot.executed == unique ? slot.outcome : nil
        unsafe counters.add(outcome == nil ? .replayed : .replayAnswered)
        serve(length: length, outcome: outcome)
        return unanswered == 0 ? nil : .failed(unanswered)
    }

    /// Serves requests until the file system is gone.
    package func run() -> WorkerEnd {
        while true {
            let length = take()
            if length < 0 { return length == -Int(ENODEV) ? .unmounted : .failed(Int32(-length)) }
            serve(length: length, outcome: nil)
            if unanswered != 0 { return .failed(unanswered) }
        }
    }

    /// The next request's length, or a negative errno. Spins first when told to.
    private func take() -> Int {
        var sleepAt = spin > 0 ? monotonicNow() + spin : 0
        while true {
            let got = unsafe fm_fuse_read(fuse, slot.request, slot.capacity)
            if got > 0 { return got }
            if got == 0 { return -Int(ENODEV) }
            switch errno {
            case EAGAIN:
                if monotonicNow() < sleepAt {
                    cpuRelax()
                    continue
                }
                // The kernel wakes one sleeper per request; a wake-up for nothing is harmless.
                do throws(SystemError) {
                    _ = try waitReady(fuse, .readable, timeout: 1_000_000_000)
                } catch {
                    return -Int(error.code)
                }
                sleepAt = monotonicNow() + spin
            // ENOENT: the request was interrupted before we took it. EINTR: a signal.
            case EINTR, ENOENT: continue
            default: return -Int(errno)
            }
        }
    }

    /// - Parameter outcome: how a predecessor's work on this request ended, if it was done.
    private func serve(length: Int, outcome: Int32?) {
        unanswered = 0
        let started = monotonicNow()
        let bytes = unsafe UnsafeRawBufferPointer(start: slot.request, count: length)
        let (unique, request) = unsafe decodeFuseRequest(bytes)
        switch request {
        case .read(let offset, let count):
            serveLoad(unique, offset: offset, count: count)
            unsafe counters.recordLoad(nanoseconds: monotonicNow() - started)
        case .write(let offset, let count):
            serveStore(unique, offset: offset, count: count, outcome: outcome)
            unsafe counters.recordStore(nanoseconds: monotonicNow() - started)
        case .punchHole(let offset, let count):
            serveDiscard(unique, offset: offset, count: count, outcome: outcome)
        default:
            unsafe counters.add(.otherRequests)
            serveMetadata(unique, request)
        }
        if unanswered == 0 { unsafe slot.forget() }
    }

    // MARK: Pages

    private func serveLoad(_ unique: UInt64, offset: UInt64, count: Int) {
        unsafe counters.add(.loads)
        guard let range = pages(offset: offset, count: count) else {
            return answer(unique, error: offset >= sizeBytes ? 0 : EINVAL)
        }
        do throws(FabricError) {
            let filled = unsafe try path.load(range, staging: staging, vectors: vectors + 1)
            unsafe counters.add(.pagesIn, range.count)
            touch(vectors: filled)
            answer(unique, vectors: filled, bytes: count)
        } catch {
            unsafe counters.add(.loadFailed)
            answer(unique, error: EIO)
        }
    }

    /// Maps every page of the answer before the kernel copies it. A copy that has to fault and finds this
    /// process killed meanwhile does not leave the request unanswered: the kernel ends it with EIO
    /// (fuse_dev_do_write), which is a SIGBUS for whoever waits. Touched here, a kill finds the request
    /// unanswered, and the successor answers it. The pages stay mapped: all memory is locked on fault.
    private func touch(vectors count: Int) {
        var sum: UInt8 = 0
        for index in 1...count {
            let vector = unsafe vectors[index]
            for offset in stride(from: 0, to: unsafe vector.iov_len, by: pageBytes) {
                sum &+= unsafe vector.iov_base.load(fromByteOffset: offset, as: UInt8.self)
            }
        }
        touched &+= sum
    }

    private func serveStore(_ unique: UInt64, offset: UInt64, count: Int, outcome: Int32?) {
        unsafe counters.add(.stores)
        guard let range = pages(offset: offset, count: count) else {
            return answer(unique, error: offset >= sizeBytes ? ENOSPC : EINVAL)
        }
        let result = outcome ?? store(range)
        unsafe slot.recordExecuted(unique, outcome: result)
        guard result == 0 else { return answer(unique, error: result) }
        var out = fuse_write_out()
        out.size = UInt32(count)
        answer(unique, with: out)
    }

    /// The errno of a store, 0 when it went well.
    private func store(_ range: PageRange) -> Int32 {
        do throws(FabricError) {
            unsafe try path.store(range, from: slot.payload)
        } catch {
            unsafe counters.add(Self.cause(error))
            return error == .noSpace ? ENOSPC : EIO
        }
        unsafe counters.add(.pagesOut, range.count)
        return 0
    }

    private func serveDiscard(_ unique: UInt64, offset: UInt64, count: UInt64, outcome: Int32?) {
        unsafe counters.add(.discards)
        let end = min(offset &+ count, sizeBytes)
        guard offset % UInt64(pageBytes) == 0, count % UInt64(pageBytes) == 0, offset < end else {
            return answer(unique, error: EINVAL)
        }
        let range = PageRange(
            first: offset / UInt64(pageBytes), count: Int((end - offset) / UInt64(pageBytes)))
        let result = outcome ?? discard(range)
        unsafe slot.recordExecuted(unique, outcome: result)
        answer(unique, error: result)
    }

    /// The errno of a discard, 0 when it went well.
    private func discard(_ range: PageRange) -> Int32 {
        do throws(FabricError) {
            try path.discard(range)
        } catch {
            return EIO
        }
        unsafe counters.add(.pagesDiscarded, range.count)
        return 0
    }

    /// Whole pages inside the device, or nil.
    private func pages(offset: UInt64, count: Int) -> PageRange? {
        guard count > 0, offset % UInt64(pageBytes) == 0, count % pageBytes == 0,
            offset < sizeBytes, UInt64(count) <= sizeBytes - offset
        else { return nil }
        return PageRange(first: offset / UInt64(pageBytes), count: count / pageBytes)
    }

    private static func cause(_ error: FabricError) -> SwapCounters.Counter {
        switch error {
        case .noSpace: .storeNoSpace
        case .unreachable: .storeUnreachable
        case .deadlinePassed: .storeDeadline
        case .peerError: .storePeerError
        case .protocolViolation, .outOfRange, .leaseLost: .storeOther
        }
    }

    // MARK: All else

    private func serveMetadata(_ unique: UInt64, _ request: FuseRequest) {
        switch request {
        case .initialize(let major, let minor, let flags, let readahead):
            guard major == UInt32(FUSE_KERNEL_VERSION) else {
                return answer(unique, error: EPROTO)
            }
            answer(
                unique,
                with: FuseReply.initialize(minor: minor, flags: flags, maxReadahead: readahead))
        case .lookup(let isDevice):
            guard isDevice else { return answer(unique, error: ENOENT) }
            answer(unique, with: FuseReply.entry(size: sizeBytes))
        case .attributes(let node):
            answer(unique, with: FuseReply.attributesOut(node: node, size: sizeBytes))
        case .open: answer(unique, with: FuseReply.open(direct: true))
        case .openDirectory: answer(unique, with: FuseReply.open(direct: false))
        case .statistics: answer(unique, with: FuseReply.statistics(size: sizeBytes))
        case .readDirectory, .flush, .release, .destroy: answer(unique, error: 0)
        case .silent: break
        case .malformed:
            unsafe counters.add(.malformedRequests)
            if unique != 0 { answer(unique, error: EINVAL) }
        default: answer(unique, error: ENOSYS)
        }
    }

    // MARK: Answers

    private func answer(_ unique: UInt64, error: Int32) {
        unsafe header.pointee.error = -error
        send(unique, vectors: 0, bytes: 0)
    }

    private func answer<T: BitwiseCopyable>(_ unique: UInt64, with value: T) {
        precondition(MemoryLayout<T>.size <= Self.bodyBytes, "an answer larger than its buffer")
        unsafe body.storeBytes(of: value, as: T.self)
        unsafe vectors[1] = iovec(iov_base: body, iov_len: MemoryLayout<T>.size)
        unsafe header.pointee.error = 0
        send(unique, vectors: 1, bytes: MemoryLayout<T>.size)
    }

    private func answer(_ unique: UInt64, vectors count: Int, bytes: Int) {
        unsafe header.pointee.error = 0
        send(unique, vectors: count, bytes: bytes)
    }

    private func send(_ unique: UInt64, vectors count: Int, bytes: Int) {
        let headerBytes = MemoryLayout<fuse_out_header>.size
        unsafe header.pointee.len = UInt32(headerBytes + bytes)
        unsafe header.pointee.unique = unique
        unsafe vectors[0] = iovec(iov_base: header, iov_len: headerBytes)
        unanswered = reply(vectors: Int32(count + 1))
    }

    /// Gives an answer to the kernel. 0 when it has it, or no longer waits for it; else the errno.
    private func reply(vectors count: Int32) -> Int32 {
        var patience = Self.replyTries
        while unsafe fm_fuse_reply(fuse, vectors, count) < 0 {
            switch errno {
            case EINTR: continue
            // The request is gone: a predecessor answered it, or it was interrupted, or the device is away.
            case ENOENT, ENODEV: return 0
            // Passing: the kernel had no memory for the list of vectors.
            case ENOMEM, EAGAIN:
                patience -= 1
                guard patience > 0 else { return errno }
                sleepNanoseconds(1_000_000)
            default: return errno
            }
        }
        return 0
    }

    private static let replyTries = 1000
}
