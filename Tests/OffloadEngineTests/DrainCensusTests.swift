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
    /// A container of one process.
    private func container(of process: TestProcess, in tree: TemporaryDirectory) throws
        -> EngineContainer
    {
        try makeDirectories(tree.file("g"))
        try replaceFile(tree.file("g/cgroup.procs"), with: "\(process.pid)\n")
        try replaceFile(tree.file("g/memory.current"), with: "1048576\n")
        try replaceFile(tree.file("g/memory.swap.current"), with: "0\n")
        try replaceFile(tree.file("g/memory.stat"), with: "anon 1048576\n")
        let groups = ControlGroups(version: .v2, memoryMount: tree.path, processorMount: nil)
        return EngineContainer(
            handle: ContainerHandle(1), name: "c", function: "f", labels: ContainerSettings(),
            group: try groups.open("/g"))
    }

    @Test func aDrainReadsAProcessOnlyWhereSomethingIsMarked() throws {
        let tree = try TemporaryDirectory()
        let process = try TestProcess("/bin/sleep", ["600"])
        defer { _ = try? process.kill() }
        let container = try container(of: process, in: tree)
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

    /// What an idle process goes on using is not waited for: there would be no end.
    @Test func aDrainEndsWithWhatAnIdleProcessUses() throws {
        let tree = try TemporaryDirectory()
        let process = try TestProcess("/bin/sleep", ["600"])
        defer { _ = try? process.kill() }
        let container = try container(of: process, in: tree)
        let mover = PageMover(reclaimer: nil, isDryRun: false)
        let target = try #require(container.processes().first)
        let present = try target.census(using: mover.reader).present
        for (marked, isExhausted) in [
            (PageMover.usedWhenIdle, true), (PageMover.usedWhenIdle + 1, false),
        ] {
            container.update(target) { $0.marked = present.prefix(pages: marked) }
            let report = mover.perform(
                .drain(grant: .zero), on: container, epoch: container.epoch)
            #expect(report.isExhausted == isExhausted, "\(marked) pages")
        }
    }

    /// The sizes of segments are measured anew where requests or actions may have changed them, and not in a request's way.
    @Test func aContainerThatIsLeftAloneIsSeldomMeasured() throws {
        let tree = try TemporaryDirectory()
        let process = try TestProcess("/bin/sleep", ["600"])
        defer { _ = try? process.kill() }
        let container = try container(of: process, in: tree)
        let mover = PageMover(reclaimer: nil, isDryRun: false)
        func take() { container.noteSizes { mover.segments(of: container) } }
        let now = monotonicNow() + 10_000_000_000
        #expect(container.censusAge(at: now) == .max, "never measured")
        take()
        #expect(container.censusAge(at: now) == 0)
        #expect(container.censusAge(at: now + 60_000_000_000) > 60_000_000_000)
        container.noteRequest(begins: true)
        #expect(container.censusAge(at: now) == 0, "a request runs")
        container.noteRequest(begins: false)
        #expect(container.censusAge(at: now) > 9_000_000_000)
        take()
        #expect(container.censusAge(at: now) == 0)
        _ = mover.perform(.drain(grant: .zero), on: container, epoch: container.epoch)
        #expect(container.censusAge(at: now) > 9_000_000_000)
    }

    /// An examination of a part goes on where the last one ended, and around.
    @Test func partsFollowOneAnother() throws {
        let tree = try TemporaryDirectory()
        let process = try TestProcess("/bin/sleep", ["600"])
        defer { _ = try? process.kill() }
        let container = try container(of: process, in: tree)
        let mover = PageMover(reclaimer: nil, isDryRun: false)
        let target = try #require(container.processes().first)
        let all = try target.census(using: mover.reader).present
        let part = all.pages / 3
        try #require(part > 4)
        func examine() -> PageRuns {
            // With swap the last part has left.
            _ = target.touch(all)
            container.update(target) { $0.marked = PageRuns() }
            _ = mover.perform(
                .examine(.all, grant: ByteCount(pages: PageCount(part))), on: container,
                epoch: container.epoch)
            return container.pages(of: target).marked
        }
        let (first, second, third) = (examine(), examine(), examine())
        #expect(first.pages == part && second.pages == part)
        #expect(first.intersection(second).isEmpty && second.intersection(third).isEmpty)
        let fourth = examine()
        #expect(fourth.intersection(first).isEmpty == false, "around")
        #expect(all.subtracting(first.union(second).union(third).union(fourth)).pages <= part / 2)
    }
}
