package import LinuxSystem

/// Why a swap device could not be attached, changed or taken away. Each says what to do.
package enum SwapDeviceError: Error, Equatable, Sendable {
    /// A swap device of this name exists.
    case nameInUse(String)
    case noSuchDevice(String)
    /// The name cannot be a directory or a lease.
    case badName(String)
    case sizeTooSmall
    case notRoot
    /// The kernel lacks something: which, and how to get it.
    case missingKernelFeature(String)
    /// farmem.ko said no: the errno and its words.
    case refusedByModule(Int32, String)
    /// The data process could not start: its own words and exit status.
    case startFailed(status: Int32, reason: String)
    case startTimedOut
    /// What is in swap would not fit into memory.
    case wouldNotFit(usedBytes: UInt64, availableBytes: UInt64)
    case fallbackUnusable(path: String, SystemError)
    /// What was named as a swap area is none, or cannot be one: why.
    case noSwapArea(path: String, String)
    /// A file of the state directory makes no sense.
    case brokenState(String)
    /// Another farswap command works on this device.
    case busy(String)
    case system(SystemError)

    /// For steps that throw errors of several types: one of its own stays what it is, and what is neither that nor the
    /// kernel's comes from reading a state that makes no sense.
    init(_ error: any Error) {
        self =
            switch error {
            case let error as SwapDeviceError: error
            case let error as SystemError: .system(error)
            default: .brokenState("\(error)")
            }
    }
}

extension SwapDeviceError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .nameInUse(let name):
            "a swap device named '\(name)' exists; detach it or give another --name"
        case .noSuchDevice(let name):
            "there is no swap device named '\(name)'; see farswap status"
        case .badName(let name):
            "'\(name)' is no name; use 1 to 64 of the characters A-Z a-z 0-9 . _ -"
        case .sizeTooSmall: "the size is too small; give at least \(SwapLimits.minimumSize)"
        case .notRoot: "attaching swap needs root; run it with sudo"
        case .missingKernelFeature(let what): what
        case .refusedByModule(let code, let reason):
            reason.isEmpty ? "farmem.ko: \(SystemError(call: "attach", code: code))" : reason
        case .startFailed(_, let reason): reason
        case .startTimedOut:
            "the data process was not ready within \(SwapLimits.startDeadline); is the server overloaded?"
        case .wouldNotFit(let used, let available):
            """
            \(used >> 20) MiB are swapped out and \(available >> 20) MiB of memory are available; \
            free memory first, or use --force
            """
        case .fallbackUnusable(let path, let error):
            "the fallback file \(path) cannot be used (\(error)); give a file on a disk with room for it"
        case .noSwapArea(let path, let why): "\(path) \(why)"
        case .brokenState(let path):
            "\(path) makes no sense; farswap status --repair removes it"
        case .busy(let name): "another farswap command works on '\(name)'; try again"
        case .system(let error): "\(error)"
        }
    }
}
