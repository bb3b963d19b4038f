import Containers
import FarMemory
import LinuxSystem
import OffloadPolicy
import TestSupport
import Testing

@testable import OffloadEngine

@Suite struct ColdPageoutTests {
    /// A tree that stands for DAMON's, with so many kdamonds.
    private func tree(kdamonds: Int, pid: Int32, state: String) throws -> TemporaryDirectory {
        let tree = try TemporaryDirectory()
        try replaceFile(tree.file("nr_kdamonds"), with: "\(kdamonds)\n")
        try makeDirectories(tree.file("0"))
        try replaceFile(tree.file("0/pid"), with: "\(pid)\n")
        try replaceFile(tree.file("0/state"), with: "\(state)\n")
        return tree
    }

    @Test func somebodyElsesIsNeverTouched() throws {
        let tree = try tree(kdamonds: 1, pid: 77, state: "on")
        let state = try TemporaryDirectory()
        let damon = ColdPageout(stateDirectory: state.path, root: tree.path)
        #expect(throws: ColdPageoutError.busy(kdamonds: 1)) { try damon.check() }
        // A record of ours with another pid: that one is gone, and this is not it.
        try replaceFile(state.file("damon"), with: "76 1000\n")
        #expect(!damon.recover())
        damon.end()
        #expect(try readSmallText(tree.file("0/state")) == "on\n")
        #expect(try readSmallText(tree.file("nr_kdamonds")) == "1\n")
    }

    @Test func whatAnEarlierRunLeftIsEnded() throws {
        let tree = try tree(kdamonds: 1, pid: 77, state: "on")
        let state = try TemporaryDirectory()
        try replaceFile(state.file("damon"), with: "77 1000\n")
        #expect(ColdPageout(stateDirectory: state.path, root: tree.path).recover())
        #expect(try readSmallText(tree.file("0/state")).hasPrefix("off"))
        #expect(try readSmallText(tree.file("nr_kdamonds")).hasPrefix("0"))
    }

    @Test func oneThatEndedByItselfIsKnownByWhatItWatches() throws {
        let tree = try tree(kdamonds: 1, pid: -1, state: "off")
        let state = try TemporaryDirectory()
        try makeDirectories(tree.file("0/contexts/0/targets/0"))
        try replaceFile(tree.file("0/contexts/0/targets/nr_targets"), with: "1\n")
        try replaceFile(tree.file("0/contexts/0/targets/0/pid_target"), with: "1000\n")
        let damon = ColdPageout(stateDirectory: state.path, root: tree.path)
        try replaceFile(state.file("damon"), with: "77 1001\n")
        #expect(!damon.recover(), "it watches others")
        try replaceFile(state.file("damon"), with: "77 1000\n")
        #expect(damon.recover())
        #expect(try readSmallText(tree.file("nr_kdamonds")).hasPrefix("0"))
    }

    /// What the kernel can watch is in a file of the directory that a kdamond gets; here it is there from the start.
    private func tree(operations: String, filters: Bool) throws -> TemporaryDirectory {
        let tree = try tree(kdamonds: 0, pid: -1, state: "off")
        let context = tree.file("0/contexts/0")
        try makeDirectories("\(context)/schemes/0/ops_filters")
        try replaceFile(tree.file("0/contexts/nr_contexts"), with: "0\n")
        try replaceFile("\(context)/schemes/nr_schemes", with: "0\n")
        try replaceFile("\(context)/avail_operations", with: operations)
        if filters { try replaceFile("\(context)/schemes/0/ops_filters/nr_filters", with: "0\n") }
        return tree
    }

