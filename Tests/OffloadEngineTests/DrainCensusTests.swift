import Containers
import FarMemory
import Glibc
import LinuxSystem
import OffloadPolicy
import TestSupport
import Testing

@testable import OffloadEngine

/// Reading a process's page map is what an action costs when it moves nothing.
@Suite(.enabled(if: Capability.root.isUsable, "\(Capability.root.reason)")) struct DrainCensusTests
{
    @Test func aDrainReadsAProcessOnlyWhereSomethingIsMarked() throws {
        let tree = try TemporaryDirectory()
        try makeDirectories(tree.file("g"))
        let process = try TestProcess("/bin/sleep", ["600"])
        defer { _ = try? process.kill() }
        try replaceFile(tree.file("g/cgroup.procs"), with: "\(process.pid)\n")
        try replaceFile(tree.file("g/memory.current"), with: "1048576\n")
        try replaceFile(tree.file("g/memory.swap.current"), with: "0\n")
        try replaceFile(tree.file("g/memory.stat"), with: "anon 1048576\n")
        let groups = ControlGroups(version: .v2, memoryMount: tree.path, processorMount: nil)
        let container = EngineContainer(
            handle: ContainerHandle(1), name: "c", function: "f", labels: ContainerSettings(),
            group: try groups.open("/g"))
        let mover = PageMover(reclaimer: nil, isDryRun: false)
        func drain() -> UInt64 {
            let before = mover.reader.censuses
            _ = mover.perform(.drain(grant: .zero), on: container, epoch: container.epoch)
            return mover.reader.censuses - before
        }
        #expect(drain() == 1, "the working set, once in an episode")
        #expect(drain() == 0)
        let target = try #require(container.processes().first)
        let pages = try target.census(using: mover.reader).present
        container.update(target) { $0.marked = pages.prefix(pages: 1) }
        #expect(drain() > 0, "a marked page may wait to be freed")
    }
}
