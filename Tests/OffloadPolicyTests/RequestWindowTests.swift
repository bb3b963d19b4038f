import FarMemory
import Testing

@testable import OffloadPolicy

/// A function whose pages are used once in so many requests, under the window that the policy chose.
private struct PeriodicFunction {
    /// Requests between two uses, and pages that are used so.
    var groups: [(period: Int, pages: UInt64)]

    /// Releases what a window of this length does not see, and watches for 64 requests.
    func watch(_ window: UInt32) -> RefaultWatch {
        // Of pages with a longer period the last use lies evenly anywhere before.
        let gone = groups.filter { $0.period > Int(window) }
        let released = gone.reduce(UInt64(0)) {
            $0 + $1.pages * UInt64($1.period - Int(window)) / UInt64($1.period)
        }
        var watch = RefaultWatch(released: max(released, 1), refaultsBefore: 0, window: window)
        for request in 1...64 {
            let back = gone.reduce(UInt64(0)) {
                let within = min(request, $1.period - Int(window))
                return $0 + $1.pages * UInt64(within) / UInt64($1.period)
            }
            watch.curve.note(min(back, watch.released), after: UInt64(request))
        }
        watch.requests = 64
        return watch
    }
}

@Suite struct WindowChoiceTests {
    private func settle(
        _ choice: inout WindowChoice, _ function: PeriodicFunction, windows: Int
    ) -> [UInt32] {
        (0..<windows).map { _ in
            choice.learn(function.watch(choice.window), permille: 100)
            return choice.window
        }
    }

    @Test func itGrowsAtOnceToWhatTheCurveSays() {
        // A tenth of the memory is used by each request, a third once in so many, the rest never.
        for (period, window) in [(2, 2), (4, 4), (7, 8), (20, 16), (50, 64)] as [(Int, UInt32)] {
            let function = PeriodicFunction(groups: [(1, 1000), (period, 4000), (1_000_000, 6000)])
            var choice = WindowChoice(window: 1)
            choice.learn(function.watch(1), permille: 100)
            #expect(choice.window == window, "period \(period)")
        }
    }

    @Test func aFunctionWithoutLateUsersKeepsTheShortestWindow() {
        var choice = WindowChoice(window: 1)
        #expect(
            settle(&choice, PeriodicFunction(groups: [(1, 5000), (1_000_000, 5000)]), windows: 50)
                .allSatisfy { $0 == 1 })
    }

    @Test func itShrinksWhenBehaviourChanges() {
        var choice = WindowChoice(window: 1)
        _ = settle(
            &choice, PeriodicFunction(groups: [(20, 4000), (1_000_000, 6000)]), windows: 5)
        #expect(choice.window >= 16)
        let after = settle(
            &choice, PeriodicFunction(groups: [(1, 4000), (1_000_000, 6000)]), windows: 40)
        #expect(after.last == 1)
    }

    @Test func triesOfAShorterWindowBecomeRare() {
        let function = PeriodicFunction(groups: [(7, 4000), (1_000_000, 6000)])
        var choice = WindowChoice(window: 1)
        let windows = settle(&choice, function, windows: 2000)
        let short = windows.filter { $0 < 8 }.count
        #expect(short > 1 && short < 40, "\(short) of 2000 windows were too short")
        #expect(windows.suffix(100).filter { $0 == 8 }.count >= 98)
    }

    @Test func itNeverPassesItsMaximum() {
        var choice = WindowChoice(window: 1)
        for _ in 0..<50 {
            var watch = RefaultWatch(released: 1000, refaultsBefore: 0, window: choice.window)
            watch.curve.note(1000, after: 64)
            choice.learn(watch, permille: 100)
        }
        #expect(choice.window == WindowChoice.maximum)
    }

    @Test func fewPagesAndOtherWindowsSayNothing() {
        var choice = WindowChoice(window: 1)
        var few = RefaultWatch(released: 10, refaultsBefore: 0, window: 1)
        few.curve.note(10, after: 1)
        choice.learn(few, permille: 100)
        var other = RefaultWatch(released: 1000, refaultsBefore: 0, window: 4)
        other.curve.note(1000, after: 1)
        choice.learn(other, permille: 100)
        #expect(choice.window == 1)
    }
}

@Suite struct WindowOfAContainerTests {
    /// Windows of a function of whose released pages `back` in a thousand are back after `after` requests.
    private func window(
        back: UInt64, after: UInt64, _ change: (inout PolicySettings) -> Void = { _ in }
    ) -> UInt32? {
        var bench = Bench {
            $0.semiWarmPrior = .seconds(10_000)
            $0.refaultPermille = 200
            change(&$0)
        }
        bench.launch()
        var refaults: UInt64 = 0
        for _ in 0..<4 {
            bench.now += .seconds(700)
            for _ in 0..<130 {
                let decisions = bench.request()
                if actions(decisions).contains(where: { $0.hasPrefix("release") }) {
                    bench.complete(decisions, released: 1000, hot: 10)
                    for request in 1...after {
                        if request == after { refaults += back }
                        bench.measure(local: .mib(100), refaults: refaults)
                        bench.complete(bench.request(), released: 1000, hot: 10)
                    }
                } else {
                    bench.complete(decisions)
                }
            }
        }
        return bench.policy.functions["f"]?.window
    }

    @Test func whatComesBackWidensTheWindow() {
        #expect(window(back: 10, after: 3) == 1)
        #expect((window(back: 250, after: 3) ?? 0) >= 4)
    }

    @Test func whatIsSetStays() {
        #expect(window(back: 250, after: 3) { $0.requestWindow = 2 } == 2)
        #expect(window(back: 250, after: 3) { $0.requestWindows = ["f": 3] } == 3)
    }
}
