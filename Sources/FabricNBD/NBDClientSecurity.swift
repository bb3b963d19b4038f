import Glibc
import LinuxSystem
import PoolProtocol
package import TransportSecurity

extension NBDURI {
    /// What a `nbds` URI says of keys and certificates; nil for one without TLS. `tls-psk-file=FILE` with the
    /// user part naming the key, or `tls-certificates=DIR`.
    package func clientCredentials() throws(TLSError) -> TLSCredentials? {
        guard usesTLS else { return nil }
        if let certificates { return try TLSCredentials(clientCertificates: certificates) }
        guard let pskFile else {
            throw TLSError(
                "nbds:// needs NAME@ and tls-psk-file=FILE, or tls-certificates=DIR, in the URI")
        }
        let keys: [SharedKey]
        do {
            keys = try SharedKey.parse(readSmallText(pskFile))
        } catch {
            throw TLSError("\(pskFile): \(error)")
        }
        let wanted = user.map { name in keys.first { $0.name == name } } ?? keys.first
        guard let key = wanted, user != nil || keys.count == 1 else {
            throw TLSError(
                "\(pskFile) has no key '\(user ?? "")'; name one as in nbds://NAME@HOST/")
        }
        return try TLSCredentials(clientKey: key)
    }
}

extension NBDSocket {
    /// Runs the TLS handshake; afterwards all bytes are encrypted.
    func encrypt(
        _ credentials: TLSCredentials, host: String, _ deadline: Int64
    ) throws(NBDSocketError) {
        do throws(TLSError) {
            let made = try TLSSession(credentials, descriptor: number, host: host)
            try made.handshake(deadline: deadline)
            session = made
        } catch {
            throw .refused(.security(error.description))
        }
    }

    func sendSealed(
        _ vectors: UnsafeMutablePointer<iovec>, _ count: Int, _ deadline: Int64
    ) throws(NBDSocketError) {
        for index in 0..<count {
            let vector = unsafe vectors[index]
            guard let start = unsafe vector.iov_base else { continue }
            let length = unsafe vector.iov_len
            var done = 0
            while done < length {
                switch unsafe session?.send(start + done, length - done) ?? .ended {
                case .bytes(let sent): done += sent
                case .ended: throw .closed
                case .wouldBlock(let writing):
                    guard session?.waitReady(writing: writing, until: deadline) == true else {
                        throw .timedOut
                    }
                }
            }
        }
    }

    func receiveSealed(
        _ vectors: UnsafeMutablePointer<iovec>, _ count: Int, minimum: Int, _ deadline: Int64
    ) throws(NBDSocketError) -> Int {
        var total = 0
        for index in 0..<count {
            let vector = unsafe vectors[index]
            guard let start = unsafe vector.iov_base else { continue }
            let length = unsafe vector.iov_len
            var done = 0
            while done < length {
                if total >= minimum { return total }
                switch unsafe session?.receive(start + done, length - done) ?? .ended {
                case .bytes(let got):
                    done += got
                    total += got
                case .ended: throw .closed
                case .wouldBlock(let writing):
                    guard session?.waitReady(writing: writing, until: deadline) == true else {
                        throw .timedOut
                    }
                }
            }
        }
        return total
    }
}
