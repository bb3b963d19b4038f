import FarMemory
import OffloadPolicy

// The model of a container's memory. Its pages are in seven parts: hot and cold pages of the Runtime and the Init Pucket, what requests
// leave behind (hot), and what processes share (hot, and not movable one by one). A request touches all hot pages and a small share of
// the cold ones. Each part counts pages in local memory, in an open window (written out, unmapped, still local) and in far memory;
// drains take cold pages first, as the kernel's order by last use does.

/// A part of a container's pages.
struct PagePart {
    let isHot: Bool
    let scope: PageScope
    var isShared = false
    /// Grown to its full size.
    var total: UInt64 = 0
    /// Of them: unmapped in an open window, and far.
    var waiting: UInt64 = 0
    var far: UInt64 = 0

    var local: UInt64 { total - far }
}

/// What a movement did, in pages.
struct PagesMoved {
    var out: UInt64 = 0
    var released: UInt64 = 0
    var hot: UInt64 = 0
    var isExhausted = false
}

/// What a request found, in pages.
struct PagesTouched {
    var major: UInt64 = 0
    var minor: UInt64 = 0
    var prefetched: UInt64 = 0
}

/// What a container's pages grow to, in pages, and how long it takes to get there.
struct ContainerShape: Equatable {
    var runtimeCold: UInt64
    var runtimeHot: UInt64
    var shared: UInt64
    var initCold: UInt64
    var initHot: UInt64
    var execution: UInt64
    var strayMillionths: UInt64
    var runtimeTime: Int64
    var initializationTime: Int64

    init(_ profile: FunctionProfile) {
        let runtime = profile.runtime.pages.pages
        shared = min(runtime, profile.shared.pages.pages)
        runtimeHot = (runtime - shared) * min(1000, profile.runtimeHotPermille) / 1000
        runtimeCold = runtime - shared - runtimeHot
        let initialization = profile.initialization.pages.pages
        initHot = initialization * min(1000, profile.initializationHotPermille) / 1000
        initCold = initialization - initHot
        execution = profile.execution.pages.pages
        strayMillionths = min(1_000_000, profile.strayMillionths)
        runtimeTime = profile.runtimeTime.nanoseconds
        initializationTime = profile.initializationTime.nanoseconds
    }

    /// The same with all sizes multiplied.
    func scaled(_ factor: Double) -> ContainerShape {
        func scale(_ pages: UInt64) -> UInt64 { UInt64((Double(pages) * factor).rounded()) }
        var scaled = self
        scaled.runtimeCold = scale(runtimeCold)
        scaled.runtimeHot = scale(runtimeHot)
        scaled.shared = scale(shared)
        scaled.initCold = scale(initCold)
        scaled.initHot = scale(initHot)
        scaled.execution = scale(execution)
        return scaled
    }
}

/// One container's pages.
struct ContainerPages {
    let shape: ContainerShape
    private(set) var runtimeCold: PagePart
    private(set) var runtimeHot: PagePart
    private(set) var initCold: PagePart
    private(set) var initHot: PagePart
    private(set) var execution: PagePart
    private(set) var shared: PagePart
    private(set) var refaults: UInt64 = 0

    init(_ shape: ContainerShape) {
        self.shape = shape
        runtimeCold = PagePart(isHot: false, scope: .runtime)
        runtimeHot = PagePart(isHot: true, scope: .runtime)
        initCold = PagePart(isHot: false, scope: .initialization)
        initHot = PagePart(isHot: true, scope: .initialization)
        execution = PagePart(isHot: true, scope: .all)
        shared = PagePart(isHot: true, scope: .all, isShared: true)
    }

    var local: UInt64 {
        runtimeCold.local + runtimeHot.local + initCold.local + initHot.local + execution.local
            + shared.local
    }
    var far: UInt64 {
        runtimeCold.far + runtimeHot.far + initCold.far + initHot.far + execution.far + shared.far
    }
    var total: UInt64 { local + far }

    /// Written out and unmapped in an open window.
    var waiting: UInt64 {
        runtimeCold.waiting + runtimeHot.waiting + initCold.waiting + initHot.waiting
            + execution.waiting
    }

    mutating func runtimeReady() {
        shared.total = shape.shared
        runtimeHot.total = shape.runtimeHot
        runtimeCold.total = shape.runtimeCold
    }

    mutating func initDone() {
        initHot.total = shape.initHot
        initCold.total = shape.initCold
        // Initialization runs on the runtime: what it uses is mapped again.
        runtimeHot.waiting = 0
    }

