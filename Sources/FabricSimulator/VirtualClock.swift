// FabricSimulator: a far memory that misbehaves on purpose, in virtual time, from a seed.
//
// It implements the seam of `Fabric`, so that the code that runs above a real transport runs here unchanged: retries,
// deadlines, fallback. Time passes only while somebody waits; a run is a function of its seed and options alone.
//
// Thread model: one thread. Invariants: the server's memory changes only by stores and discards that were sent, whole
// pages or (when it crashes in the middle) torn ones; a store whose connection is gone is never carried out later,
// unless `SimulatorOptions.fencing` is off, which exists to show that the tests would notice.
// Must not import: Foundation, LinuxSystem (no real clock, no system call).

/// Time that passes only when it is waited for. Events due on the way are run in order.
package final class VirtualClock {
    private struct Event {
        let time: Int64
        let number: UInt64
        let body: () -> Void
    }

    private var moment: Int64 = 1_000_000_000
    private var events: [Event] = []
    private var eventsMade: UInt64 = 0

    package init() {}

    /// Nanoseconds.
    package func now() -> Int64 { moment }

    /// Runs everything that is due until `time` and arrives there.
    package func sleep(until time: Int64) {
        while let next = events.last, next.time <= time {
            events.removeLast()
            moment = max(moment, next.time)
            next.body()
        }
        moment = max(moment, time)
    }

    /// Lets time pass until the condition holds, at most until `limit`. The condition is looked at after each event.
    package func wait(until limit: Int64, for condition: () -> Bool) {
        while !condition() {
            guard let next = events.last, next.time <= limit else {
                moment = max(moment, limit)
                return
            }
            sleep(until: next.time)
        }
    }

    /// Runs `body` at `time`; events of the same time run in the order they were made.
    package func schedule(at time: Int64, _ body: @escaping () -> Void) {
        eventsMade += 1
        let event = Event(time: max(time, moment), number: eventsMade, body: body)
        // Latest first, so that the next event is the last element.
        let index = events.firstIndex {
            ($0.time, $0.number) < (event.time, event.number)
        }
        events.insert(event, at: index ?? events.count)
    }
}
