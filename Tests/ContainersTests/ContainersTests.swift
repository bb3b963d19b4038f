import Containers
import FarMemory
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// The captured control group tree of a version.
func fixture(_ version: ControlGroupVersion) -> ControlGroups {
    let tests = #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
    let mount = "/\(tests)/Fixtures/cgroup-\(version.rawValue)"
    return ControlGroups(version: version, memoryMount: mount, processorMount: mount)
}

@Suite struct MemoryGroupTests {
    @Test func version2FiguresAreReadInBytes() throws {
        let group = try fixture(.v2).open("/farmem/web-1")
        let use = try group.use()
        #expect(use.local == ByteCount(136_314_880))
        #expect(use.anonymous == .mib(100))
        #expect(use.file == .mib(20))
        #expect(use.swapCached == .mib(10))
        #expect(use.far == .mib(40), "swap in use, less what is also in memory")
        #expect(use.refaults == 1234)
        #expect(use.majorFaults == 432)
        #expect(group.processorTime() == .milliseconds(2500))
        #expect(group.pressureTotal() == .microseconds(58_761_459))
        #expect(parsePressureAverage(try group.text("memory.pressure")) == 3)
        #expect(try group.processes() == [4711, 4712], "0 is a process of another namespace")
        #expect(try group.limitText() == "max")
    }

    @Test func version1FiguresCountTheGroupsBelow() throws {
        let group = try fixture(.v1).open("/farmem/web-1")
        let use = try group.use()
        #expect(use.local == ByteCount(55_123_968))
        #expect(use.anonymous == ByteCount(48_140_288))
        #expect(use.far == ByteCount(57_970_688))
        #expect(use.swapCached == ByteCount(45_604_864))
        #expect(use.refaults == 57059)
        #expect(try group.processes() == [4711])
    }

    @Test func version1CountersWinOverStatisticsThatLag() throws {
        let tree = try TemporaryDirectory()
        try makeDirectories(tree.file("g"))
        try replaceFile(tree.file("g/memory.stat"), with: "total_swap 4096\n")
        try replaceFile(tree.file("g/memory.usage_in_bytes"), with: "1048576\n")
        let groups = ControlGroups(version: .v1, memoryMount: tree.path, processorMount: nil)
        let group = try groups.open("/g")
        #expect(try group.use().far == .kib(4), "without the controller of swap")
        try replaceFile(tree.file("g/memory.memsw.usage_in_bytes"), with: "3145728\n")
        #expect(try group.use().far == .mib(2))
        try replaceFile(tree.file("g/memory.memsw.usage_in_bytes"), with: "1044480\n")
        #expect(try group.use().far == .zero, "read a moment later")
    }

    @Test func whatTheKernelDoesNotSayIsUnknown() {
        let use = parseMemoryStatistics("anon 4096\nfile 8192\n", version: .v2)
        #expect(use.anonymous == ByteCount(4096))
        #expect(use.far == nil && use.refaults == nil && use.swapCached == nil)
    }

    @Test func aPathMayNotLeaveTheMount() {
        #expect(throws: SystemError.self) { try fixture(.v2).open("/farmem/../../etc") }
        #expect(throws: SystemError.self) { try fixture(.v2).open("farmem") }
    }

    @Test func aRecreatedGroupIsNotTheOldOne() throws {
        let tree = try TemporaryDirectory()
        try makeDirectories(tree.file("g"))
        try replaceFile(tree.file("g/cgroup.procs"), with: "1\n")
        let groups = ControlGroups(version: .v2, memoryMount: tree.path, processorMount: nil)
        let old = try groups.open("/g")
        #expect(old.isCurrent)
        removeTree(tree.file("g"))
        try makeDirectories(tree.file("other"))
        try makeDirectories(tree.file("g"))
        try replaceFile(tree.file("g/cgroup.procs"), with: "2\n")
        #expect(!old.isCurrent)
        #expect(throws: SystemError.self) { try old.processes() }
    }
}

@Suite struct ControlGroupsTests {
    @Test func mountTablesOfBothVersionsAreUnderstood() {
        let hybrid = """
            tmpfs /sys/fs/cgroup tmpfs rw 0 0
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
            """
        #expect(
            ControlGroups.parseMounts(hybrid) { _ in "" }
                == ControlGroups(
                    version: .v1, memoryMount: "/sys/fs/cgroup/memory",
                    processorMount: "/sys/fs/cgroup/cpu,cpuacct"))
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"
        #expect(
            ControlGroups.parseMounts(unified) { _ in "cpu io memory pids\n" }
                == ControlGroups(
                    version: .v2, memoryMount: "/sys/fs/cgroup", processorMount: "/sys/fs/cgroup"))
        #expect(ControlGroups.parseMounts(unified) { _ in "cpu pids\n" } == nil)
        #expect(ControlGroups.parseMounts("") { _ in "memory" } == nil)
    }

    @Test func theGroupOfAProcessIsFound() {
        let text = "9:name=systemd:/\n4:memory:/farmem/web-1\n1:cpu:/\n0::/init.scope\n"
        #expect(parseProcessGroups(text, version: .v1) == "/farmem/web-1")
        #expect(parseProcessGroups(text, version: .v2) == "/init.scope")
        #expect(parseProcessGroups("", version: .v1) == nil)
    }

    @Test func groupsBelowAreListed() throws {
        #expect(try fixture(.v2).groups(below: "/", depth: 3) == ["/farmem", "/farmem/web-1"])
        #expect(try fixture(.v2).groups(below: "/", depth: 1) == ["/farmem"])
    }
}

