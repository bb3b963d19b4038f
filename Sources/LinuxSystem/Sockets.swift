package import CLinuxShims
import Glibc

/// Listens on a unix socket; a stale one is replaced, one that answers is `EADDRINUSE`.
package func listenUnix(
    _ path: String, backlog: Int32 = 64, mode: UInt32 = 0o600
) throws(SystemError) -> FileDescriptor {
    try FileDescriptor("listen on unix:\(path)", unsafe fm_unix_listen(path, backlog, mode))
}

package func connectUnix(_ path: String) throws(SystemError) -> FileDescriptor {
    try FileDescriptor("connect to unix:\(path)", unsafe fm_unix_connect(path))
}

/// Listens on TCP; port "0" lets the kernel choose (see `localPort`).
package func listenTCP(
    _ host: String, _ port: String, backlog: Int32 = 64
) throws(SystemError) -> FileDescriptor {
    try FileDescriptor("listen on \(host):\(port)", unsafe fm_tcp_listen(host, port, backlog))
}

/// Connects within `timeout` nanoseconds per address.
package func connectTCP(
    _ host: String, _ port: String, timeout: Int64
) throws(SystemError) -> FileDescriptor {
    try FileDescriptor("connect to \(host):\(port)", unsafe fm_tcp_connect(host, port, timeout))
}

extension FileDescriptor {
    /// The port that a TCP socket is bound to.
    package func localPort() throws(SystemError) -> Int {
        Int(try check("getsockname") { fm_tcp_local_port(rawValue) })
    }

    /// The next connection, close-on-exec.
    package func accept() throws(SystemError) -> FileDescriptor {
        try FileDescriptor("accept", fm_accept(rawValue))
    }

    /// Small messages leave at once.
    package func setNoDelay() throws(SystemError) {
        try check("setsockopt(TCP_NODELAY)") { fm_tcp_nodelay(rawValue) }
    }

    /// Deadlines for each blocking receive and send, nanoseconds; 0 waits for ever.
    package func setSocketTimeouts(receive: UInt64, send: UInt64) throws(SystemError) {
        try check("setsockopt(SO_RCVTIMEO)") { fm_socket_timeouts(rawValue, receive, send) }
    }

    package func setNonBlocking(_ on: Bool) throws(SystemError) {
        try check("fcntl(O_NONBLOCK)") { fm_set_nonblocking(rawValue, on) }
    }

    /// Who is at the other end of a unix socket.
    package func unixPeer() throws(SystemError) -> fm_peer {
        var peer = fm_peer()
        try check("getsockopt(SO_PEERCRED)") { unsafe fm_unix_peer(rawValue, &peer) }
        return peer
    }

    /// Sends bytes with descriptors attached to the first of them. All or an error: for messages
    /// smaller than the socket's buffer.
    package func send(
        _ bytes: UnsafeRawBufferPointer, descriptors: [Int32]
    ) throws(SystemError) {
        let sent = try check("sendmsg") {
            unsafe descriptors.withUnsafeBufferPointer {
                unsafe fm_send_with_fds(
                    rawValue, bytes.baseAddress, bytes.count, $0.baseAddress, Int32($0.count))
            }
        }
        guard sent == bytes.count else { throw SystemError(call: "sendmsg", code: EMSGSIZE) }
    }

    /// Receives bytes and up to `maximum` descriptors, which the caller then owns.
    /// 0 bytes: the peer closed.
    package func receive(
        into bytes: UnsafeMutableRawBufferPointer, descriptors: inout [Int32], maximum: Int
    ) throws(SystemError) -> Int {
        var raw = [Int32](repeating: -1, count: maximum)
        var count = Int32(maximum)
        let got = try check("recvmsg") {
            unsafe raw.withUnsafeMutableBufferPointer {
                unsafe fm_receive_with_fds(
                    rawValue, bytes.baseAddress, bytes.count, $0.baseAddress, &count)
            }
        }
        descriptors = Array(raw[..<Int(count)])
        return got
    }
}

/// Two connected unix stream sockets.
package func makeSocketPair() throws(SystemError) -> (Int32, Int32) {
    var pair: (Int32, Int32) = (-1, -1)
    try check("socketpair") {
        unsafe withUnsafeMutableBytes(of: &pair) {
            unsafe fm_socket_pair($0.baseAddress?.assumingMemoryBound(to: Int32.self))
        }
    }
    return pair
}

/// Two connected unix sockets that keep messages apart, non-blocking.
package func makeMessagePair() throws(SystemError) -> (Int32, Int32) {
    var pair: (Int32, Int32) = (-1, -1)
    try check("socketpair") {
        unsafe withUnsafeMutableBytes(of: &pair) {
            unsafe fm_message_pair($0.baseAddress?.assumingMemoryBound(to: Int32.self))
        }
    }
    return pair
}

/// Whether this number is an open socket that keeps messages apart.
package func isMessageSocket(_ fd: Int32) -> Bool { fm_is_message_socket(fd) }

/// A host's first address in numbers, as the kernel takes it. Asks the resolver: it may take seconds.
package func resolveAddress(_ host: String) throws(SystemError) -> String {
    var text = [CChar](repeating: 0, count: 128)
    let found = unsafe text.withUnsafeMutableBufferPointer {
        unsafe fm_resolve(host, $0.baseAddress, 128)
    }
    guard found == 0 else { throw SystemError.last("resolve \(host)") }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
