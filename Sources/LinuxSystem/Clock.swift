import Glibc

/// CLOCK_MONOTONIC in nanoseconds.
@inline(__always)
package func monotonicNow() -> Int64 { clockNow(CLOCK_MONOTONIC) }

/// CLOCK_REALTIME in nanoseconds since 1970.
package func wallClockNow() -> Int64 { clockNow(CLOCK_REALTIME) }

private func clockNow(_ clock: clockid_t) -> Int64 {
    var time = timespec()
    unsafe clock_gettime(clock, &time)
    return Int64(time.tv_sec) &* 1_000_000_000 &+ Int64(time.tv_nsec)
}

/// Sleeps for a length of time, through signals. Control plane and tests only.
package func sleepNanoseconds(_ length: Int64) {
    let deadline = monotonicNow() + max(0, length)
    while true {
        let left = deadline - monotonicNow()
        if left <= 0 { return }
        var wait = timespec(tv_sec: Int(left / 1_000_000_000), tv_nsec: Int(left % 1_000_000_000))
        unsafe nanosleep(&wait, nil)
    }
}
