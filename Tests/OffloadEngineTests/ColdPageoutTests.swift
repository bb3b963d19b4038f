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
