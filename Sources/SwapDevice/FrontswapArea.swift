import CNetlinkShims
import FarMemory
import Glibc
import LinuxSystem

/// The swap area behind the module's frontend for frontswap. Nothing but swap is ever written over: a disk has to be
/// a swap area already (mkswap), and so has a file that is not empty.
struct FrontswapArea {
    /// Absolute and without links, as /proc/swaps has it.
    let path: String
    private let isDisk: Bool
    private let isNew: Bool

    /// Looks at what is there. Makes a file where there is nothing, empty yet.
    init(_ given: String) throws(SwapDeviceError) {
        let (path, isDisk, isNew) = try Self.inspect(given)
        self.path = path
        self.isDisk = isDisk
        self.isNew = isNew
        do throws(SwapDeviceError) {
            guard !path.utf8.contains(where: { $0 <= 0x20 || $0 == UInt8(ascii: "\\") }) else {
                throw .noSwapArea(path: given, "has spaces or backslashes in its path")
            }
            guard path.utf8.count < Int(FARMEM_PATH_SIZE) else {
                throw .noSwapArea(path: given, "is longer than farmem.ko takes")
            }
        } catch {
            undo()
            throw error
        }
    }

    private static func inspect(
        _ given: String
    ) throws(SwapDeviceError) -> (path: String, isDisk: Bool, isNew: Bool) {
        do {
            let isNew = !fileExists(given)
            // Without waiting: it might be a pipe.
            let file = try FileDescriptor.open(
                given, O_RDWR | O_NONBLOCK | (isNew ? O_CREAT | O_EXCL : 0), mode: 0o600)
            let path = try readLink("/proc/self/fd/\(file.rawValue)")
            var facts = stat()
            let raw = file.rawValue
            try check("stat \(given)") { unsafe fstat(raw, &facts) }
            let kind = facts.st_mode & S_IFMT
            guard kind == S_IFBLK || kind == S_IFREG else {
                throw SwapDeviceError.noSwapArea(path: given, "is neither a disk nor a file")
            }
            let isEmpty = kind == S_IFREG && facts.st_size == 0
            guard try isEmpty || hasSwapHeader(file) else {
                throw SwapDeviceError.noSwapArea(
                    path: given, "holds something else than swap: mkswap it first")
            }
            return (path, kind == S_IFBLK, isNew)
        } catch {
            throw SwapDeviceError(error)
        }
    }

    private static func hasSwapHeader(
        _ file: borrowing FileDescriptor
    ) throws(SystemError) -> Bool {
        var mark = [UInt8](repeating: 0, count: 10)
        let raw = file.rawValue
        let got = try check("read the swap header") {
            unsafe mark.withUnsafeMutableBytes {
                unsafe pread(raw, $0.baseAddress, $0.count, off_t(pageBytes - 10))
            }
        }
        return got == 10 && mark == Array("SWAPSPACE2".utf8)
    }

    /// Makes a file a swap area of that size, all of it allocated: the kernel writes past the file system, and so does
    /// not find the disk full later. A disk stays as it was made.
    func prepare(size: ByteCount, label: String) throws(SystemError) {
        guard !isDisk else { return }
        let file = try FileDescriptor.open(path, O_RDWR)
        try file.truncate(to: size.bytes)
        try file.allocate(offset: 0, length: size.bytes)
        try writeSwapHeader(to: file, size: size, label: label)
    }

    /// Nothing came of it: a file that was made for it goes.
    func undo() {
        if isNew { _ = unsafe unlink(path) }
    }
}