    @Test func aKernelThatCanWatchNoContainerIsRefused() throws {
        let state = try TemporaryDirectory()
        for (operations, filters, isAble) in [
            ("vaddr\nfvaddr\npaddr\n", false, true), ("paddr\n", true, true),
            ("paddr\n", false, false), ("\n", true, false),
        ] {
            let tree = try tree(operations: operations, filters: filters)
            let damon = ColdPageout(stateDirectory: state.path, root: tree.path)
            if isAble {
                try damon.check()
            } else {
                #expect(throws: ColdPageoutError.self) { try damon.check() }
            }
            #expect(try readSmallText(tree.file("nr_kdamonds")).hasPrefix("0"), "left as found")
        }
        let tree = try tree(operations: "paddr\n", filters: false)
        #expect(throws: ColdPageoutError.unable(operations: "paddr")) {
            try ColdPageout(stateDirectory: state.path, root: tree.path).check()
        }
    }

    @Test func aContainerWithoutProcessesLeavesNoDirectory() throws {
        let tree = try tree(operations: "vaddr\n", filters: false)
        let state = try TemporaryDirectory()
        try makeDirectories(tree.file("g"))
        try replaceFile(tree.file("g/cgroup.procs"), with: "")
        let container = EngineContainer(
            handle: ContainerHandle(1), name: "c", function: "f", labels: ContainerSettings(),
            group: try ControlGroups(
                version: .v2, memoryMount: tree.path, processorMount: nil
            ).open("/g"))
        try ColdPageout(stateDirectory: state.path, root: tree.path).start(
            container, ColdRegions())
        #expect(try readSmallText(tree.file("nr_kdamonds")).hasPrefix("0"))
    }

    @Test func memoryIsTheRangesThatAreNotPartsOfOthers() {
        let text = """
            00000000-00000fff : Reserved
            00001000-0009fbff : System RAM
            000a0000-000fffff : PCI Bus 0000:00
            00100000-bfffffff : System RAM
              01000000-01ffffff : Kernel code
              02000000-02ffffff : System RAM
            100000000-63fffffff : System RAM
            zz-1 : System RAM
            5-4 : System RAM
            00000000-00000000 : System RAM
            """
        #expect(
            MemoryRange.parse(text) == [
                MemoryRange(start: 0x1000, end: 0x9fc00),
                MemoryRange(start: 0x10_0000, end: 0xc000_0000),
                MemoryRange(start: 0x1_0000_0000, end: 0x6_4000_0000),
            ])
    }

    /// Of all that is cold in the machine's memory only pages of the containers' groups may leave: filters are asked in turn.
    @Test func onlyPagesOfTheContainersGroupsLeave() throws {
        let mount = try TemporaryDirectory()
        let containers = try ["/functions/b", "/functions/a"].enumerated().map { index, path in
            try makeDirectories(mount.path + path)
            return EngineContainer(
                handle: ContainerHandle(UInt64(index)), name: path, function: "f",
                labels: ContainerSettings(),
                group: try ControlGroups(
                    version: .v1, memoryMount: mount.path, processorMount: nil
                ).open(path))
        }
        let scope = DamonScope(.groups, of: containers)
        let filters = scope.files.filter { $0.name.hasPrefix("schemes/0/ops_filters/") }
            .map { "\($0.name.dropFirst(22))=\($0.text)" }
        #expect(
            filters == [
                "nr_filters=3", "0/type=young", "0/matching=Y", "0/allow=N",
                "1/type=memcg", "1/memcg_path=/functions/a", "1/matching=Y", "1/allow=Y",
                "2/type=memcg", "2/memcg_path=/functions/b", "2/matching=Y", "2/allow=Y",
            ])
        #expect(DamonScope(.groups, of: []).isEmpty)
        #expect(scope == DamonScope(.groups, of: containers.reversed()), "in any order")
    }

    @Test func aKernelWithoutItIsSaid() throws {
        let state = try TemporaryDirectory()
        let damon = ColdPageout(stateDirectory: state.path, root: state.file("nothing"))
        #expect(throws: ColdPageoutError.missing(path: state.file("nothing"))) {
            try damon.check()
        }
    }
}

@Suite struct MaintenanceTests {
    @Test func itIsRefusedWhenLocalMemoryWouldNotSuffice() throws {
        try Controller.requireRoom(far: .mib(100), available: .mib(200), total: .mib(1000))
        #expect(throws: MaintenanceError.self) {
            try Controller.requireRoom(far: .mib(160), available: .mib(200), total: .mib(1000))
        }
    }
}
