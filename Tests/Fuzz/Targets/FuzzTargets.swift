// FuzzTargets: one function per decoder that reads what a stranger can write.
//
// `tools/fuzz` links them with libFuzzer; FuzzSeedTests runs every seed through them in the ordinary tests. A target
// traps when a decoder breaks a promise; it never judges whether an input is valid.

import Glibc

/// A decoder under test: its name is also the name of its folder of seeds.
package struct FuzzTarget: Sendable {
    package let name: String
    package let run: @Sendable ([UInt8]) -> Void

    /// All of them.
    package static let all: [FuzzTarget] = [
        FuzzTarget(name: "json", run: fuzzJSON),
        FuzzTarget(name: "yaml", run: fuzzYAML),
        FuzzTarget(name: "units", run: fuzzUnits),
        FuzzTarget(name: "arguments", run: fuzzArguments),
        FuzzTarget(name: "control", run: fuzzControl),
        FuzzTarget(name: "rdma-connection", run: fuzzRDMAConnection),
        FuzzTarget(name: "keys", run: fuzzKeys),
        FuzzTarget(name: "nbd", run: fuzzNBD),
        FuzzTarget(name: "nbd-uri", run: fuzzNBDURI),
        FuzzTarget(name: "trace", run: fuzzTrace),
        FuzzTarget(name: "fuse", run: fuzzFuse),
        FuzzTarget(name: "runtime-answers", run: fuzzRuntimeAnswers),
        FuzzTarget(name: "runtime-events", run: fuzzRuntimeEvents),
        FuzzTarget(name: "container-names", run: fuzzContainerNames),
        FuzzTarget(name: "generations", run: fuzzGenerations),
    ]
}

/// The target that `FARMEM_FUZZ_TARGET` names. libFuzzer's process runs one.
private let selected: FuzzTarget = {
    let names = FuzzTarget.all.map(\.name).joined(separator: " ")
    guard let wanted = unsafe getenv("FARMEM_FUZZ_TARGET").map({ unsafe String(cString: $0) }),
        let target = FuzzTarget.all.first(where: { $0.name == wanted })
    else {
        preconditionFailure("set FARMEM_FUZZ_TARGET to one of: \(names)")
    }
    return target
}()

/// libFuzzer's entry point.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    // SAFETY: libFuzzer gives `count` readable bytes for the length of this call; they are copied.
    selected.run(unsafe Array(UnsafeBufferPointer(start: bytes, count: count)))
    return 0
}
