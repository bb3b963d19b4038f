import FarMemory
import Glibc
import LinuxSystem

/// The first page of a swap area, as mkswap(8) writes it (include/linux/swap.h, union swap_header).
func makeSwapHeader(pages: UInt64, label: String, random: UInt64) -> [UInt8] {
    var page = [UInt8](repeating: 0, count: pageBytes)
    func put32(_ value: UInt32, at offset: Int) {
        for index in 0..<4 {
            page[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index))
        }
    }
    // Boot loaders own the first 1024 bytes. Then: version, last page, bad pages, UUID, label.
    put32(1, at: 1024)
    put32(UInt32(min(pages, UInt64(UInt32.max)) - 1), at: 1028)
    put32(0, at: 1032)
    var generator = SeededRandom(seed: random)
    for index in 0..<16 { page[1036 + index] = UInt8(truncatingIfNeeded: generator.next()) }
    // RFC 4122: a random UUID says so.
    page[1036 + 6] = page[1036 + 6] & 0x0f | 0x40
    page[1036 + 8] = page[1036 + 8] & 0x3f | 0x80
    for (index, byte) in label.utf8.prefix(15).enumerated() { page[1052 + index] = byte }
    for (index, byte) in "SWAPSPACE2".utf8.enumerated() { page[pageBytes - 10 + index] = byte }
    return page
}

/// Writes the header to an open block device and waits until it is there.
func writeSwapHeader(
    to device: borrowing FileDescriptor, size: ByteCount, label: String
) throws(SystemError) {
    let page = makeSwapHeader(
        pages: size.pages.pages, label: label, random: UInt64(bitPattern: wallClockNow()))
    let raw = device.rawValue
    let written = try check("write the swap header") {
        unsafe page.withUnsafeBytes { unsafe pwrite(raw, $0.baseAddress, $0.count, 0) }
    }
    guard written == pageBytes else { throw SystemError(call: "write the swap header", code: EIO) }
    try check("fsync the swap header") { fsync(raw) }
}
