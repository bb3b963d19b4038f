import CCurl
import CHTTPShims
package import FarMemory
import Glibc

/// How a stream ended that did not fail.
package enum StreamEnd: Equatable, Sendable {
    /// The receiver had enough.
    case stopped
    /// The peer closed it.
    case closed
}

/// Where the pieces of a streamed response go. `take` and `pulse` run inside the transfer, on its thread.
final class ResponseStream {
    private let receive: ([UInt8]) -> Bool
    let mayGoOn: () -> Bool
    private(set) var isSuccess = false
    private(set) var wasStopped = false

    init(receive: @escaping ([UInt8]) -> Bool, mayGoOn: @escaping () -> Bool) {
        self.receive = receive
        self.mayGoOn = mayGoOn
    }

    func noteStatus(_ line: String) {
        let words = line.split(separator: " ")
        isSuccess = words.count > 1 && words[1].utf8.first == UInt8(ascii: "2")
    }

    func take(_ bytes: [UInt8]) -> Bool {
        guard receive(bytes) else {
            wasStopped = true
            return false
        }
        return true
    }

    func pulse() -> Bool {
        guard mayGoOn() else {
            wasStopped = true
            return false
        }
        return true
    }
}

extension HTTPClient {
    /// Gets a response without an end, as of event feeds. Each piece goes to `receive`, which ends it with false;
    /// `mayGoOn` is asked about once a second, so the stream has no deadline of its own. A response other than 2xx is returned.
    package func stream(
        _ path: String, connectTimeout: Nanoseconds, receive: @escaping ([UInt8]) -> Bool,
        mayGoOn: @escaping () -> Bool
    ) throws(HTTPClientError) -> (end: StreamEnd, refusal: HTTPResponse?) {
        try check("GET", path, [])
        let received = Received(bodyBytesMax: bodyBytesMax)
        let stream = ResponseStream(receive: receive, mayGoOn: mayGoOn)
        received.stream = stream
        var list = HeaderList()
        list.append("Expect:")
        if let bearerToken { list.append("Authorization: Bearer \(bearerToken)") }
        let code = unsafe handle.perform(
            Transfer(
                method: "GET", url: url(path), target: target, body: nil, milliseconds: 0,
                connectMilliseconds: max(1, Int(connectTimeout.milliseconds))),
            list: list.first, received: received)
        if stream.wasStopped { return (.stopped, nil) }
        let answer = try response(code, received)
        return (.closed, stream.isSuccess ? nil : answer)
    }
}

func pulse(
    context: UnsafeMutableRawPointer?, _: curl_off_t, _: curl_off_t, _: curl_off_t, _: curl_off_t
) -> Int32 {
    guard let context = unsafe context else { return 1 }
    // SAFETY: the context is the `Received` of the transfer that runs now.
    let received = unsafe Unmanaged<Received>.fromOpaque(context).takeUnretainedValue()
    return received.stream?.pulse() == false ? 1 : 0
}
