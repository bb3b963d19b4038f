import CLinuxShims
import Glibc
import LinuxSystem
import TransportSecurity

/// Why bytes could not be exchanged.
enum NBDSocketError: Error {
    case timedOut
    case closed
    case notProtocol
    /// In the handshake only.
    case refused(NBDConnectError)
}

/// A connected stream with deadlines, in the clear or encrypted. One thread at a time.
@safe final class NBDSocket: @unchecked Sendable {
    // SAFETY of @unchecked Sendable: a socket is handed on whole, or used under its link's lock.

    private var descriptor: Int32
    var number: Int32 { descriptor }
    /// nil in the clear.
    var session: TLSSession?
    /// Room for a header of either direction, and for its vector and the data's.
    let header = UnsafeMutableRawPointer.allocate(byteCount: 32, alignment: 8)
    let parts = UnsafeMutablePointer<iovec>.allocate(capacity: 2)

    /// Takes over a non-blocking socket.
    init(_ descriptor: consuming FileDescriptor) {
        self.descriptor = descriptor.release()
    }

    deinit {
        session?.end()
        session = nil
        if descriptor >= 0 { close(descriptor) }
        unsafe header.deallocate()
        unsafe parts.deallocate()
    }

    /// Gives the descriptor up.
    func takeDescriptor() -> FileDescriptor {
        defer { descriptor = -1 }
        return FileDescriptor(owning: descriptor)
    }

    /// Sends all vectors before the deadline; changes them as it goes.
    func send(
        _ vectors: UnsafeMutablePointer<iovec>, _ count: Int, _ deadline: Int64
    ) throws(NBDSocketError) {
        if session != nil { return unsafe try sendSealed(vectors, count, deadline) }
        var index = 0
        while index < count {
            var moved = unsafe fm_sendv_no_signal(descriptor, vectors + index, count - index)
            if moved < 0 {
                try waitAfterError(UInt32(FM_POLL_OUT), deadline)
                continue
            }
            unsafe advance(vectors, count, &index, &moved)
        }
    }

    /// Receives until the vectors are full, or at least `minimum` bytes are there when nothing more comes at
    /// once. Returns how many bytes came.
    func receive(
        _ vectors: UnsafeMutablePointer<iovec>, _ count: Int, minimum: Int, spin: Int64,
        _ deadline: Int64
    ) throws(NBDSocketError) -> Int {
        if session != nil {
            return unsafe try receiveSealed(vectors, count, minimum: minimum, deadline)
        }
        var index = 0
        var total = 0
        let spinEnd = spin > 0 ? monotonicNow() + spin : 0
        while index < count {
            var moved = unsafe readv(descriptor, vectors + index, Int32(count - index))
            if moved == 0 { throw .closed }
            if moved < 0 {
                if errno == EAGAIN {
                    if total > 0 && total >= minimum { return total }
                    if spinEnd > 0 && monotonicNow() < spinEnd {
                        cpuRelax()
                        continue
                    }
                    errno = EAGAIN
                }
                try waitAfterError(UInt32(FM_POLL_IN), deadline)
                continue
            }
            total += moved
            unsafe advance(vectors, count, &index, &moved)
            if total >= minimum { return total }
        }
        return total
    }

    private func advance(
        _ vectors: UnsafeMutablePointer<iovec>, _ count: Int, _ index: inout Int,
        _ moved: inout Int
    ) {
        while index < count, unsafe moved >= vectors[index].iov_len {
            moved -= unsafe vectors[index].iov_len
            index += 1
        }
        if moved > 0 {
            // SAFETY: fewer bytes than this vector holds were moved.
            unsafe vectors[index].iov_base = unsafe vectors[index].iov_base + moved
            unsafe vectors[index].iov_len -= moved
        }
    }

    private func waitAfterError(_ events: UInt32, _ deadline: Int64) throws(NBDSocketError) {
        switch errno {
        case EINTR: return
        case EAGAIN:
            let left = deadline - monotonicNow()
            guard left > 0, fm_poll_one(descriptor, events, left) != 0 else { throw .timedOut }
        default: throw .closed
        }
    }

    // MARK: The handshake's arrays

    func send(_ message: [UInt8], _ deadline: Int64) throws(NBDSocketError) {
        guard !message.isEmpty else { return }
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: message.count, alignment: 8)
        defer { unsafe bytes.deallocate() }
        // SAFETY: as long as the message.
        unsafe bytes.copyMemory(from: message, byteCount: message.count)
        var vector = unsafe iovec(iov_base: bytes, iov_len: message.count)
        unsafe try send(&vector, 1, deadline)
    }

    func receive(_ count: Int, _ deadline: Int64) throws(NBDSocketError) -> [UInt8] {
        guard count > 0 else { return [] }
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 8)
        defer { unsafe bytes.deallocate() }
        var vector = unsafe iovec(iov_base: bytes, iov_len: count)
        _ = unsafe try receive(&vector, 1, minimum: count, spin: 0, deadline)
        return unsafe [UInt8](UnsafeRawBufferPointer(start: bytes, count: count))
    }
}