@Suite struct ProcessTests {
    @Test func areasArePrivateAndWritable() {
        let maps = """
            555500000000-555500010000 r-xp 00000000 fe:00 1 /usr/bin/python3
            555500010000-555500020000 rw-p 00010000 fe:00 1 /usr/bin/python3 (x) y
            7f0000000000-7f0000001000 rw-s 00000000 00:01 2 /dev/shm/a
            7f0000002000-7f0000003000 ---p 00000000 00:00 0
            7f0000004000-7f0000006000 rw-p 00000000 00:00 0
            broken
            """
        #expect(
            parseMemoryAreas(Array(maps.utf8)) == [
                MemoryArea(first: 0x5_5550_0010, end: 0x5_5550_0020),
                MemoryArea(first: 0x7_f000_0004, end: 0x7_f000_0006),
            ])
    }

    @Test func aProcessNameCannotForgeItsIdentity() {
        let stat = "42 (a) R 1 (2) S " + (4...28).map { "\($0)" }.joined(separator: " ")
        #expect(
            ProcessIdentity(pid: 42, stat: stat)
                == ProcessIdentity(pid: 42, startTicks: 22, stackStart: 28))
        #expect(ProcessIdentity(pid: 42, stat: "42 (x") == nil)
        #expect(ProcessIdentity(pid: 42, stat: "42 (a) S 4 5 6") == nil)
    }

    private func state(_ pid: Int32) throws -> Substring? {
        try readSmallText("/proc/\(pid)/stat").split(separator: ")").last?.dropFirst().prefix(1)
    }

    /// A container's first process is the runtime's before it is the container's.
    @Test(.enabled(if: Capability.root.isUsable, "\(Capability.root.reason)"))
    func aProcessThatCalledExecIsAnother() throws {
        let child = try TestProcess("/bin/sh", ["-c", "kill -STOP $$; exec /bin/sleep 60"])
        func name() throws -> String {
            try readSmallText("/proc/\(child.pid)/comm")
        }
        while try state(child.pid) != "T" { usleep(1000) }
        let before = try TargetProcess(pid: child.pid)
        let reader = PageMapReader()
        #expect(try before.census(using: reader).present.pages > 0)
        kill(child.pid, SIGCONT)
        while try name() != "sleep\n" { usleep(1000) }
        #expect(try ProcessIdentity(pid: child.pid) != before.identity)
        #expect(try before.census(using: reader).present.pages == 0, "its address space is gone")
        #expect(try TargetProcess(pid: child.pid).census(using: reader).present.pages > 0)
        try child.kill()
    }

    @Test(.enabled(if: Capability.root.isUsable, "\(Capability.root.reason)"))
    func pagesAreTouchedPastHolesAndUntilTheDeadline() throws {
        let child = try TestProcess("/bin/sleep", ["60"])
        defer { _ = try? child.kill() }
        while try readSmallText("/proc/\(child.pid)/comm") != "sleep\n" || state(child.pid) != "S" {
            usleep(1000)
        }
        let target = try TargetProcess(pid: child.pid)
        let present = try target.census(using: PageMapReader()).present
        #expect(present.pages > 2)
        #expect(target.touch(present) == present.pages)
        #expect(target.touch(present, until: 0) == 0, "the deadline has come")
        var runs = PageRuns()
        runs.append(first: 1, count: 3)
        #expect(target.touch(runs) == 0, "nobody's pages")
        #expect(target.touch(runs.union(present)) == present.pages, "the others are gone on with")
    }

    @Test(.enabled(if: Capability.root.isUsable, "\(Capability.root.reason)"))
    func aProcessThatEndedIsNotActedOn() throws {
        let child = try TestProcess("/bin/sleep", ["60"])
        let target = try TargetProcess(pid: child.pid)
        #expect(target.isAlive)
        #expect(try !target.memoryAreas().isEmpty)
        try child.kill()
        #expect(!target.isAlive)
        var runs = PageRuns()
        runs.append(first: 16, count: 1)
        #expect(throws: SystemError.self) { try target.advise(runs, .pageOut) }
        #expect(throws: SystemError.self) { try TargetProcess(pid: child.pid) }
    }
}

@Suite struct PageRunsTests {
    private func runs(_ pages: Set<UInt64>) -> PageRuns {
        var result = PageRuns()
        for page in pages.sorted() { result.append(first: page, count: 1) }
        return result
    }

    private func set(_ runs: PageRuns) -> Set<UInt64> {
        Set(runs.runs.flatMap { Array($0.first..<$0.end) })
    }

    @Test(arguments: TestSeed.several(30, first: 1, filter: "PageRunsTests"))
    func setsBehaveLikeSets(seed: TestSeed) {
        var random = seed.random
        for _ in 0..<100 {
            let a = Set((0..<random.below(40)).map { _ in UInt64(random.below(64)) })
            let b = Set((0..<random.below(40)).map { _ in UInt64(random.below(64)) })
            #expect(set(runs(a).union(runs(b))) == a.union(b), "\(seed)")
            #expect(set(runs(a).intersection(runs(b))) == a.intersection(b), "\(seed)")
            #expect(set(runs(a).subtracting(runs(b))) == a.subtracting(b), "\(seed)")
            #expect(runs(a).union(runs(b)).pages == UInt64(a.union(b).count), "\(seed)")
            var pieces = PageRuns()
            runs(a).forEachPiece(pages: 3) { piece in
                #expect(piece.pages <= 3)
                pieces = pieces.union(piece)
                return true
            }
            #expect(pieces == runs(a), "\(seed)")
            #expect(set(runs(a).prefix(pages: 5)) == Set(a.sorted().prefix(5)), "\(seed)")
        }
    }
}
