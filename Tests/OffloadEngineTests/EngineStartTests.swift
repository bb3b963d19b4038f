import Containers
import FarMemory
import LinuxSystem
import OffloadPolicy
import Telemetry
import TestSupport
import Testing

@testable import OffloadEngine

/// What the kernel offers when the controller starts is what its mover has.
@Suite(.timeLimit(.minutes(1))) struct EngineStartTests {
    private let tree: TemporaryDirectory
    private var settings = EngineSettings()

    init() throws {
        tree = try TemporaryDirectory()
        try replaceFile(tree.file("lru_gen"), with: "")
        try replaceFile(tree.file("enabled"), with: "0x0007\n")
        settings.stateDirectory = tree.file("state")
        settings.engine = .mglru
    }

    private func controller(_ open: GenerationOpener) throws -> Controller {
        let groups = ControlGroups(version: .v2, memoryMount: tree.path, processorMount: nil)
        return try Controller(
            settings: settings, groups: groups, log: Logger(level: .error), openGenerations: open)
    }

    @Test func generationsThatWereAskedForAndCannotBeHadAreRefused() throws {
        let expected = ControllerError.engineUnavailable(
            .mglru, GenerationError.disabled.description)
        #expect(throws: expected) {
            _ = try controller { () throws(GenerationError) in throw .disabled }
        }
    }

    /// The mover opened them a second time once, and fell back to the generic engine when that failed.
    @Test func generationsThatCanBeOpenedOnlyOnceAreUsed() throws {
        var opened = 0
        let controller = try controller { () throws(GenerationError) in
            opened += 1
            guard opened == 1 else { throw .disabled }
            return try GenerationControl(
                path: tree.file("lru_gen"), enabledPath: tree.file("enabled"))
        }
        let thread = try WorkerThread("control") { try? controller.run() }
        defer {
            controller.stop()
            thread.join()
        }
        #expect(controller.waitUntilRunning(deadline: monotonicNow() + 30_000_000_000))
        // A container's sizes are the mover's answer: generic tells far pages apart, generations do not.
        try makeDirectories(tree.file("g"))
        try replaceFile(
            tree.file("lru_gen"), with: "memcg 5 /g\n node 0\n 1 0 3 0\n 2 0 4 0\n")
        try replaceFile(tree.file("g/cgroup.procs"), with: "")
        try replaceFile(tree.file("g/memory.current"), with: "28672\n")
        try replaceFile(tree.file("g/memory.stat"), with: "anon 28672\n")
        var event = LifecycleEvent(
            kind: .containerStarted, container: "c", controlGroup: "/g")
        event.function = "f"
        #expect(controller.submit(event))
        let deadline = monotonicNow() + 30_000_000_000
        var sizes: SegmentSizes?
        while sizes == nil, monotonicNow() < deadline {
            sleepNanoseconds(5_000_000)
            sizes = controller.status().containers.first?.measure?.segments
        }
        let found = try #require(sizes, "the container was never measured")
        #expect(found.execution.far == nil, "the generic engine ran")
        #expect(opened == 1)
    }
}
