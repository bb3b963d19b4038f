import Glibc

/// Reads a whole small file, as /proc and cgroupfs hand them out; at most `limit` bytes.
/// For the control plane: it allocates.
package func readSmallFile(
    _ path: String, limit: Int = 1 << 20
) throws(SystemError) -> [UInt8] {
    let fd = try FileDescriptor.open(path, O_RDONLY)
    return try readAll(fd, limit: limit, named: path)
}

/// Reads a descriptor to its end; EFBIG past `limit` bytes.
package func readAll(
    _ fd: borrowing FileDescriptor, limit: Int, named name: String
) throws(SystemError) -> [UInt8] {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16384)
    while true {
        let raw = fd.rawValue
        let got = try check("read \(name)") {
            unsafe chunk.withUnsafeMutableBytes { unsafe Glibc.read(raw, $0.baseAddress, $0.count) }
        }
        if got == 0 { return bytes }
        guard bytes.count + got <= limit else {
            throw SystemError(call: "read \(name)", code: EFBIG)
        }
        bytes.append(contentsOf: chunk[..<got])
    }
}

/// Reads a whole small file as text (invalid UTF-8 is repaired).
package func readSmallText(_ path: String, limit: Int = 1 << 20) throws(SystemError) -> String {
    String(decoding: try readSmallFile(path, limit: limit), as: UTF8.self)
}

/// Writes to an existing kernel file (cgroupfs, sysfs, /proc) in one write(2).
package func writeKernelFile(_ path: String, _ text: String) throws(SystemError) {
    let fd = try FileDescriptor.open(path, O_WRONLY)
    let bytes = Array(text.utf8)
    let raw = fd.rawValue
    try check("write \(path)") {
        unsafe bytes.withUnsafeBytes { unsafe Glibc.write(raw, $0.baseAddress, $0.count) }
    }
}

/// Replaces a file as a whole: written beside it, synced, renamed. A crash leaves the old or the new.
package func replaceFile(
    _ path: String, with text: String, mode: UInt32 = 0o644
) throws(SystemError) {
    let temporary = "\(path).new"
    let fd = try FileDescriptor.open(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: mode)
    try fd.writeAll(text)
    let raw = fd.rawValue
    try check("fsync \(temporary)") { fsync(raw) }
    try check("rename \(path)") { unsafe rename(temporary, path) }
}

/// Makes a directory and its parents; existing ones are fine.
package func makeDirectories(_ path: String, mode: UInt32 = 0o755) throws(SystemError) {
    var prefix = path.hasPrefix("/") ? "/" : ""
    for part in path.split(separator: "/") {
        prefix += prefix.isEmpty || prefix.hasSuffix("/") ? String(part) : "/\(part)"
        if unsafe mkdir(prefix, mode) != 0 && errno != EEXIST {
            throw SystemError.last("mkdir \(prefix)")
        }
    }
}

/// Whether something exists at the path (links are followed).
package func fileExists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

/// The names in a directory, without "." and "..", sorted.
package func directoryEntries(_ path: String) throws(SystemError) -> [String] {
    guard let directory = unsafe opendir(path) else { throw SystemError.last("opendir \(path)") }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while let entry = unsafe readdir(directory) {
        // SAFETY: d_name is a terminated text inside the entry, valid until the next readdir.
        let name = unsafe withUnsafePointer(to: entry.pointee.d_name) {
            unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) {
                unsafe String(cString: $0)
            }
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
}

/// Where sockets and state live: `/run/farmem`, or what `FARMEM_RUNTIME_DIR` says.
package func runtimeDirectory() -> String {
    environment("FARMEM_RUNTIME_DIR") ?? "/run/farmem"
}

/// A variable of the environment, nil when unset or empty.
package func environment(_ name: String) -> String? {
    guard let value = unsafe getenv(name) else { return nil }
    let text = unsafe String(cString: value)
    return text.isEmpty ? nil : text
}

/// What a symbolic link points to.
package func readLink(_ path: String) throws(SystemError) -> String {
    var buffer = [CChar](repeating: 0, count: 4096)
    let length = try check("readlink \(path)") {
        unsafe buffer.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return -1 }
            return unsafe readlink(path, base, buffer.count)
        }
    }
    return String(decoding: buffer[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
