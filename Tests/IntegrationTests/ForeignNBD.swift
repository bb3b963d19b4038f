import FarMemory
import Glibc
import JSONText
import LinuxSystem
import TestSupport
import Testing

/// NBD programs that know nothing of Farmem, run by their names on the PATH.
enum ForeignNBD {
    static let tools = Capability.all(
        ["nbdinfo", "nbdcopy", "qemu-img", "qemu-io", "fio", "nbdkit", "nbd-client", "cmp"].map {
            .command($0)
        })

    /// Runs a program to its end, whatever that is.
    static func attempt(
        _ program: String, _ arguments: [String], seconds: Double = 60
    ) throws -> (end: ChildEnd, output: String, error: String) {
        let path = try #require(Capability.path(ofCommand: program), "\(program) is not installed")
        return try TestProcess.run(path, arguments, seconds: seconds)
    }

    /// Runs a program that must succeed; what it printed.
    @discardableResult
    static func run(
        _ program: String, _ arguments: String..., at place: SourceLocation = #_sourceLocation
    ) throws -> String {
        let run = try attempt(program, arguments)
        try #require(
            run.end == .exited(0), "\(program) \(arguments): \(run.output)\(run.error)",
            sourceLocation: place)
        return run.output
    }

    /// qemu-io's commands on one export, one after another. It ends with 1 when a pattern differs.
    static func qemuIO(
        _ uri: String, _ commands: String...
    ) throws -> (end: ChildEnd, output: String, error: String) {
        try attempt(
            "qemu-io", ["-f", "raw", "-d", "unmap"] + commands.flatMap { ["-c", $0] } + [uri])
    }

    /// fio's arguments for random writes whose content can be checked, now or by a later run. In threads: a job in a
    /// process of its own would outlive a fio that a test kills, and poll for its lost server for ever.
    static func fio(
        _ uri: String, seed: UInt64, mebibytes: Int = 8, _ more: String...
    ) -> [String] {
        [
            "--name=run", "--ioengine=nbd", "--uri=\(uri)", "--rw=randwrite", "--bs=4k",
            "--iodepth=16", "--size=\(mebibytes)m", "--randseed=\(seed)", "--verify=crc32c",
            "--verify_fatal=1", "--verify_state_save=0", "--end_fsync=1", "--thread",
        ] + more
    }

    /// A file of random pages, every fourth MiB of it left out.
    static func makeImage(_ path: String, mebibytes: Int, _ random: inout SeededRandom) throws {
        let file = try FileDescriptor.open(path, O_WRONLY | O_CREAT, mode: 0o600)
        for index in 0..<mebibytes where index % 4 != 3 {
            let bytes = random.bytes(1 << 20)
            let offset = off_t(index) << 20
            let written = unsafe bytes.withUnsafeBytes {
                unsafe pwrite(file.rawValue, $0.baseAddress, $0.count, offset)
            }
            try #require(written == bytes.count)
        }
        try file.truncate(to: UInt64(mebibytes) << 20)
    }

    static func sameBytes(_ first: String, _ second: String) throws -> Bool {
        try attempt("cmp", [first, second]).end == .exited(0)
    }
}

extension Memserver {
    /// An export on its unix socket; `account` and `query` are those of the NBD URI standard.
    func uri(_ export: String, tls: Bool = false, account: String = "", query: String = "")
        -> String
    {
        let who = account.isEmpty ? "" : "\(account)@"
        return "nbd\(tls ? "s" : "")+unix://\(who)/\(export)?socket=\(nbdSocket)\(query)"
    }

    func tcpURI(_ export: String) throws -> String { "nbd://127.0.0.1:\(try nbdPort())/\(export)" }

    func lease(_ name: String) throws -> JSONValue? {
        try status()["leases"]?.array?.first { $0["name"]?.string == name }
    }

    /// What a lease holds, in bytes; nil when there is no such lease.
    func stored(_ name: String) throws -> Int64? { try lease(name)?["stored_bytes"]?.integer }
}
