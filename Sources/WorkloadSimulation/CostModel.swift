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
    /// What ships. The origin says which figures were measured here and which are assumed.
    package static let standard = CostModel(
        origin:
            "built in: swap figures of docs/status.md (memserver over shared memory, 2 processors); sizes and times of functions assumed after FaaSMem's suite, not measured",
        majorFault: .microseconds(17), minorFault: .microseconds(1),
        prefetch: Nanoseconds(3_200), wakeUp: .milliseconds(1),
        profiles: [
            profile(
                "web", quota: 354, runtime: 24, initialization: 80, execution: 4, hot: (300, 60),
                cold: (150, 300), request: 150),
            profile(
                "bert", quota: 1770, runtime: 24, initialization: 560, execution: 20,
                hot: (300, 780), cold: (150, 4000), request: 150),
            profile(
                "graph", quota: 885, runtime: 24, initialization: 140, execution: 8,
                hot: (300, 450), cold: (150, 1500), request: 300),
            profile(
                "float", quota: 177, runtime: 24, initialization: 1, execution: 1, hot: (300, 500),
                cold: (150, 50), request: 300),
            profile(
                "gzip", quota: 177, runtime: 24, initialization: 1, execution: 4, hot: (300, 500),
                cold: (150, 50), request: 400),
            profile(
                "chameleon", quota: 177, runtime: 24, initialization: 12, execution: 17,
                hot: (300, 500), cold: (150, 300), request: 500),
            profile(
                "linpack", quota: 177, runtime: 24, initialization: 28, execution: 16,
                hot: (300, 250), cold: (150, 300), request: 650),
            profile(
                "pyaes", quota: 177, runtime: 24, initialization: 3, execution: 2, hot: (300, 500),
                cold: (150, 80), request: 900),
            profile(
                "json", quota: 177, runtime: 24, initialization: 20, execution: 10, hot: (300, 700),
                cold: (150, 150), request: 1000),
            profile(
                "matmul", quota: 177, runtime: 24, initialization: 28, execution: 24,
                hot: (300, 250), cold: (150, 300), request: 1100),
            profile(
                "image", quota: 177, runtime: 24, initialization: 14, execution: 34,
                hot: (300, 500), cold: (150, 200), request: 1300),
        ])

    private static func profile(
        _ name: String, quota: UInt64, runtime: UInt64, initialization: UInt64, execution: UInt64,
        hot: (runtime: UInt64, initialization: UInt64),
        cold: (runtime: Int64, initialization: Int64), request: Int64
    ) -> FunctionProfile {
        FunctionProfile(
            name: name, quota: .mib(quota), runtime: .mib(runtime),
            initialization: .mib(initialization), execution: .mib(execution),
            runtimeHotPermille: hot.runtime, initializationHotPermille: hot.initialization,
            strayMillionths: 200, shared: .mib(1), runtimeTime: .milliseconds(cold.runtime),
            initializationTime: .milliseconds(cold.initialization),
            requestTime: .milliseconds(request))
    }
}
