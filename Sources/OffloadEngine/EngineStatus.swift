package import FarMemory
package import OffloadPolicy

/// A container in a report.
package struct ContainerStatus: Equatable, Sendable {
    package var name: String
    package var function: String
    package var group: String
    package var phase: ContainerPhase
    package var rule: Rule
    package var requests: UInt64
    package var measure: ContainerMeasure?
    package var ledger: MovementLedger
    /// Sizes of the Puckets as noted, of the open window and of the hot pages.
    package var runtime = ByteCount.zero
    package var initialization = ByteCount.zero
    package var waiting = ByteCount.zero
    package var hot = ByteCount.zero
    package var windowIsOpen: Bool
    package var semiWarmDelay: Nanoseconds
    /// When this was put together, on the clock of `SegmentSizes.measuredAt`.
    package var reportedAt: Nanoseconds
}

/// What the engine counts since its start.
package struct EngineCounters: Equatable, Sendable {
    package var events: UInt64 = 0
    package var eventsDropped: UInt64 = 0
    package var eventsOfUnknown: UInt64 = 0
    package var actions: UInt64 = 0
    package var actionsDropped: UInt64 = 0
    package var written = PageCount.zero
    package var released = PageCount.zero
    package var hot = PageCount.zero
    package var recalled = PageCount.zero
    /// File cache that reclaim dropped beside offloaded pages.
    package var fileDropped = ByteCount.zero
    package var halts: UInt64 = 0
    package var restored: UInt64 = 0
    /// Decisions per rule.
    package var byRule: [Rule: UInt64] = [:]
}

/// The engine at one moment, published by the control thread.
package struct EngineStatus: Equatable, Sendable {
    package var engine = EngineSelection(kind: .generic, reason: "")
    package var policy = PolicyKind.farmem
    package var controlGroups = ""
    package var isDryRun = false
    package var startedAt: Int64 = 0
    /// Why all containers rest now, if they do.
    package var pausedBy: Rule?
    package var pressurePermille: UInt64?
    package var farFree: ByteCount?
    package var farTotal: ByteCount?
    /// Everything is to be local: `farmem drain`; and of how many containers it is not yet.
    package var inMaintenance = false
    package var pullBacksLeft = 0
    package var farIsConnected: Bool?
    package var farLatency: Nanoseconds?
    package var counters = EngineCounters()
    package var containers: [ContainerStatus] = []
}