    /// A request touches the hot pages; what `recall` brought is not faulted.
    mutating func request(recalled: PagesTouched) -> PagesTouched {
        var touched = recalled
        execution.total = shape.execution
        Self.touchAll(&runtimeHot, &touched)
        Self.touchAll(&initHot, &touched)
        Self.touchAll(&execution, &touched)
        Self.touchAll(&shared, &touched)
        stray(&runtimeCold, &touched)
        stray(&initCold, &touched)
        refaults += touched.major
        return touched
    }

    private static func touchAll(_ part: inout PagePart, _ touched: inout PagesTouched) {
        touched.major += part.far
        touched.minor += part.waiting
        part.far = 0
        part.waiting = 0
    }

    private func stray(_ part: inout PagePart, _ touched: inout PagesTouched) {
        let far = part.far * shape.strayMillionths / 1_000_000
        let waiting = part.waiting * shape.strayMillionths / 1_000_000
        touched.major += far
        touched.minor += waiting
        part.far -= far
        part.waiting -= waiting
    }

    /// Reads the working set back: what the last windows found in use.
    mutating func recall() -> PagesTouched {
        var read = PagesTouched()
        for part in [runtimeHot, initHot, execution, shared] { read.prefetched += part.far }
        runtimeHot.far = 0
        initHot.far = 0
        execution.far = 0
        shared.far = 0
        return read
    }

    /// Opens a window over a scope: at most `pages` are written out, and stay local.
    mutating func examine(_ scope: PageScope, _ pages: UInt64) -> PagesMoved {
        var left = pages
        var moved = PagesMoved()
        func mark(_ part: inout PagePart) {
            guard Self.covers(scope, part) else { return }
            let more = min(left, part.local - part.waiting)
            part.waiting += more
            left -= more
            moved.out += more
        }
        mark(&runtimeCold)
        mark(&initCold)
        mark(&runtimeHot)
        mark(&initHot)
        mark(&execution)
        return moved
    }

    /// Closes it: what still waits is far.
    mutating func release(_ scope: PageScope) -> PagesMoved {
        var moved = PagesMoved()
        func leave(_ part: inout PagePart) {
            guard Self.covers(scope, part) else { return }
            moved.released += part.waiting
            if part.isHot { moved.hot += part.local - part.waiting }
            part.far += part.waiting
            part.waiting = 0
        }
        leave(&runtimeCold)
        leave(&initCold)
        leave(&runtimeHot)
        leave(&initHot)
        leave(&execution)
        return moved
    }

    /// Moves at most `pages`, cold ones first. Those of an open window were written already and leave all the same.
    mutating func drain(_ pages: UInt64) -> PagesMoved {
        var left = pages
        var moved = PagesMoved()
        func move(_ part: inout PagePart) {
            let more = min(left, part.local)
            part.far += more
            part.waiting = min(part.waiting, part.local)
            left -= more
            moved.out += more
        }
        move(&runtimeCold)
        move(&initCold)
        move(&execution)
        move(&initHot)
        move(&runtimeHot)
        moved.isExhausted =
            runtimeCold.local + initCold.local + execution.local + initHot.local
            + runtimeHot.local == 0
        return moved
    }

    /// Only what requests do not touch.
    mutating func drainCold(_ pages: UInt64) -> PagesMoved {
        drain(min(pages, runtimeCold.local + initCold.local))
    }

    /// The kernel's own reclaim: it takes shared pages too.
    mutating func reclaim(_ pages: UInt64) -> PagesMoved {
        var moved = drain(pages)
        let more = min(pages - moved.out, shared.local)
        shared.far += more
        moved.out += more
        return moved
    }

    private static func covers(_ scope: PageScope, _ part: PagePart) -> Bool {
        switch scope {
        case .all: !part.isShared
        case .runtime: part.scope == .runtime && !part.isShared
        // The Runtime Pucket's survivors and the Init Pucket.
        case .initialization: part.scope != .all && !part.isShared
        }
    }

    /// As the engine would measure it.
    var measure: ContainerMeasure {
        var measure = ContainerMeasure(
            local: ByteCount(pages: PageCount(local)), far: ByteCount(pages: PageCount(far)),
            anonymous: ByteCount(pages: PageCount(local)), refaults: refaults)
        // Nobody waits for memory in the model: that is the law's best case.
        measure.pressureMillionths = 0
        return measure
    }
}
