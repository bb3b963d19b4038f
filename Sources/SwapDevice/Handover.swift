// How a data process's fabric outlives it. The keeper holds what the fabric says its successor can go on with,
// and gives it to the next data process; it does not look inside. What is held is the last message that came.

package import Fabric
import Glibc
package import LinuxSystem

/// What came through a `HandoverSocket`; closes the descriptors when it goes.
package final class HeldHandover: Sendable {
    package let value: Handover

    /// Takes the descriptors over.
    package init(owning value: Handover) { self.value = value }

    deinit { for fd in value.descriptors { close(fd) } }
}

/// One end of the connection between a keeper and its data process. Never waits. One thread at a time.
package struct HandoverSocket: ~Copyable, Sendable {
    /// The longest message; what is longer is not sent, and not believed.
    package static let bytesMax = 256
    package static let descriptorsMax = 8

    private let socket: FileDescriptor

    /// To watch for messages.
    package var descriptor: Int32 { socket.rawValue }

    /// Takes one of `makeMessagePair` over.
    package init(owning number: Int32) { socket = FileDescriptor(owning: number) }

    /// The end that this process was started with. Nil when there is none: an older keeper knows of none.
    package static func inherited() -> HandoverSocket? {
        guard isMessageSocket(SwapDescriptor.handover) else { return nil }
        return HandoverSocket(owning: SwapDescriptor.handover)
    }

    /// Sends it. `EMSGSIZE` when it is too large, `EPIPE` when nobody is at the other end.
    package func send(_ handover: Handover) throws(SystemError) {
        guard handover.bytes.count <= Self.bytesMax,
            handover.descriptors.count <= Self.descriptorsMax
        else { throw SystemError(call: "hand over", code: EMSGSIZE) }
        let error: SystemError? = unsafe handover.bytes.withUnsafeBytes { bytes in
            do throws(SystemError) {
                try unsafe socket.send(bytes, descriptors: handover.descriptors)
                return nil
            } catch {
                return error
            }
        }
        if let error { throw error }
    }

    /// Takes all that has come; the last of it replaces `held`. False when no more will come.
    package func receive(into held: inout HeldHandover?) -> Bool {
        while true {
            switch next() {
            case .came(let handover): held = handover
            case .nothing: return true
            case .over: return false
            }
        }
    }

    private enum Step {
        case came(HeldHandover)
        case nothing, over
    }

    private func next() -> Step {
        // One byte more than a message may have: it shows one that was too long.
        var bytes = [UInt8](repeating: 0, count: Self.bytesMax + 1)
        var descriptors: [Int32] = []
        var got = 0
        var failure: SystemError?
        unsafe bytes.withUnsafeMutableBytes { buffer in
            do throws(SystemError) {
                got = try unsafe socket.receive(
                    into: buffer, descriptors: &descriptors, maximum: Self.descriptorsMax)
            } catch {
                failure = error
            }
        }
        if let failure { return failure.code == EAGAIN ? .nothing : .over }
        let handover = HeldHandover(
            owning: Handover(bytes: Array(bytes[..<got]), descriptors: descriptors))
        return got > 0 && got <= Self.bytesMax ? .came(handover) : .over
    }
}
