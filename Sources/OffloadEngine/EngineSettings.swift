package import FarMemory
package import OffloadPolicy

/// What finds and moves pages. `auto` takes the best that the kernel offers.
package enum EngineChoice: String, CaseIterable, Sendable {
    case auto, generic, mglru
}

/// Every knob of the engine beside those of the policy.
package struct EngineSettings: Equatable, Sendable {
    package var policy = PolicySettings()
    /// How pages are moved.
    package var engine = EngineChoice.auto
    /// What is set for functions by the patterns of their names; later ones come first.
    package var functionRules: [FunctionRule] = []
    /// Where journal and lock live.
    package var stateDirectory = "/run/farmem/offloadd"
    /// How often the policy looks at idle containers.
    package var tickInterval = Nanoseconds.milliseconds(100)
    /// How often each container is measured when nothing happens to it.
    package var measureInterval = Nanoseconds.seconds(1)
    /// How long a recall may go on.
    package var recallDeadline = Nanoseconds.seconds(2)
    /// Decide and log, and move nothing.
    package var isDryRun = false
    /// Patterns (fnmatch) of group paths that are watched without events.
    package var watchPatterns: [String] = []
    /// A watched container is busy above this share of one processor, in thousandths.
    package var busyPermille: UInt64 = 20
    /// And idle when it was not for this long.
    package var quietTime = Nanoseconds.seconds(1)
    /// Where what the policy is told and decides is recorded.
    package var recordPath: String?
    /// For tests of a crash in between: how long a lowered limit is held.
    package var limitHold = Nanoseconds.zero

    package init() {}
}

/// Bounds of the engine.
enum Limits {
    /// Events that wait for the control thread.
    static let inbox = 8192
    /// Page actions that wait for the mover; past it actions are dropped and counted.
    static let actions = 4096
    static let recalls = 1024
    static let containers = 16_384
    static let decisions = 4096
    /// Threads that read back, and how many of them share a container's way back.
    static let recallThreads = 3
    static let recallStreams = 2
    /// Of the mover: nobody waits for pages to leave, and a tenth of a busy processor is enough for it. It is no idle task, as it may hold
    /// the lock of a container's address space. While it reads pages back for `farmem drain`, which waits for them, it has none.
    static let moverNiceness: Int32 = 10
    /// How long the end waits for workers that hang in the kernel.
    static let stopDeadline = Nanoseconds.seconds(5)
    /// Depth of groups below the mount that the watcher looks at.
    static let watchDepth = 5
}
