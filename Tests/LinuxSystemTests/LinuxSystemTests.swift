import Glibc
import LinuxSystem
import Testing

// Serialized: a fork in one test would hold a socket of another open for a moment.
@Suite(.serialized) struct LinuxSystemTests {
    @Test func aMissingFileIsATypedError() {
        #expect(throws: SystemError(call: "open /nonexistent/file", code: ENOENT)) {
            _ = try FileDescriptor.open("/nonexistent/file", O_RDONLY).rawValue
        }
    }

    @Test func aSmallFileIsReplacedWhole() throws {
        let path = "/tmp/farmem-test-\(getpid())"
        defer { unsafe unlink(path) }
        try replaceFile(path, with: "first")
        try replaceFile(path, with: "second")
        #expect(try readSmallText(path) == "second")
    }

    @Test func readingPastTheLimitIsRefused() {
        #expect(throws: SystemError(call: "read /proc/self/environ", code: EFBIG)) {
            _ = try readSmallFile("/proc/self/environ", limit: 1)
        }
    }

    @Test func aChildGetsOnlyTheDescriptorsNamed() throws {
        let (ours, theirs) = try makeSocketPair()
        let reader = FileDescriptor(owning: ours)
        let child = try ChildProcess(
            "/bin/sh", ["sh", "-c", "echo hello >&7; ls /proc/self/fd | wc -l >&7"],
            descriptors: [(theirs, 7)])
        close(theirs)
        #expect(try child.wait(timeout: 5_000_000_000) == .exited(0))
        let text = String(decoding: try readAll(reader, limit: 100, named: "pair"), as: UTF8.self)
        // 0, 1, 2, 7 and the directory that ls itself opens.
        #expect(text == "hello\n5\n")
    }

    @Test func aProgramThatDoesNotExistFailsInTheParent() {
        #expect(throws: SystemError(call: "start /nonexistent", code: ENOENT)) {
            _ = try ChildProcess("/nonexistent", ["x"]).pid
        }
    }

    @Test func aRunningChildTimesOutAndIsKilled() throws {
        let child = try ChildProcess("/bin/sleep", ["sleep", "60"])
        #expect(try child.wait(timeout: 1_000_000) == .running)
        try child.signal(SIGKILL)
        #expect(try child.wait(timeout: 5_000_000_000) == .killed(signal: SIGKILL))
    }

    @Test func descriptorsTravelWithBytes() throws {
        let (a, b) = try makeSocketPair()
        let left = FileDescriptor(owning: a)
        let right = FileDescriptor(owning: b)
        let memory = try makeMemoryFile("test", size: 8192, fixedSize: true)
        let message: [UInt8] = [1, 2, 3]
        try unsafe message.withUnsafeBytes {
            try unsafe left.send($0, descriptors: [memory.rawValue])
        }
        var received: [Int32] = []
        var buffer = [UInt8](repeating: 0, count: 16)
        let count = try unsafe buffer.withUnsafeMutableBytes {
            try unsafe right.receive(into: $0, descriptors: &received, maximum: 4)
        }
        #expect(count == 3)
        let copy = FileDescriptor(owning: try #require(received.first))
        #expect(try copy.size() == 8192)
        #expect(throws: SystemError(call: "ftruncate", code: EPERM)) { try copy.truncate(to: 0) }
    }

    @Test func punchingAHoleFreesAndClears() throws {
        let memory = try makeMemoryFile("test", size: 1 << 20, fixedSize: false)
        let map = try MemoryMapping(sharing: memory.rawValue, count: 1 << 20)
        unsafe map.bytes.copyBytes(from: [UInt8](repeating: 7, count: 8192))
        #expect(try memory.allocatedBytes() >= 8192)
        try memory.punchHole(offset: 0, length: 1 << 20)
        #expect(try memory.allocatedBytes() == 0)
        #expect(unsafe map.bytes[5] == 0)
    }

    @Test func aStaleSocketIsReplacedAndALiveOneIsNot() throws {
        let path = "/tmp/farmem-test-\(getpid()).sock"
        defer { unsafe unlink(path) }
        do {
            let first = try listenUnix(path)
            #expect(
                throws: SystemError(call: "listen on unix:\(path)", code: EADDRINUSE)
            ) { _ = try listenUnix(path).rawValue }
            _ = first.rawValue
        }
        let again = try listenUnix(path)
        #expect(again.rawValue >= 0)
    }

    @Test func aSignalWakesThePoller() throws {
        let poller = try Poller()
        let signal = try EventSignal()
        try poller.add(signal.descriptor.rawValue, .readable, token: 42)
        signal.signal()
        var seen: [UInt64] = []
        try poller.wait(timeoutMilliseconds: 1000) { token, _ in seen.append(token) }
        #expect(seen == [42])
    }
}
