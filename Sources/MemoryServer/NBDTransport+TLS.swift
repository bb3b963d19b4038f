import CLinuxShims
import Glibc
import LinuxSystem
import TransportSecurity

extension NBDTransport {
    private static let stagingBytes = 16 << 10
    /// A blocking receive returns after this, so that its caller can look at its deadlines.
    private static let tick: Int64 = 5_000_000_000

    var isEncrypted: Bool { session != nil }
    /// Who the peer proved to be.
    var identity: String? { session?.identity }

    /// Runs the TLS handshake; afterwards all bytes are encrypted. Throws why the peer is not let in.
    func encrypt(_ credentials: TLSCredentials, deadline: Int64) throws(TLSError) {
        // TLS waits by poll, for both directions may be needed for one.
        guard fm_set_nonblocking(descriptor, true) == 0 else {
            throw TLSError(system: errno)
        }
        let made = try TLSSession(credentials, descriptor: descriptor)
        try made.handshake(deadline: deadline)
        do throws(SystemError) {
            staging = try MemoryMapping(anonymous: Self.stagingBytes)
        } catch {
            throw TLSError(system: error.code)
        }
        session = made
    }

    /// Says goodbye to an encrypted peer.
    func end() { session?.end() }

    func receiveSealed(
        _ bytes: UnsafeMutableRawPointer, _ capacity: Int, wait: Bool
    ) throws(TransportEnd) -> Int {
        guard let session else { throw .closed }
        let deadline = wait ? monotonicNow() + Self.tick : 0
        while true {
            switch unsafe session.receive(bytes, capacity) {
            case .bytes(let count): return count
            case .ended: throw .closed
            case .wouldBlock(let writing):
                if !wait { return 0 }
                guard session.waitReady(writing: writing, until: deadline) else { throw .timedOut }
            }
        }
    }

    func sendSealed(
        _ vectors: UnsafeMutablePointer<iovec>, _ count: Int
    ) throws(TransportEnd) {
        guard let base = unsafe staging?.base else { throw .closed }
        var used = 0
        for index in 0..<count {
            let vector = unsafe vectors[index]
            guard let start = unsafe vector.iov_base else { continue }
            let length = unsafe vector.iov_len
            var done = 0
            while done < length {
                let piece = min(length - done, Self.stagingBytes - used)
                // SAFETY: piece fits in what is left of the vector and of the staging area.
                unsafe memcpy(base + used, start + done, piece)
                done += piece
                used += piece
                if used == Self.stagingBytes {
                    unsafe try seal(base, used)
                    used = 0
                }
            }
        }
        if used > 0 { unsafe try seal(base, used) }
    }

    private func seal(_ bytes: UnsafeMutableRawPointer, _ count: Int) throws(TransportEnd) {
        guard let session else { throw .closed }
        var done = 0
        while done < count {
            switch unsafe session.send(bytes + done, count - done) {
            case .bytes(let sent): done += sent
            case .ended: throw .closed
            case .wouldBlock(let writing):
                guard session.waitReady(writing: writing, until: monotonicNow() + sendTimeout)
                else {
                    throw .timedOut
                }
            }
        }
    }
}
