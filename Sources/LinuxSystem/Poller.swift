import CLinuxShims
import Glibc

/// Which way a descriptor is watched.
package struct Readiness: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let readable = Readiness(rawValue: 1)
    package static let writable = Readiness(rawValue: 2)
    package static let hangup = Readiness(rawValue: 4)
}

/// epoll. A token names the registration: pack a generation into it when descriptors are recycled.
package struct Poller: ~Copyable, Sendable {
    private let epoll: FileDescriptor

    package init() throws(SystemError) {
        epoll = try FileDescriptor("epoll_create1", fm_epoll_create())
    }

    package func add(_ fd: Int32, _ readiness: Readiness, token: UInt64) throws(SystemError) {
        try check("epoll_ctl(add)") {
            fm_epoll_add(epoll.rawValue, fd, readiness.rawValue, token)
        }
    }

    package func modify(_ fd: Int32, _ readiness: Readiness, token: UInt64) throws(SystemError) {
        try check("epoll_ctl(modify)") {
            fm_epoll_modify(epoll.rawValue, fd, readiness.rawValue, token)
        }
    }

    package func remove(_ fd: Int32) throws(SystemError) {
        try check("epoll_ctl(remove)") { fm_epoll_remove(epoll.rawValue, fd) }
    }

    /// Waits for events and calls `body` for each; `timeout` in milliseconds, -1 waits for ever.
    /// EINTR counts as no event, so that a caller's loop looks at its flags.
    package func wait(
        timeoutMilliseconds: Int32, _ body: (UInt64, Readiness) -> Void
    ) throws(SystemError) {
        let epollNumber = epoll.rawValue
        var failed: Int32 = 0
        unsafe withUnsafeTemporaryAllocation(of: fm_poll_event.self, capacity: 64) { events in
            let count = unsafe fm_epoll_wait(
                epollNumber, events.baseAddress, 64, timeoutMilliseconds)
            if count < 0 {
                failed = errno
                return
            }
            for index in 0..<Int(count) {
                let event = unsafe events[index]
                body(event.token, Readiness(rawValue: event.events))
            }
        }
        if failed != 0 && failed != EINTR { throw SystemError(call: "epoll_wait", code: failed) }
    }
}

/// Waits for one descriptor. True when ready, false when `timeout` (nanoseconds, -1 for ever) passed.
package func waitReady(
    _ fd: Int32, _ readiness: Readiness, timeout: Int64
) throws(SystemError) -> Bool {
    try check("ppoll") { fm_poll_one(fd, readiness.rawValue, timeout) } > 0
}

/// A counter that one thread signals and another polls.
package struct EventSignal: ~Copyable, Sendable {
    package let descriptor: FileDescriptor

    package init() throws(SystemError) { descriptor = try FileDescriptor("eventfd", fm_eventfd()) }

    /// Wakes the waiter. Any thread; never blocks.
    package func signal() { _ = fm_eventfd_signal(descriptor.rawValue) }

    /// Takes all signals at once.
    package func drain() { _ = fm_eventfd_drain(descriptor.rawValue) }
}

/// A monotonic timer to poll.
package struct Timer: ~Copyable, Sendable {
    package let descriptor: FileDescriptor

    package init() throws(SystemError) {
        descriptor = try FileDescriptor("timerfd_create", fm_timerfd())
    }

    /// First expiry after `first` nanoseconds, then every `interval` (0: once). 0, 0 disarms.
    package func arm(first: UInt64, interval: UInt64 = 0) throws(SystemError) {
        try check("timerfd_settime") { fm_timerfd_arm(descriptor.rawValue, first, interval) }
    }

    /// Takes the expiry so that the descriptor is quiet until the next.
    package func drain() { _ = fm_eventfd_drain(descriptor.rawValue) }
}

/// Signals as events. Make it on the first thread before any other starts: threads inherit the mask.
package struct SignalEvents: ~Copyable, Sendable {
    package let descriptor: FileDescriptor

    package init(_ signals: [Int32]) throws(SystemError) {
        let fd = unsafe signals.withUnsafeBufferPointer {
            unsafe fm_signalfd($0.baseAddress, Int32($0.count))
        }
        descriptor = try FileDescriptor("signalfd", fd)
    }

    /// The next pending signal, nil when none is.
    package func next() -> Int32? {
        let signal = fm_signalfd_read(descriptor.rawValue)
        return signal > 0 ? signal : nil
    }
}

/// Writes to closed sockets fail with EPIPE instead of ending the process. Call once at start.
package func ignoreBrokenPipes() { _ = fm_signal_ignore(SIGPIPE) }
