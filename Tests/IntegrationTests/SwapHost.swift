import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

/// A command line that must fail, and its exit status.
struct WrongUse: Sendable {
    let arguments: [String]
    let status: Int32

    init(_ arguments: [String], _ status: Int32) {
        self.arguments = arguments
        self.status = status
    }
}

/// A runtime directory and a lock of its own for tests of swap devices, which are the whole machine's.
final class SwapHost {
    static let needs = Capability.all([.farSwap, .memoryControllerV1])

    let directory: TemporaryDirectory
    let environment: [String: String]
    private let lock: FileDescriptor

    init() throws {
        directory = try TemporaryDirectory(inMemory: true)
        environment = ["FARMEM_RUNTIME_DIR": directory.path]
        try makeDirectories("/run/farmem")
        lock = try FileDescriptor.open("/run/farmem/swap-tests.lock", O_RDWR | O_CREAT)
        _ = try lock.lock(wait: true)
    }

    @discardableResult
    func farswap(_ arguments: String...) throws -> (
        end: ChildEnd, output: String, error: String
    ) {
        try TestProcess.run("farswap", arguments, environment: environment, seconds: 60)
    }

    /// Attaches far memory: a file on tmpfs unless a URL is given.
    func attach(
        _ name: String = "t0", url: String? = nil, size: String = "256MiB", _ more: [String] = []
    ) throws {
        let source = url ?? "dram:\(directory.file("far-\(name)"))"
        let all = ["attach", source, "--size", size, "--name", name, "--priority", "32000"] + more
        let result = try TestProcess.run("farswap", all, environment: environment, seconds: 30)
        try #require(result.end == .exited(0), "\(result.error)")
    }

    func device(_ name: String = "t0") throws -> JSONValue {
        let text = try farswap("status", name, "--json").output
        return try #require(JSONValue.parse(text)["devices"]?.array?.first)
    }

    func bench(_ arguments: String...) throws -> (
        end: ChildEnd, output: String, error: String
    ) {
        try TestProcess.run(
            "farmem", ["bench"] + arguments, environment: environment, seconds: 120)
    }

    /// The environments of the processes that belong to this runtime directory.
    func processes() throws -> [String] {
        try directoryEntries("/proc").filter { Int($0) != nil }.compactMap {
            try? readSmallText("/proc/\($0)/environ")
        }.filter { $0.contains("FARMEM_RUNTIME_DIR=\(directory.path)") }
    }

    /// Runs a farswap command that must fail in one line and leave nothing.
    func expectNothingDone(by use: WrongUse) throws {
        // Not how full they are: another device of this machine may be in use.
        let before = try swapAreas().map(\.path)
        let result = try TestProcess.run(
            "farswap", use.arguments, environment: environment, seconds: 30)
        #expect(result.end == .exited(use.status), "\(result.error)")
        #expect(result.error.split(separator: "\n").count == 1, "\(result.error)")
        #expect(try swapAreas().map(\.path) == before)
        #expect(try processes().isEmpty)
        #expect(((try? directoryEntries(directory.file("swap"))) ?? []).isEmpty)
    }

    /// Whatever a failed test left.
    deinit {
        for name in (try? directoryEntries(directory.file("swap"))) ?? [] {
            _ = try? farswap("detach", name, "--force")
            _ = try? farswap("status", name, "--repair")
        }
    }
}
