package import FarMemory

/// One container for as long as the daemon lives: numbers are not used twice.
package struct ContainerHandle: Hashable, Comparable, Sendable {
    package var number: UInt64
    package init(_ number: UInt64) { self.number = number }
    package static func < (a: ContainerHandle, b: ContainerHandle) -> Bool { a.number < b.number }
}

/// The pages that appear between two barriers of a container's life.
package enum Pucket: String, CaseIterable, Sendable {
    /// Until the language runtime is up.
    case runtime
    /// Until the function's code is initialized.
    case initialization = "init"
    /// Since then.
    case execution = "exec"
}

/// Which pages an action is about.
package enum PageScope: String, Equatable, Sendable {
    case runtime
    /// The Runtime Pucket's survivors and the Init Pucket.
    case initialization = "init"
    /// Whatever is in local memory now.
    case all
}

/// What an engine is to do with a container's pages.
package enum Action: Equatable, Sendable {
    /// Note the pages that are new as this Pucket.
    case snapshot(Pucket)
    /// Open a window: write the scope's pages out and unmap them, at most `grant`. They stay in the
    /// swap cache, where a touch brings them back without reading far memory.
    case examine(PageScope, grant: ByteCount)
    /// Close a window: pages of the scope that were not touched leave local memory.
    case release(PageScope)
    /// Move at most `grant` more of an idle container, least recently used first.
    case drain(grant: ByteCount)
    /// Have the kernel reclaim so much from the group, by its own choice of pages.
    case reclaim(ByteCount)
    /// Have DAMON page out cold regions of the container's processes, those that begin later too, until `stopColdPageout` or
    /// `forget`. Reported once when it runs; what it moved is in later measures.
    case startColdPageout(ColdRegions)
    case stopColdPageout
    /// Stop what is under way for this container at once.
    case halt
    /// Read the working set back.
    case recall
    /// Read back all that is far: before maintenance of the far memory.
    case pullBack
    /// Forget the container; it is gone.
    case forget

    /// The word in logs and records.
    package var word: String {
        switch self {
        case .snapshot(let pucket): "note-\(pucket.rawValue)"
        case .examine(let scope, _): "examine-\(scope.rawValue)"
        case .release(let scope): "release-\(scope.rawValue)"
        case .drain: "drain"
        case .reclaim: "reclaim"
        case .startColdPageout: "start-cold-pageout"
        case .stopColdPageout: "stop-cold-pageout"
        case .halt: "halt"
        case .recall: "recall"
        case .pullBack: "pull-back"
        case .forget: "forget"
        }
    }
}

/// Why something was done, or not done.
package enum Rule: String, CaseIterable, Sendable {
    case discovered, request, stopped
    case runtimePucket = "runtime-pucket"
    case initPucket = "init-pucket"
    case rollback
    case semiWarm = "semi-warm"
    case prefetch
    case sharedPages = "shared-pages"
    case floor
    case nothingLeft = "nothing-left"
    /// A label or the configuration says that it is left alone.
    case optedOut = "opted-out"
    case recycleGuard = "recycle-guard"
    case pressure
    case refaults
    /// Requests of the function take longer than those that nothing disturbed.
    case latency
    case farSpace = "far-space"
    case unknownPressure = "unknown-pressure"
    case unknownFarSpace = "unknown-far-space"
    /// Far memory answers too slowly, its link is down, or someone asked for everything back.
    case farLatency = "far-latency"
    case linkDown = "link-down"
    case maintenance
    case budget
    case tmo, damon
    case idleShrink = "idle-shrink"
}

/// An action with its reason, for the engine and for the event log.
package struct Decision: Equatable, Sendable {
    package var container: ContainerHandle
    package var action: Action
    package var rule: Rule
    /// The figures behind it: "idle 12s, p99 of 40 reuses 9.4s".
    package var reason: String
}

