import SwapDevice

/// A request of the kernel: whatever it says, what is decoded lies within what was read.
@Sendable func fuzzFuse(_ bytes: [UInt8]) {
    // SAFETY: the array lives through the call.
    let (unique, request) = unsafe bytes.withUnsafeBytes { unsafe decodeFuseRequest($0) }
    switch request {
    case .read(_, let count):
        precondition((0...SwapLimits.requestBytes).contains(count), "a read larger than a slot")
    case .write(_, let count):
        precondition(
            count == bytes.count - SharedRegion.requestHeaderBytes,
            "a write's payload is what follows its headers")
    case .malformed: break
    default: precondition(bytes.count >= 40, "request \(unique) without a header")
    }
}
