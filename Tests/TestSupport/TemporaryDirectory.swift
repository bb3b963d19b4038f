import Glibc
package import LinuxSystem

/// A fresh directory that is removed with everything in it when the owner goes. Links are removed, not followed, and
/// other file systems are not entered.
package final class TemporaryDirectory: Sendable {
    package let path: String

    /// Under `$TMPDIR` or /tmp; `inMemory` puts it on /dev/shm (tmpfs), where pools live.
    package init(inMemory: Bool = false) throws(SystemError) {
        let parent = inMemory ? "/dev/shm" : environment("TMPDIR") ?? "/tmp"
        var template = Array("\(parent)/farmem-test-XXXXXX".utf8CString)
        // SAFETY: a terminated, writable template, as mkdtemp wants it.
        let made = unsafe template.withUnsafeMutableBufferPointer { buffer -> String? in
            guard let base = buffer.baseAddress, let result = unsafe mkdtemp(base) else {
                return nil
            }
            return unsafe String(cString: result)
        }
        guard let made else { throw SystemError.last("mkdtemp in \(parent)") }
        path = made
    }

    /// The path of a file in it.
    package func file(_ name: String) -> String { "\(path)/\(name)" }

    deinit { removeTree(path) }
}

/// Removes a tree without following links; what cannot be removed stays.
package func removeTree(_ path: String) {
    if unsafe unlink(path) == 0 || errno == ENOENT { return }
    for name in (try? directoryEntries(path)) ?? [] { removeTree("\(path)/\(name)") }
    _ = unsafe rmdir(path)
}
