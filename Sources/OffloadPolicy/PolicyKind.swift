package import FarMemory

/// Which law decides. `offloadd run --policy` names them.
package enum PolicyKind: String, CaseIterable, Sendable {
    /// Puckets, semi-warm, prefetch, guards and one budget.
    case farmem
    /// Nothing ever moves: what the others are measured against.
    case none
    /// The senpai law of TMO (ASPLOS'22): a small share of each container every few seconds, less under pressure.
    case tmo
    /// The kernel's DAMON pages out what nothing accessed for a while.
    case damon
    /// The whole container leaves at once through its group's limit when it is idle past a delay.
    case idleShrink = "idle-shrink"
    /// Puckets and semi-warm with the constants of FaaSMem's artifact (ASPLOS'24).
    case faasmem

    /// Whether the Puckets of containers are noted, examined and released.
    package var hasPuckets: Bool { self == .farmem || self == .faasmem }
}

/// When a window of requests opens and closes.
package enum WindowLaw: String, Sendable {
    /// Opens after the first request and then after the rollback interval, and closes after so many requests. An interval
    /// in which nothing was cold is doubled.
    case spaced
    /// Always open, from initialization on: it closes after so many requests but not sooner than the rollback interval after
    /// the window before it (the first one as soon as it has its requests), and the next one opens at once.
    case continuous
}

/// Constants of the senpai law.
package struct SenpaiSettings: Equatable, Sendable {
    /// Pause between two looks at a container.
    package var interval = Nanoseconds.seconds(6)
    /// Share of the container's memory that is asked for at no pressure, in millionths.
    package var ratioMillionths: UInt64 = 500
    /// Share of the time in which a task waits for memory at which nothing is asked for, in millionths.
    package var pressureMillionths: UInt64 = 1000
    /// Smaller requests are rounded up to this, and what was too much is saved from the next ones.
    package var requestMinimum = PageCount(128)

    package init() {}
}

/// What DAMON is to page out, and how closely it looks.
package struct ColdRegions: Equatable, Sendable {
    /// No access was seen for at least this long.
    package var age = Nanoseconds.seconds(60)
    /// Regions from this size on.
    package var sizeMinimum = ByteCount(UInt64(pageBytes))
    /// DAMON's own defaults.
    package var samplingInterval = Nanoseconds.milliseconds(5)
    package var aggregationInterval = Nanoseconds.milliseconds(100)
    package var updateInterval = Nanoseconds.seconds(1)
    package var regionsMinimum: UInt64 = 10
    package var regionsMaximum: UInt64 = 1000

    package init() {}
}

extension PolicySettings {
    /// The defaults of a policy. Whoever wants an ablation changes them afterwards.
    package init(_ kind: PolicyKind) {
        self.init()
        self.kind = kind
        switch kind {
        case .farmem: break
        case .none, .tmo, .damon, .idleShrink:
            stripToBaseline()
            if kind == .tmo { recycleGuard = .seconds(10) }
            // Older than DAMON's own age, so that a short pause between requests is none.
            if kind == .idleShrink {
                drainsIdle = true
                semiWarmDelay = .seconds(60)
            }
        case .faasmem: takeConstantsOfFaaSMem()
        }
    }

    /// No part of the policy, and no guard of it: what it is measured against has none. Far memory that is full, or
    /// unknown, still stops everything.
    private mutating func stripToBaseline() {
        offloadsRuntime = false
        offloadsInitialization = false
        drainsIdle = false
        prefetch = .off
        usesBudget = false
        pressurePermille = 1000
        refaultPermille = 1000
        latencyPermille = nil
        farReserve = .zero
        recycleGuard = .zero
        wakePermille = 0
        floor = .mib(8)
    }

    /// FaaSMem-core at 247a050: functions_info.yaml, function_info.py, config.py and the drain of container.py.
    private mutating func takeConstantsOfFaaSMem() {
        stripToBaseline()
        offloadsRuntime = true
        offloadsInitialization = true
        drainsIdle = true
        requestWindow = 1
        requestWindows = [
            "bert": 8, "web": 32, "html_server": 32, "graph": 4, "graph_bfs": 4,
        ]
        windowLaw = .continuous
        rollbackInterval = .seconds(10)
        rollbackIntervalMaximum = .seconds(10)
        releaseMinimum = PageCount(64)
        semiWarmDelay = .seconds(120)
        semiWarmMinimum = .zero
        drainRate = .percentPerSecond(1)
        drainStep = .seconds(10)
        floor = .mib(8)
        recycleGuard = .seconds(15)
        recycleMargin = .seconds(5)
    }
}
