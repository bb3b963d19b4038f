package import FarMemory

/// One function's container, as measured or assumed.
package struct FunctionProfile: Equatable, Sendable {
    package var name: String
    /// What the container is allowed to use: its quota for density.
    package var quota: ByteCount
    /// Sizes of the segments when they are complete.
    package var runtime: ByteCount
    package var initialization: ByteCount
    /// What requests leave behind.
    package var execution: ByteCount
    /// Shares of the segments that requests use, in thousandths.
    package var runtimeHotPermille: UInt64
    package var initializationHotPermille: UInt64
    /// Share of the cold rest that a request touches by the way, in millionths.
    package var strayMillionths: UInt64
    /// What process_madvise cannot move: shared by forks, or not anonymous. A part of the runtime.
    package var shared: ByteCount
    package var runtimeTime: Nanoseconds
    package var initializationTime: Nanoseconds
    /// The order in which trace functions are mapped onto profiles: short ones onto short ones.
    package var requestTime: Nanoseconds

    package init(
        name: String, quota: ByteCount, runtime: ByteCount, initialization: ByteCount,
        execution: ByteCount, runtimeHotPermille: UInt64, initializationHotPermille: UInt64,
        strayMillionths: UInt64, shared: ByteCount, runtimeTime: Nanoseconds,
        initializationTime: Nanoseconds, requestTime: Nanoseconds
    ) {
        self.name = name
        self.quota = quota
        self.runtime = runtime
        self.initialization = initialization
        self.execution = execution
        self.runtimeHotPermille = runtimeHotPermille
        self.initializationHotPermille = initializationHotPermille
        self.strayMillionths = strayMillionths
        self.shared = shared
        self.runtimeTime = runtimeTime
        self.initializationTime = initializationTime
        self.requestTime = requestTime
    }

    package var total: ByteCount { runtime + initialization + execution }
}

/// What moving pages costs.
package struct CostModel: Equatable, Sendable {
    /// Where the figures are from, for the report.
    package var origin: String
    /// A page read back by a fault of the process that needs it.
    package var majorFault: Nanoseconds
    /// A page that was unmapped and is still in the swap cache.
    package var minorFault: Nanoseconds
    /// A page read back ahead of its use.
    package var prefetch: Nanoseconds
    /// What a request to a drained container costs besides its pages.
    package var wakeUp: Nanoseconds
    package var profiles: [FunctionProfile]

    package init(
        origin: String, majorFault: Nanoseconds, minorFault: Nanoseconds, prefetch: Nanoseconds,
        wakeUp: Nanoseconds, profiles: [FunctionProfile]
    ) {
        self.origin = origin
        self.majorFault = majorFault
        self.minorFault = minorFault
        self.prefetch = prefetch
        self.wakeUp = wakeUp
        self.profiles = profiles
    }
}

extension FunctionProfile {
    /// The same proportions with another total, as a trace says.
    func scaled(to wanted: ByteCount) -> FunctionProfile {
        guard wanted > .zero, total > .zero else { return self }
        let factor = Double(wanted.bytes) / Double(total.bytes)
        func scale(_ part: ByteCount) -> ByteCount {
            ByteCount(pages: ByteCount(UInt64(Double(part.bytes) * factor)).pages)
        }
        var scaled = self
        scaled.quota = scale(quota)
        scaled.runtime = scale(runtime)
        scaled.initialization = scale(initialization)
        scaled.execution = scale(execution)
        scaled.shared = scale(shared)
        return scaled
    }
}

extension CostModel {
    /// What ships: sizes and times of docs/functions.md, swap figures of docs/status.md.
    package static let standard = CostModel(
        origin:
            "built in: sizes and times measured by `fngateway describe` (docs/functions.md), swap by `tools/bench swap` and `tools/bench prefetch` (docs/status.md; shared memory, 2 processors); wake-up and stray touches assumed",
        majorFault: .microseconds(17), minorFault: .microseconds(1), prefetch: Nanoseconds(3_215),
        wakeUp: .milliseconds(1),
        profiles: [
            measured("bert", (1770, 14.8, 431.1, 1.0, 421.6), (1260, 70)),
            measured("graph", (885, 14.8, 166.5, 0.3, 158.4), (3428, 257)),
            measured("web", (354, 14.8, 80.6, 0.0, 4.7), (94, 7)),
            measured("float", (177, 14.8, 0.0, 0.0, 1.4), (9, 22)),
            measured("matmul", (177, 14.8, 8.1, 11.3, 13.7), (43, 67)),
            measured("linpack", (177, 14.9, 8.1, 11.0, 6.3), (45, 36)),
            measured("image", (177, 14.8, 3.9, 0.1, 4.8), (163, 88)),
            measured("chameleon", (177, 14.8, 7.2, 2.3, 8.4), (80, 20)),
            measured("pyaes", (177, 14.8, 0.2, 0.2, 2.0), (10, 39)),
            measured("gzip", (177, 14.8, 0.0, 0.2, 2.1), (7, 43)),
            measured("json", (177, 14.8, 6.9, 3.9, 15.3), (152, 65)),
        ])

    /// MiB: limit, Runtime, Init, kept by a request, touched by one; ms: initialization, a request.
    private static func measured(
        _ name: String,
        _ sizes: (
            limit: UInt64, runtime: Double, initialization: Double, kept: Double, touched: Double
        ),
        _ times: (initialization: Int64, request: Int64)
    ) -> FunctionProfile {
        func mebibytes(_ value: Double) -> ByteCount { ByteCount(UInt64(value * 1_048_576)) }
        return FunctionProfile(
            name: name, quota: .mib(sizes.limit), runtime: mebibytes(sizes.runtime),
            initialization: mebibytes(sizes.initialization), kept: mebibytes(sizes.kept),
            touched: mebibytes(sizes.touched), startTime: .milliseconds(150),
            initializationTime: .milliseconds(times.initialization),
            requestTime: .milliseconds(times.request))
    }
}

extension FunctionProfile {
    /// What is measured of a function does not say which segment a request's touches are in. A tenth of the runtime is what the smallest
    /// functions touch, which have nothing else; then what requests keep, then the Init Pucket, then more of the runtime.
    package init(
        name: String, quota: ByteCount, runtime: ByteCount, initialization: ByteCount,
        kept: ByteCount, touched: ByteCount, startTime: Nanoseconds,
        initializationTime: Nanoseconds, requestTime: Nanoseconds
    ) {
        let fromRuntime = min(touched, ByteCount(runtime.bytes / 10))
        let fromInit = min(touched - fromRuntime - kept, initialization)
        let more = min(touched - fromRuntime - kept - fromInit, runtime - fromRuntime)
        func permille(_ part: ByteCount, _ whole: ByteCount) -> UInt64 {
            whole > .zero ? part.bytes * 1000 / whole.bytes : 0
        }
        self.init(
            name: name, quota: quota, runtime: runtime, initialization: initialization,
            execution: kept, runtimeHotPermille: permille(fromRuntime + more, runtime),
            initializationHotPermille: permille(fromInit, initialization), strayMillionths: 200,
            shared: min(runtime, .kib(256)), runtimeTime: startTime,
            initializationTime: initializationTime, requestTime: requestTime)
    }
}
