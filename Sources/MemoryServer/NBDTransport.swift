import CLinuxShims
import Glibc
import LinuxSystem
import TransportSecurity

/// How a receive or a send ended.
enum TransportEnd: Error {
    /// The peer closed, or the connection broke.
    case closed
    /// Nothing could be moved within the socket's timeout.
    case timedOut
}

/// The byte stream of one connection, in the clear or encrypted. One thread.
@safe final class NBDTransport {
    let descriptor: Int32
    /// nil in the clear.
    var session: TLSSession?
    /// Small pieces are sealed together: a record costs more than a copy. Allocated with the session.
    var staging: MemoryMapping?
    /// As SO_SNDTIMEO in the clear: nanoseconds without the peer taking anything.
    let sendTimeout: Int64

    init(descriptor: Int32, sendTimeout: Int64) {
        self.descriptor = descriptor
        self.sendTimeout = sendTimeout
    }

    /// Receives what is there, at least one byte. Without `wait` returns 0 when nothing is there.
    @inline(__always)
    func receive(
        _ bytes: UnsafeMutableRawPointer, _ capacity: Int, wait: Bool
    ) throws(TransportEnd) -> Int {
        if session != nil { return unsafe try receiveSealed(bytes, capacity, wait: wait) }
        while true {
            let got = unsafe fm_receive(descriptor, bytes, capacity, !wait)
            if got > 0 { return got }
            if got == 0 { throw .closed }
            switch errno {
            case EINTR: continue
            case EAGAIN: if wait { throw .timedOut } else { return 0 }
            default: throw .closed
            }
        }
    }

    /// Waits at most `timeout` nanoseconds for bytes, or for the end of the stream.
    func waitReadable(_ timeout: Int64) -> Bool {
        if session?.hasPending == true { return true }
        return fm_poll_one(descriptor, UInt32(FM_POLL_IN), timeout) != 0
    }

    /// Sends all vectors; changes them as it goes.
    @inline(__always)
    func send(_ vectors: UnsafeMutablePointer<iovec>, _ count: Int) throws(TransportEnd) {
        if session != nil { return unsafe try sendSealed(vectors, count) }
        var index = 0
        while index < count {
            var sent = unsafe fm_sendv_no_signal(descriptor, vectors + index, count - index)
            if sent < 0 {
                if errno == EINTR { continue }
                throw errno == EAGAIN ? .timedOut : .closed
            }
            while index < count, unsafe sent >= vectors[index].iov_len {
                sent -= unsafe vectors[index].iov_len
                index += 1
            }
            if sent > 0 {
                // SAFETY: fewer bytes than this vector holds were sent of it.
                unsafe vectors[index].iov_base = unsafe vectors[index].iov_base + sent
                unsafe vectors[index].iov_len -= sent
            }
        }
    }

    /// Receives exactly `count` bytes before `deadline`: for the handshake.
    func receiveExactly(_ count: Int, deadline: Int64) throws(TransportEnd) -> [UInt8] {
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: max(1, count), alignment: 8)
        defer { unsafe bytes.deallocate() }
        var done = 0
        while done < count {
            let left = deadline - monotonicNow()
            guard left > 0, waitReadable(left) else { throw .timedOut }
            // SAFETY: done < count, the length of the memory.
            done += unsafe try receive(bytes + done, count - done, wait: false)
        }
        return unsafe [UInt8](UnsafeRawBufferPointer(start: bytes, count: count))
    }

    /// Sends bytes of the handshake.
    func send(_ message: [UInt8]) throws(TransportEnd) {
        guard !message.isEmpty else { return }
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: message.count, alignment: 8)
        defer { unsafe bytes.deallocate() }
        // SAFETY: as long as the message.
        unsafe bytes.copyMemory(from: message, byteCount: message.count)
        var vector = unsafe iovec(iov_base: bytes, iov_len: message.count)
        unsafe try send(&vector, 1)
    }
}

/// No delay for small messages: 0, or -1 with errno.
func setNoDelay(_ descriptor: Int32) -> Int32 { fm_tcp_nodelay(descriptor) }

/// Timeouts of blocking calls in nanoseconds: 0, or -1 with errno.
func setTimeouts(_ descriptor: Int32, receive: Int64, send: Int64) -> Int32 {
    fm_socket_timeouts(descriptor, UInt64(receive), UInt64(send))
}
