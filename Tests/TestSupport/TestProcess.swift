import Glibc
package import LinuxSystem

/// Why a program under test could not be started or did not do what a test waits for.
package struct TestProcessError: Error, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}

/// A real program of this package (or any other), started by a test: its output is captured, its readiness is waited
/// for on a descriptor, and it is ended when the owner goes.
package final class TestProcess: @unchecked Sendable {
    // SAFETY of @unchecked: a test uses one process from one thread at a time.

    package let name: String
    package let pid: Int32
    private var child: ChildProcess?
    private var end: ChildEnd = .running
    private let output: TemporaryDirectory
    private var readyEnd: FileDescriptor?

    /// The directory of the built programs: `FARMEM_BIN_DIR`, or where the test bundle lies.
    package static let binaryDirectory: String = {
        if let given = environment("FARMEM_BIN_DIR") { return given }
        // The test bundle is mapped into this process; the programs lie beside it.
        let maps = (try? readSmallText("/proc/self/maps", limit: 16 << 20)) ?? ""
        for line in maps.split(separator: "\n") where line.hasSuffix(".xctest") {
            guard let slash = line.firstIndex(of: "/") else { continue }
            let parts = line[slash...].split(separator: "/").dropLast()
            return "/" + parts.joined(separator: "/")
        }
        return ".build/debug"
    }()

    /// The path of one of this package's programs.
    package static func binary(_ name: String) -> String { "\(binaryDirectory)/\(name)" }

    /// Whether the programs are built (they are a target of their own for `swift test`).
    package static func hasBinary(_ name: String) -> Bool { fileExists(binary(name)) }

    /// Starts a program. A name without a slash is one of this package's. `environment` is added to ours. With `ready`,
    /// `--ready-fd N` is appended, and `waitReady` waits for it.
    package init(
        _ program: String, _ arguments: [String], environment: [String: String] = [:],
        ready: Bool = false, workingOutput: TemporaryDirectory? = nil
    ) throws {
        let path = program.contains("/") ? program : Self.binary(program)
        guard fileExists(path) else {
            throw TestProcessError("\(path) is not built; run: swift build, or set FARMEM_BIN_DIR")
        }
        name = program
        output = try workingOutput ?? TemporaryDirectory()
        let out = try FileDescriptor.open(
            output.file("stdout"), O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
        let err = try FileDescriptor.open(
            output.file("stderr"), O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
        let null = try FileDescriptor.open("/dev/null", O_RDONLY)
        var descriptors: [(ours: Int32, theirs: Int32)] = [
            (null.rawValue, 0), (out.rawValue, 1), (err.rawValue, 2),
        ]
        var arguments = arguments
        var writeEnd: FileDescriptor?
        if ready {
            let ends = try makeSocketPair()
            readyEnd = FileDescriptor(owning: ends.0)
            let theirs = FileDescriptor(owning: ends.1)
            descriptors.append((theirs.rawValue, 3))
            writeEnd = consume theirs
            arguments += ["--ready-fd", "3"]
        }
        var variables = currentEnvironment()
        for (key, value) in environment {
            variables.removeAll { $0.hasPrefix("\(key)=") }
            variables.append("\(key)=\(value)")
        }
        let started = try ChildProcess(
            path, [path] + arguments, environment: variables, descriptors: descriptors)
        pid = started.pid
        child = consume started
        _ = consume writeEnd
    }

    /// Waits until the program says it is ready. Its log is in the error when it does not.
    package func waitReady(seconds: Double = 10) throws {
        guard let descriptor = readyEnd?.rawValue else {
            throw TestProcessError("\(name) was started without ready")
        }
        guard
            try LinuxSystem.waitReady(
                descriptor, .readable, timeout: Int64(seconds * 1e9))
        else {
            throw TestProcessError("\(name) was not ready within \(seconds) s:\n\(standardError)")
        }
        var byte: UInt8 = 0
        // SAFETY: one byte into a variable that lives through the call.
        let got = unsafe read(descriptor, &byte, 1)
        guard got == 1 else {
            throw TestProcessError("\(name) ended before it was ready:\n\(standardError)")
        }
    }

    /// Everything it wrote so far.
    package var standardOutput: String {
        (try? readSmallText(output.file("stdout"), limit: 64 << 20)) ?? ""
    }
    package var standardError: String {
        (try? readSmallText(output.file("stderr"), limit: 64 << 20)) ?? ""
    }

    /// Whether it has not ended, as far as it was waited for.
    package var isRunning: Bool { (try? wait(seconds: 0)) == .running }

    /// Sends a signal; nothing when it has ended.
    package func signal(_ number: Int32) throws(SystemError) {
        if end == .running { try child?.signal(number) }
    }

    /// Waits for its end. `.running` when it did not end in time.
    @discardableResult
    package func wait(seconds: Double = 10) throws(SystemError) -> ChildEnd {
        guard end == .running, child != nil else { return end }
        end = try child?.wait(timeout: Int64(seconds * 1e9)) ?? end
        return end
    }

    /// SIGTERM, then wait; the test decides whether the end is the right one.
    @discardableResult
    package func terminate(seconds: Double = 10) throws(SystemError) -> ChildEnd {
        try signal(SIGTERM)
        return try wait(seconds: seconds)
    }

    /// SIGKILL, then wait.
    @discardableResult
    package func kill(seconds: Double = 10) throws(SystemError) -> ChildEnd {
        try signal(SIGKILL)
        return try wait(seconds: seconds)
    }

    /// Runs a program to its end.
    package static func run(
        _ program: String, _ arguments: [String], environment: [String: String] = [:],
        seconds: Double = 30
    ) throws -> (end: ChildEnd, output: String, error: String) {
        let process = try TestProcess(program, arguments, environment: environment)
        let end = try process.wait(seconds: seconds)
        if end == .running {
            try process.kill()
            throw TestProcessError(
                "\(program) did not end within \(seconds) s:\n\(process.standardError)")
        }
        return (end, process.standardOutput, process.standardError)
    }

    deinit {
        guard end == .running else { return }
        try? child?.signal(SIGKILL)
        _ = try? child?.wait(timeout: 5_000_000_000)
    }
}
