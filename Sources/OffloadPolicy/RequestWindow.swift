import FarMemory

// The law of the window. When a window closes, what it did not touch leaves. Of those pages it is seen how many are back after the
// next 1, 2, 4 ... requests of the container, all containers of a function together: the refault curve. A window that had been
// k requests longer would have kept what came back within k; what came back later it would have lost just so. So when more
// than the ceiling comes back, the window grows at once to the shortest one whose rest is below the ceiling.
//
// A long window costs memory: cold pages stay for as long as it is open. When a number of windows in a row stayed below the ceiling, half
// the window is tried. If that is too short its curve says so, the window grows again, and the next try comes after twice as
// many windows.

/// How many released pages are back after the next 1, 2, 4, ... 64 requests.
struct RefaultCurve: Equatable, Sendable {
    /// Requests after which a watch ends.
    static let horizon: UInt64 = 64

    private(set) var released: UInt64 = 0
    /// Back after 2^k requests, k from 0 to 6.
    private var back = [UInt64](repeating: 0, count: 7)

    var backInAll: UInt64 { back[6] }

    /// Pages back within so many requests, evenly between the powers of two.
    func backWithin(_ requests: UInt64) -> UInt64 {
        guard requests > 0 else { return 0 }
        let step = 63 - requests.leadingZeroBitCount
        guard step < 6 else { return back[6] }
        let over = requests - (1 << UInt64(step))
        return back[step] + scaled(back[step + 1] - back[step], over, over: 1 << UInt64(step))
    }

    /// Notes the pages that are back after `requests`: those that are back later too are noted later.
    mutating func note(_ pages: UInt64, after requests: UInt64) {
        for step in 0..<7 where requests <= 1 << UInt64(step) {
            back[step] = max(back[step], pages)
        }
        back[6] = max(back[6], pages)
    }

    mutating func add(_ other: RefaultCurve, released pages: UInt64) {
        released += pages
        for step in 0..<7 { back[step] += other.back[step] }
    }

    mutating func fade() {
        released /= 2
        for step in 0..<7 { back[step] /= 2 }
    }
}

/// One container's released pages, watched until they are back or its requests have shown that they stay away.
struct RefaultWatch: Equatable, Sendable {
    let released: UInt64
    let refaultsBefore: UInt64
    /// Requests of the window that released them; nil when it was none of the function's windows.
    let window: UInt32?
    var requests: UInt64 = 0
    var curve = RefaultCurve()

    /// Pages that are back, of a count that may restart.
    func back(_ refaults: UInt64) -> UInt64 {
        refaults >= refaultsBefore ? min(refaults - refaultsBefore, released) : 0
    }
}

/// The request window of one function, as its curve shows it.
struct WindowChoice: Equatable, Sendable {
    static let maximum: UInt32 = 64
    private static let patienceMinimum: UInt32 = 4
    private static let patienceMaximum: UInt32 = 256

    private(set) var window: UInt32
    private var curve = RefaultCurve()
    /// Windows in a row below the ceiling, and how many of them it takes to try a shorter one.
    private var calm: UInt32 = 0
    private var patience = patienceMinimum
    private var isTrial = false

    init(window: UInt32) { self.window = window }

    /// Takes in a watch that is over. `permille` is the ceiling. Few pages say nothing, and so does a window of another length.
    mutating func learn(_ watch: RefaultWatch, permille: UInt64) {
        guard watch.released >= 64, watch.window == window else { return }
        curve.add(watch.curve, released: watch.released)
        let ceiling = scaled(curve.released, permille, over: 1000)
        if curve.backInAll > ceiling {
            grow(ceiling)
        } else {
            calm += 1
            if calm >= patience && window > 1 { tryShorter() }
            // Behaviour changes: what was learned long ago counts less.
            if calm % 8 == 0 { curve.fade() }
        }
    }

    private mutating func grow(_ ceiling: UInt64) {
        var wanted = window
        repeat {
            wanted = min(wanted.nextPowerOfTwo, Self.maximum)
        } while wanted < Self.maximum
            && curve.backInAll - curve.backWithin(UInt64(wanted - window)) > ceiling
        if isTrial { patience = min(patience * 2, Self.patienceMaximum) }
        window = wanted
        restart(trial: false)
    }

    private mutating func tryShorter() {
        window = max(1, window / 2)
        restart(trial: true)
    }

    private mutating func restart(trial: Bool) {
        isTrial = trial
        calm = 0
        curve = RefaultCurve()
    }
}

extension UInt32 {
    fileprivate var nextPowerOfTwo: UInt32 { 1 << (32 - UInt32(leadingZeroBitCount)) }
}

extension PolicyMachine {
    /// A window closed: its pages are watched from now on. Parts of a container (RollbackLaw.swift) say nothing of the function's window: they
    /// are smaller than what the kernel's counts lag by.
    mutating func watchRefaults(
        of report: ActionReport, scope: PageScope, _ container: inout ContainerRecord
    ) {
        endWatch(&container)
        guard let refaults = report.measure?.refaults, report.released.pages > 0,
            container.windowLeft == nil
        else { return }
        container.watch = RefaultWatch(
            released: report.released.pages, refaultsBefore: refaults,
            window: scope == .runtime || container.windowIsSlice ? nil : container.windowLength)
    }

    /// A request of a watched container ended.
    mutating func noteRequestForWatch(_ container: inout ContainerRecord) {
        guard container.watch != nil else { return }
        noteBack(&container)
        container.watch?.requests += 1
        if let requests = container.watch?.requests, requests >= RefaultCurve.horizon {
            endWatch(&container)
        }
    }

    func noteBack(_ container: inout ContainerRecord) {
        guard let watch = container.watch, let refaults = container.measure?.refaults else {
            return
        }
        container.watch?.curve.note(watch.back(refaults), after: watch.requests + 1)
    }

    /// The watch is over, for its pages leave again, are read back on purpose, or have been watched for long enough.
    mutating func endWatch(_ container: inout ContainerRecord) {
        guard let watch = container.watch else { return }
        container.watch = nil
        guard watch.requests > 0 || watch.curve.backInAll > 0, choosesWindow(of: container) else {
            return
        }
        functions.records[container.functionPlace].choice.learn(
            watch, permille: settings.refaultPermille)
    }

    private func choosesWindow(of container: ContainerRecord) -> Bool {
        settings.requestWindow == nil && settings.requestWindows[container.function] == nil
            && (container.settings.requestWindow ?? 0) == 0
    }
}
