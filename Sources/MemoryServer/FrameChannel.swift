import CLinuxShims
import Glibc
import LinuxSystem
import PoolProtocol

/// Why no frame came.
enum FrameFailure: Error, Equatable {
    /// The client closed, between two frames or within one, or the server is going down.
    case closed
    case deadlinePassed
    case malformed(ControlDecodeError)
}

/// Frames of the control protocol over a connected unix socket that it borrows; for one thread.
struct FrameChannel {
    let descriptor: Int32
    /// For the rest of a frame, and for sending one. Nanoseconds.
    let frameTime: Int64

    /// The next message. Waits for its first byte until `deadline` (monotonic; nil: as long as it takes).
    func receive(until deadline: Int64?) throws(FrameFailure) -> (ControlMessage, cookie: UInt32) {
        var head = [UInt8](repeating: 0, count: FrameHeader.byteCount)
        try wait(until: deadline)
        let end = min(deadline ?? .max, monotonicNow() + frameTime)
        try fill(&head, until: end)
        let header = try decoding { () throws(ControlDecodeError) in try FrameHeader.decode(head) }
        var payload = [UInt8](repeating: 0, count: header.payloadLength)
        try fill(&payload, until: end)
        let message = try decoding { () throws(ControlDecodeError) in
            try ControlMessage.decode(type: header.type, payload: payload)
        }
        return (message, header.cookie)
    }

    private func decoding<R>(
        _ body: () throws(ControlDecodeError) -> R
    ) throws(FrameFailure) -> R {
        do throws(ControlDecodeError) { return try body() } catch { throw .malformed(error) }
    }

    private func wait(until deadline: Int64?) throws(FrameFailure) {
        let isReady: Bool
        do throws(SystemError) {
            let timeout = deadline.map { max(0, $0 - monotonicNow()) } ?? -1
            isReady = try waitReady(descriptor, .readable, timeout: timeout)
        } catch {
            throw .closed
        }
        if !isReady { throw .deadlinePassed }
    }

    private func fill(_ bytes: inout [UInt8], until deadline: Int64) throws(FrameFailure) {
        var done = 0
        while done < bytes.count {
            try wait(until: deadline)
            let room = bytes.count - done
            // SAFETY: `done` < count, so the pointer and `room` lie inside the array.
            let got = unsafe bytes.withUnsafeMutableBytes {
                unsafe fm_receive(descriptor, $0.baseAddress.map { unsafe $0 + done }, room, true)
            }
            if got == 0 { throw .closed }
            if got < 0 {
                if errno == EAGAIN || errno == EINTR { continue }
                throw .closed
            }
            done += got
        }
    }

    /// Sends one message with descriptors; false when the client is gone or does not take it in time.
    func send(_ message: ControlMessage, cookie: UInt32, descriptors: [Int32] = []) -> Bool {
        let frame = message.encoded(cookie: cookie)
        let deadline = monotonicNow() + frameTime
        var done = 0
        while done < frame.count {
            let isReady = try? waitReady(
                descriptor, .writable, timeout: max(0, deadline - monotonicNow()))
            guard isReady == true else { return false }
            // SAFETY: `done` < count, so the pointer and the rest lie inside the array.
            let sent = unsafe frame.withUnsafeBytes { bytes in
                unsafe descriptors.withUnsafeBufferPointer { list in
                    unsafe fm_send_with_fds(
                        descriptor, bytes.baseAddress.map { unsafe $0 + done }, frame.count - done,
                        list.baseAddress, done == 0 ? Int32(list.count) : 0)
                }
            }
            if sent < 0 && errno != EAGAIN { return false }
            if sent > 0 { done += sent }
        }
        return true
    }
}
