import Containers
import FarMemory
import OffloadPolicy
import Testing

@testable import OffloadEngine

@Suite struct GenerationMarkTests {
    private let name = GenerationListName(group: 7, node: 0)

    /// Generations from `first` on, with these anonymous pages.
    private func list(_ first: UInt64, _ pages: [UInt64]) -> GenerationList {
        GenerationList(
            name: name, path: "/a",
            generations: pages.enumerated().map { index, pages in
                Generation(
                    number: first + UInt64(index), ageMilliseconds: 0, anonymousPages: pages,
                    filePages: 9)
            })
    }

    @Test func aBarrierHoldsWhateverTheKernelAges() {
        var marks = GenerationMarks()
        marks.runtime[name] = .at(3)
        for lists in [list(1, [10, 0, 5, 70]), list(2, [10, 5, 0, 70]), list(3, [15, 0, 0, 70])] {
            marks.note([lists])
            #expect(GenerationMarks.pages(behind: marks.runtime, in: [lists]) == 15)
        }
        #expect(marks.merges == 0)
    }

    @Test func aMergedPucketIsNoticedOnceAndUnknownAfterwards() {
        var marks = GenerationMarks()
        marks.runtime[name] = .at(3)
        marks.note([list(4, [15, 0, 0, 70])])
        marks.note([list(5, [15, 0, 0, 70])])
        #expect(marks.runtime[name] == .merged)
        #expect(marks.merges == 1)
        #expect(GenerationMarks.pages(behind: marks.runtime, in: [list(5, [15])]) == nil)
    }

    @Test func aReleasedPucketIsEmptyAndNotMerged() {
        var marks = GenerationMarks()
        marks.runtime[name] = .released
        marks.note([list(9, [1, 2, 3, 4])])
        #expect(marks.merges == 0)
        #expect(GenerationMarks.pages(behind: marks.runtime, in: [list(9, [1, 2])]) == 0)
    }

    @Test func aGroupThatIsGoneIsForgotten() {
        var marks = GenerationMarks()
        marks.window[name] = .at(3)
        marks.note([])
        #expect(marks.window.isEmpty)
        #expect(marks.merges == 0)
    }
}

@Suite struct EngineSelectionTests {
    @Test func automaticPrefersGenericAndSaysWhy() throws {
        let both = try EngineSelection.choose(.auto, generic: nil, mglru: nil)
        #expect(both.kind == .generic && !both.reason.isEmpty)
        let old = try EngineSelection.choose(.auto, generic: "no pidfd", mglru: nil)
        #expect(old.kind == .mglru && old.reason.contains("no pidfd"))
        #expect(throws: ControllerError.self) {
            try EngineSelection.choose(.auto, generic: "no pidfd", mglru: "off")
        }
    }

    @Test func whatWasAskedForIsUsedOrRefused() throws {
        #expect(try EngineSelection.choose(.mglru, generic: nil, mglru: nil).kind == .mglru)
        #expect(throws: ControllerError.engineUnavailable(.mglru, "off")) {
            try EngineSelection.choose(.mglru, generic: nil, mglru: "off")
        }
    }
}

@Suite struct CensusScheduleTests {
    @Test func everyContainerGetsItsTurnWithinTheTimeThatIsGiven() {
        var schedule = CensusSchedule()
        var measured: [ContainerHandle: Int64] = [:]
        for number in 1...20 { schedule.add(ContainerHandle(UInt64(number))) }
        var now: Int64 = 0
        var busy: Int64 = 0
        while now < 10_000_000_000 {
            let due = schedule.due(at: now) { handle in
                handle.number == 3 ? nil : now - (measured[handle] ?? -100_000_000_000)
            }
            if let due {
                measured[due] = now
                busy += 4_000_000
                schedule.done(at: now, took: 4_000_000)
            }
            now += 100_000_000
        }
        #expect(measured.count == 19, "one is gone")
        #expect(busy * 20 <= now)
    }

    @Test func oneAtATime() {
        var schedule = CensusSchedule()
        schedule.add(ContainerHandle(1))
        schedule.add(ContainerHandle(2))
        #expect(schedule.due(at: 0) { _ in .max } != nil)
        #expect(schedule.due(at: 0) { _ in .max } == nil)
        schedule.done(at: 0, took: 10)
        #expect(schedule.due(at: 100) { _ in .max } == nil, "it rests 19 times as long")
        #expect(schedule.due(at: 190) { _ in .max } == ContainerHandle(2))
    }
}
