import CNetlinkShims
import FarMemory
import TestSupport
import Testing

@testable import SwapDevice

/// What farmem.ko answers. Its answers are made here as the kernel makes them: length, type, value, padded to four bytes.
@Suite struct KernelModuleTests {
    private func attribute(_ type: UInt32, _ value: [UInt8]) -> [UInt8] {
        let length = UInt16(4 + value.count)
        let kind = UInt16(type)
        return [UInt8(length & 255), UInt8(length >> 8), UInt8(kind & 255), UInt8(kind >> 8)]
            + value + [UInt8](repeating: 0, count: (4 - value.count % 4) % 4)
    }

    private func number(_ value: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }

    @Test func anAnswerIsRead() {
        let counters =
            attribute(FARMEM_C_PAGES_READ.rawValue, number(7))
            + attribute(FARMEM_C_WRITE_ERRORS.rawValue, number(1 << 40))
        let bytes =
            attribute(FARMEM_A_NAME.rawValue, Array("far0\0".utf8))
            + attribute(FARMEM_A_DISK.rawValue, Array("farmem12\0".utf8))
            + attribute(FARMEM_A_USED.rawValue, number(8192))
            + attribute(FARMEM_A_AREA.rawValue, Array("/var/pages\0".utf8))
            + attribute(FARMEM_A_OPENERS.rawValue, [1, 0, 0, 0])
            + attribute(FARMEM_A_COUNTERS.rawValue | 0x8000, counters)
            + attribute(4000, [1, 2, 3])
        let status = ModuleStatus(bytes)
        #expect(status.disk == "farmem12")
        #expect(status.area == "/var/pages")
        #expect(status.openers == 1)
        #expect(status.used == ByteCount(8192))
        #expect(status.counter(FARMEM_C_PAGES_READ) == 7)
        #expect(status.counter(FARMEM_C_WRITE_ERRORS) == 1 << 40)
        #expect(status.counter(FARMEM_C_READ_ERRORS) == 0)
    }

    @Test func nonsenseIsPassedOver() {
        let good = attribute(FARMEM_A_DISK.rawValue, Array("farmem1\0".utf8))
        // Longer than the message, shorter than its own head, a number of a wrong size.
        for bad in [[200, 0, 3, 0], [3, 0, 3, 0], attribute(FARMEM_A_USED.rawValue, [1, 2, 3])] {
            let status = ModuleStatus(good + bad)
            #expect(status.disk == "farmem1")
            #expect(status.used == .zero)
        }
        #expect(ModuleStatus([]).disk.isEmpty)
    }

    @Test(arguments: TestSeed.several(100, first: 1, filter: "KernelModuleTests"))
    func anyBytesAreRead(seed: TestSeed) {
        var random = seed.random
        let bytes = (0..<random.below(300)).map { _ in UInt8(random.below(256)) }
        _ = ModuleStatus(bytes)
        // Attributes of small types and lengths, which random bytes seldom are.
        var likely: [UInt8] = []
        for _ in 0..<random.below(20) {
            likely += [UInt8(random.below(24)), 0, UInt8(random.below(16)), 0x80]
            likely += (0..<random.below(20)).map { _ in UInt8(random.below(256)) }
        }
        #expect(ModuleStatus(likely).disk.utf8.count <= 3 * likely.count, "\(seed)")
    }
}
