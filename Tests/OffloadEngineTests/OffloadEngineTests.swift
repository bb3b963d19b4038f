import Containers
import FarMemory
import JSONText
import LinuxSystem
import OffloadPolicy
import TestSupport
import Testing

@testable import OffloadEngine

@Suite struct JournalTests {
    private let change = KnobChange(
        group: "/farmem/web 1", inode: 7, file: "memory.limit_in_bytes", old: "max", new: "4096")

    @Test func openChangesAreThoseWithoutAnEnd() throws {
        let directory = try TemporaryDirectory()
        let journal = try KnobJournal(path: directory.file("journal"))
        let first = try journal.begin(change)
        _ = try journal.begin(change)
        try journal.end(first)
        let text = try readSmallText(directory.file("journal"))
        #expect(KnobJournal.openChanges(in: text) == [change])
    }

    @Test func aTornLineNeverReachedItsKnob() {
        #expect(KnobJournal.openChanges(in: "begin 1 7 memory.max max 40").isEmpty)
        #expect(KnobJournal.openChanges(in: "").isEmpty)
        #expect(KnobJournal.openChanges(in: "garbage\nend 4\n").isEmpty)
    }

    /// A tree that stands for a control group, with one knob.
    private func tree(limit: String) throws -> (TemporaryDirectory, ControlGroups, UInt64) {
        let tree = try TemporaryDirectory()
        try makeDirectories(tree.file("g"))
        try replaceFile(tree.file("g/memory.high"), with: limit)
        let groups = ControlGroups(version: .v2, memoryMount: tree.path, processorMount: nil)
        return (tree, groups, try groups.open("/g").inode)
    }

    private func leave(_ inode: UInt64, new: String) throws -> TemporaryDirectory {
        let state = try TemporaryDirectory()
        let journal = try KnobJournal(path: state.file("journal"))
        _ = try journal.begin(
            KnobChange(group: "/g", inode: inode, file: "memory.high", old: "max", new: new))
        return state
    }

    @Test func aLimitLeftBehindIsRestored() throws {
        let (tree, groups, inode) = try tree(limit: "4096\n")
        let state = try leave(inode, new: "4096")
        let outcomes = try KnobJournal.restore(path: state.file("journal"), groups: groups)
        #expect(outcomes.count == 1)
        #expect(try readSmallText(tree.file("g/memory.high")).hasPrefix("max"))
        #expect(try readSmallText(state.file("journal")).isEmpty)
    }

    @Test func aLimitThatSomeoneElseSetIsLeftAlone() throws {
        let (tree, groups, inode) = try tree(limit: "8192\n")
        let state = try leave(inode, new: "4096")
        guard
            case .changedSince(_, let now) = try KnobJournal.restore(
                path: state.file("journal"), groups: groups
            ).first
        else {
            Issue.record("it was not left alone")
            return
        }
        #expect(now == "8192")
        #expect(try readSmallText(tree.file("g/memory.high")) == "8192\n")
    }

    @Test func aRecreatedGroupIsNotTouched() throws {
        let (tree, groups, inode) = try tree(limit: "4096\n")
        let state = try leave(inode + 1, new: "4096")
        guard
            case .groupGone = try KnobJournal.restore(path: state.file("journal"), groups: groups)
                .first
        else {
            Issue.record("it was touched")
            return
        }
        #expect(try readSmallText(tree.file("g/memory.high")) == "4096\n")
    }
}

@Suite struct OwnershipTests {
    @Test func aSecondControllerIsRefusedUntilTheFirstIsGone() throws {
        let state = try TemporaryDirectory()
        do {
            let first = try StateOwnership(directory: state.path)
            #expect(throws: ControllerError.alreadyRuns(directory: state.path)) {
                _ = try StateOwnership(directory: state.path)
            }
            _ = first.journalPath
        }
        _ = try StateOwnership(directory: state.path)
    }
}

@Suite struct EventParsingTests {
    private func parse(_ text: String) throws -> [LifecycleEvent] {
        try parseEvents(Array(text.utf8))
    }

    @Test func oneEventOrManyAreTaken() throws {
        let events = try parse(
            """
            [{"event": "container_started", "container": "web-1", "function": "web",
              "cgroup": "/farmem/web-1", "pid": 1234},
             {"event": "request_end", "container": "web-1", "keep_alive_ms": 60000,
              "latency_us": 12}]
            """)
        #expect(events.map(\.kind) == [.containerStarted, .requestEnd])
        #expect(events[0].controlGroup == "/farmem/web-1")
        #expect(events[1].keepAlive == .seconds(60))
        #expect(events[1].latency == .microseconds(12))
        #expect(try parse(#"{"event":"init_done","container":"a"}"#).count == 1)
    }

    @Test(arguments: [
        "", "[1]", "{}", #"{"event":"nonsense","container":"a"}"#,
        #"{"event":"init_done"}"#, #"{"event":"init_done","container":""}"#,
        #"{"event":"container_started","container":"a"}"#,
        #"{"event":"container_started","container":"a","cgroup":"/../etc"}"#,
        #"{"event":"container_started","container":"a","cgroup":"relative"}"#,
        #"{"event":"request_end","container":"a","keep_alive_ms":-1}"#,
        #"{"event":"request_end","container":"a","keep_alive_ms":"soon"}"#,
        #"{"event":"request_end","container":"a","latency_us":-1}"#,
    ])
    func nonsenseIsRefusedWithOneLine(text: String) {
        #expect(throws: EventError.self) { try parse(text) }
    }
}

@Suite struct HostWatchTests {
    @Test func pressureIsAShareOfTheTimeAndUnknownStaysUnknown() {
        var watch = HostWatch()
        var host = HostMemory()
        host.pressureTotal = .seconds(100)
        watch.take(host, at: 1_000_000_000)
        #expect(watch.measure.pressurePermille == nil, "one total is no share")
        host.pressureRecent = 999
        host.pressureTotal = .milliseconds(100_250)
        watch.take(host, at: 2_000_000_000)
        #expect(watch.measure.pressurePermille == 250)
        host.pressureTotal = nil
        watch.take(host, at: 3_000_000_000)
        #expect(watch.measure.pressurePermille == nil)
    }
}

@Suite struct QueueTests {
    @Test func aQueueIsBoundedAndKeepsOrder() throws {
        let queue = try WorkQueue<Int>(capacity: 3)
        #expect((0..<5).map { queue.put($0) } == [true, true, true, false, false])
        #expect(queue.take(timeout: 0) == 0)
        #expect(queue.put(9))
        #expect(queue.takeAll(timeout: 0) == [1, 2, 9])
        #expect(queue.take(timeout: 1_000_000) == nil)
        queue.close()
        #expect(!queue.put(1))
        #expect(queue.isFinished)
    }
}

@Suite struct DecisionLogTests {
    @Test func theLogIsBoundedAndNumbersHaveNoGaps() {
        let log = DecisionLog(capacity: 100)
        for number in 0..<1000 {
            log.append(
                DecisionRecord(
                    sequence: 0, time: 0, container: "c\(number)", function: "f", rule: .semiWarm,
                    action: "drain", reason: ""))
        }
        let records = log.records(after: 990)
        #expect(records.map(\.sequence) == Array(991...1000))
        #expect(log.records(after: 0).count <= 125)
        #expect(log.last == 1000)
    }
}
