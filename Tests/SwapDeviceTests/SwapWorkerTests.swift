import Fabric
import FarMemory
import Glibc
import LinuxSystem
import SwapDevice
import Testing

@Suite struct SwapWorkerTests {
    @Test func whatIsWrittenIsReadBack() throws {
        let channel = FaultyChannel()
        let rig = try WorkerRig(channel)
        try rig.kernel.send(rig.kernel.write(page: 7, byte: 42))
        try rig.kernel.send(rig.kernel.read(page: 7))
        rig.kernel.hangUp()
        #expect(try rig.makeWorker().run() == .unmounted)
        let written = try #require(rig.kernel.answer())
        #expect(written.error == 0)
        let read = try #require(rig.kernel.answer())
        #expect(read.error == 0)
        #expect(read.body == [UInt8](repeating: 42, count: pageBytes))
        #expect(unsafe rig.region.slot(worker: 0).received == 0)
    }

    /// Killed before the work: the successor does it.
    @Test func aRequestThatWasReceivedOnlyIsCarriedOutByTheSuccessor() throws {
        let channel = FaultyChannel()
        let rig = try WorkerRig(channel)
        rig.leaveInSlot(rig.kernel.write(page: 3, byte: 9))
        #expect(try rig.makeWorker().finishPredecessorsRequest() == nil)
        #expect(rig.kernel.answer()?.error == 0)
        #expect(channel.memory[3]?.first == 9)
    }

    /// Killed between the answer and forgetting the request, with a store that had failed: the kernel has written a newer
    /// page there meanwhile, which repeating the old store would overwrite.
    @Test func aStoreThatFailedIsNotRepeatedByTheSuccessor() throws {
        let channel = FaultyChannel()
        let rig = try WorkerRig(channel)
        let old = rig.kernel.write(page: 3, byte: 1)
        channel.failures = [.noSpace]
        try rig.kernel.send(old)
        rig.kernel.hangUp()
        _ = try rig.makeWorker().run()
        let failed = try #require(rig.kernel.answer())
        #expect(failed.error == ENOSPC)

        channel.memory[3] = [UInt8](repeating: 2, count: pageBytes)
        rig.leaveInSlot(old)
        #expect(try rig.makeWorker().finishPredecessorsRequest() == nil)
        #expect(channel.memory[3]?.first == 2)
        let again = try #require(rig.kernel.answer())
        #expect(again.unique == failed.unique)
        #expect(again.error == ENOSPC)
    }

    @Test func aDiscardThatWasDoneIsNotRepeatedByTheSuccessor() throws {
        let channel = FaultyChannel()
        let rig = try WorkerRig(channel)
        let punch = rig.kernel.punchHole(page: 5)
        try rig.kernel.send(punch)
        rig.kernel.hangUp()
        _ = try rig.makeWorker().run()
        #expect(rig.kernel.answer()?.error == 0)

        channel.memory[5] = [UInt8](repeating: 6, count: pageBytes)
        rig.leaveInSlot(punch)
        _ = try rig.makeWorker().finishPredecessorsRequest()
        #expect(channel.memory[5]?.first == 6)
    }

    /// An answer that cannot be given must not be forgotten: somebody waits for it.
    @Test func aRequestThatCouldNotBeAnsweredStaysForTheSuccessor() throws {
        let channel = FaultyChannel()
        let rig = try WorkerRig(channel)
        signal(SIGPIPE, SIG_IGN)
        let request = rig.kernel.write(page: 4, byte: 8)
        rig.leaveInSlot(request)
        rig.kernel.breakAnswers()
        #expect(try rig.makeWorker().finishPredecessorsRequest() == .failed(EPIPE))
        #expect(unsafe rig.region.slot(worker: 0).received != 0)
        #expect(unsafe rig.region.slot(worker: 0).executed == rig.region.slot(worker: 0).received)
    }
}