/// What the engine measured of a container. Nil: unknown.
package struct ContainerMeasure: Equatable, Sendable {
    package var local: ByteCount
    package var far: ByteCount?
    package var anonymous: ByteCount
    /// File cache charged to the container: local, and never counted as offloaded when it is dropped.
    package var file: ByteCount?
    /// Pages read back from far memory since the container began.
    package var refaults: UInt64?
    /// Total time in which a task of the container waited for memory.
    package var stall: Nanoseconds?
    /// How the anonymous memory divides, as of `measuredAt` in it.
    package var segments: SegmentSizes? {
        get { boxed?.sizes }
        set { boxed = newValue.map(SegmentBox.init) }
    }
    private var boxed: SegmentBox?
    /// Share of the time in which a task of the container waited for memory, over the last seconds, in millionths.
    package var pressureMillionths: UInt64?

    package init(
        local: ByteCount, far: ByteCount?, anonymous: ByteCount, refaults: UInt64?,
        file: ByteCount? = nil, stall: Nanoseconds? = nil, segments: SegmentSizes? = nil
    ) {
        self.local = local
        self.far = far
        self.anonymous = anonymous
        self.refaults = refaults
        self.file = file
        self.stall = stall
        boxed = segments.map(SegmentBox.init)
    }
}

/// Only reports want the segments, and a measure is copied with every event.
private final class SegmentBox: Equatable, Sendable {
    let sizes: SegmentSizes

    init(_ sizes: SegmentSizes) { self.sizes = sizes }

    static func == (a: SegmentBox, b: SegmentBox) -> Bool { a.sizes == b.sizes }
}

/// What came of an action.
package struct ActionReport: Equatable, Sendable {
    package var action: Action
    /// Bytes of a grant that were written out.
    package var written = ByteCount.zero
    /// Bytes of a grant that a later release may write out: an engine that writes at a window's end.
    package var reserved = ByteCount.zero
    /// Bytes that the kernel wrote to swap meanwhile, whoever made it: reclaim from a group writes more than it frees.
    package var sweptOut = ByteCount.zero
    /// File cache that went with them: saved, and not offloaded.
    package var fileDropped = ByteCount.zero
    /// Pages that left, and pages that had been touched in the window.
    package var released = PageCount.zero
    package var hot = PageCount.zero
    /// A halt ended it early.
    package var wasHalted = false
    /// Nothing is left that process_madvise can move.
    package var isExhausted = false
    package var measure: ContainerMeasure?

    package init(action: Action) { self.action = action }
}

package enum ContainerEvent: Equatable, Sendable {
    case started(function: String)
    /// What is set for this container; comes right after it started, and again when it changes.
    case configured(ContainerSettings)
    case runtimeReady
    /// `recycledAt`: when it will be ended if no request comes.
    case initDone(recycledAt: Nanoseconds?)
    case requestStarted
    /// `latency`: how long the request took, when whoever reports it knows.
    case requestEnded(recycledAt: Nanoseconds?, latency: Nanoseconds? = nil)
    case stopped
    case measured(ContainerMeasure)
    case reported(ActionReport)
}

/// What the guards go by. Nil is unknown, and pauses offloading.
package struct HostMeasure: Equatable, Sendable {
    /// Thousandths of the time since the last measure in which a task waited for memory.
    package var pressurePermille: UInt64?
    package var farFree: ByteCount?
    /// Whether far memory answers now; nil when nobody tells (a swap device of another kind).
    package var farIsConnected: Bool?
    /// What a page took lately to come from far memory: the slower end (p99) of the last seconds; nil when unknown.
    package var farLatency: Nanoseconds?
    /// The share of `pressurePermille` in millionths: what there is for containers whose group has no figure of its own.
    package var pressureMillionths: UInt64?

    package init(
        pressurePermille: UInt64?, farFree: ByteCount?, farIsConnected: Bool? = nil,
        farLatency: Nanoseconds? = nil
    ) {
        self.pressurePermille = pressurePermille
        self.farFree = farFree
        self.farIsConnected = farIsConnected
        self.farLatency = farLatency
    }
}

/// Where a container is in its life.
package enum ContainerPhase: String, Sendable {
    case launching, initializing, ready, running, idle
    case semiWarm = "semi-warm"
    case drained
}
