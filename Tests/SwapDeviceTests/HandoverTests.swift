import Fabric
import Glibc
import LinuxSystem
import SwapDevice
import Testing

/// The connection over which a data process leaves the keeper what its successor gets.
@Suite(.serialized) struct HandoverTests {
    private func openDescriptors() throws -> Int { try directoryEntries("/proc/self/fd").count }

    /// Bytes that can be read from a file whose descriptor came through.
    private func text(_ fd: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: 16)
        let got = unsafe pread(fd, &bytes, bytes.count, 0)
        return String(decoding: bytes[..<max(0, got)], as: UTF8.self)
    }

    private func file(_ text: String) throws -> FileDescriptor {
        let fd = try makeMemoryFile("test", size: 0, fixedSize: false)
        try fd.writeAll(text)
        return fd
    }

    @Test func theLastOfSeveralIsKept() throws {
        let ends = try makeMessagePair()
        let data = HandoverSocket(owning: ends.0)
        let keeper = HandoverSocket(owning: ends.1)
        var held: HeldHandover?
        let isOpen1 = keeper.receive(into: &held)
        #expect(isOpen1)
        #expect(held == nil)
        for word in ["one", "two", "three"] {
            let file = try file(word)
            try data.send(Handover(bytes: Array(word.utf8), descriptors: [file.rawValue]))
        }
        let isOpen2 = keeper.receive(into: &held)
        #expect(isOpen2)
        let value = try #require(held?.value)
        #expect(value.bytes == Array("three".utf8))
        #expect(value.descriptors.map(text) == ["three"])
        // Nothing new: it stays.
        let isOpen3 = keeper.receive(into: &held)
        #expect(isOpen3)
        #expect(held?.value == value)
    }

    @Test func whatWasSentBeforeTheEndCounts() throws {
        let ends = try makeMessagePair()
        let keeper = HandoverSocket(owning: ends.1)
        var held: HeldHandover?
        do {
            let data = HandoverSocket(owning: ends.0)
            try data.send(Handover(bytes: [7], descriptors: []))
        }
        let isOpen4 = keeper.receive(into: &held)
        #expect(!isOpen4)
        #expect(held?.value.bytes == [7])
        #expect(throws: SystemError(call: "sendmsg", code: EPIPE)) {
            try keeper.send(Handover(bytes: [1], descriptors: []))
        }
    }

    @Test func whatIsTooLargeIsNotSent() throws {
        let ends = try makeMessagePair()
        let data = HandoverSocket(owning: ends.0)
        let keeper = HandoverSocket(owning: ends.1)
        let long = [UInt8](repeating: 1, count: HandoverSocket.bytesMax + 1)
        for wrong in [
            Handover(bytes: long, descriptors: []),
            Handover(bytes: [1], descriptors: [Int32](repeating: 0, count: 9)),
        ] {
            #expect(throws: SystemError(call: "hand over", code: EMSGSIZE)) {
                try data.send(wrong)
            }
        }
        var held: HeldHandover?
        let isOpen5 = keeper.receive(into: &held)
        #expect(isOpen5)
        #expect(held == nil)
        try data.send(Handover(bytes: Array(long.dropLast()), descriptors: []))
        let isOpen6 = keeper.receive(into: &held)
        #expect(isOpen6)
        #expect(held?.value.bytes.count == HandoverSocket.bytesMax)
    }

    /// As the keeper does it: each time a new pair, the old message to the new end, and a new one from there.
    @Test func aThousandSuccessorsLeakNothing() throws {
        let file = try file("x")
        var held: HeldHandover? = nil
        var before = 0
        for round in 0..<1000 {
            let ends = try makeMessagePair()
            let keeper = HandoverSocket(owning: ends.0)
            let data = HandoverSocket(owning: ends.1)
            if let held { try keeper.send(held.value) }
            var left: HeldHandover?
            if round % 2 == 0 { _ = data.receive(into: &left) }
            if round % 3 != 0 {
                let numbers = [Int32](repeating: file.rawValue, count: 4)
                try data.send(Handover(bytes: [UInt8(round % 256)], descriptors: numbers))
            }
            _ = keeper.receive(into: &held)
            if round == 10 { before = try openDescriptors() }
        }
        // Other tests open some beside this one; what leaks in one case of this leaks hundreds.
        #expect(try openDescriptors() < before + 100)
    }
}
