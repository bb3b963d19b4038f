import LinuxSystem
import TestSupport
import Testing

@testable import SwapDevice

@Suite struct HostSettingTests {
    private struct Guest {
        let directory: TemporaryDirectory
        let setting: RaisedSetting
        var parameter: String { directory.file("guest_halt_poll_ns") }

        init(_ value: String?) throws {
            directory = try TemporaryDirectory()
            setting = RaisedSetting(
                .haltPoll,
                parameter: directory.file("guest_halt_poll_ns"),
                journal: directory.file("journal"))
            if let value { try replaceFile(parameter, with: value) }
        }
    }

    @Test func theOldLimitIsPutBack() throws {
        let guest = try Guest("0\n")
        try guest.setting.raise(to: 200_000)
        #expect(guest.setting.value() == 200_000)
        try guest.setting.restore()
        #expect(guest.setting.value() == 0)
        #expect(try directoryEntries(guest.directory.path) == ["guest_halt_poll_ns"])
    }

    @Test func twoDevicesRaiseItAndTheFirstValueIsPutBack() throws {
        let guest = try Guest("0\n")
        try guest.setting.raise(to: 200_000)
        try guest.setting.raise(to: 400_000)
        try guest.setting.restore()
        #expect(guest.setting.value() == 0)
    }

    @Test func whatSomebodyElseSetStays() throws {
        let guest = try Guest("0\n")
        try guest.setting.raise(to: 200_000)
        try replaceFile(guest.parameter, with: "50000")
        try guest.setting.restore()
        #expect(guest.setting.value() == 50000)
    }

    @Test func aHigherLimitIsLeftAlone() throws {
        let guest = try Guest("400000")
        try guest.setting.raise(to: 200_000)
        try guest.setting.restore()
        #expect(guest.setting.value() == 400_000)
    }

    @Test func aKernelWithoutItIsNamed() throws {
        let guest = try Guest(nil)
        #expect(throws: SwapDeviceError.self) { try guest.setting.raise(to: 200_000) }
    }
}
