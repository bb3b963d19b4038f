import FarMemory
import Glibc
import LinuxSystem
import TestSupport
import Testing

@Suite struct TestSupportTests {
    @Test(.enabled(if: allocationsAreCounted, "needs allocation counts: no sanitizer"))
    func allocationsAreCountedExactly() {
        _ = allocations { _ = [UInt8](repeating: 1, count: 100).count }
        var sum = 0
        #expect(allocations { for i in 0..<1000 { sum &+= i } } == 0)
        let count = allocations {
            for _ in 0..<10 {
                // SAFETY: allocated and freed at once.
                unsafe UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 8).deallocate()
            }
        }
        #expect(count == 10)
        let aligned = allocations {
            // SAFETY: as above; 4096 goes through posix_memalign.
            unsafe UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 4096).deallocate()
        }
        #expect(aligned == 1)
        #expect(allocationsOfProcess() > 10)
    }

    @Test func allocationsOfOtherThreadsAreNotCounted() throws {
        let count = try allocations {
            let thread = try WorkerThread("allocator") {
                for i in 0..<10_000 { _ = [Int](repeating: i, count: 10 + i % 7) }
            }
            thread.join()
        }
        #expect(count < 100)
    }

    @Test func temporaryDirectoriesGoWithTheirOwner() throws {
        let outside = try TemporaryDirectory()
        try replaceFile(outside.file("keep"), with: "x")
        let path: String
        do {
            let directory = try TemporaryDirectory(inMemory: true)
            path = directory.path
            try makeDirectories(directory.file("a/b"))
            try replaceFile(directory.file("a/b/c"), with: "x")
            #expect(unsafe symlink(outside.path, directory.file("link")) == 0)
            #expect(fileExists(path))
        }
        #expect(!fileExists(path))
        #expect(fileExists(outside.file("keep")))
    }

    @Test func processesAreRunAndTheirOutputIsKept() throws {
        let run = try TestProcess.run(
            "/bin/sh", ["-c", "echo out; echo err >&2; echo $X; exit 3"], environment: ["X": "y z"])
        #expect(run.end == .exited(3))
        #expect(run.output == "out\ny z\n")
        #expect(run.error == "err\n")
    }

    @Test func readinessIsWaitedFor() throws {
        let ready = try TestProcess(
            "/bin/sh", ["-c", "printf 'READY=1\\n' >&3; exec 3>&-; sleep 100", "sh"], ready: true)
        try ready.waitReady()
        #expect(try ready.terminate() == .killed(signal: SIGTERM))
        let dying = try TestProcess(
            "/bin/sh", ["-c", "echo broken >&2; exit 1", "sh"], ready: true)
        #expect { try dying.waitReady() } throws: { "\($0)".contains("broken") }
        let silent = try TestProcess("/bin/sleep", ["100"])
        #expect(throws: TestProcessError.self) { try silent.waitReady(seconds: 0.1) }
    }

    @Test func aProcessEndsWithItsOwner() throws {
        let pid: Int32
        do {
            let process = try TestProcess("/bin/sleep", ["100"])
            pid = process.pid
            #expect(kill(pid, 0) == 0)
        }
        #expect(kill(pid, 0) == -1)
    }

    @Test func aProgramThatIsNotBuiltIsNamed() {
        #expect { try TestProcess("no-such-program", []) } throws: {
            "\($0)".contains("no-such-program is not built")
        }
    }

    @Test func seedsReplay() {
        let seed = TestSeed(42, filter: "Some")
        var a = seed.random
        var b = seed.random
        #expect(a.bytes(100) == b.bytes(100))
        #expect("\(seed)".contains("tools/test --seed 42 --filter Some"))
        #expect(TestSeed.several(3, first: 7, filter: "x").map(\.value).first != nil)
    }

    @Test func capabilitiesSayWhy() {
        #expect(Capability.command("sh").missing == nil)
        let absent = Capability.command("no-such-program-at-all")
        #expect(absent.reason.contains("not installed"))
        #expect(Capability.all([.command("sh"), absent]).missing != nil)
        #expect((Capability.root.missing == nil) == (geteuid() == 0))
    }
}
