import FarMemory
import LinuxSystem
import Synchronization

/// One request that waits for a container.
final class PoolWaiter: Sendable {
    /// What a waiter is woken with.
    enum Grant: Sendable {
        case container(FunctionContainer)
        /// A place became free: start a container.
        case start
        case closed
    }

    private let signal: EventSignal
    private let grant = Mutex<Grant?>(nil)

    init() throws(SystemError) { signal = try EventSignal() }

    func give(_ value: Grant) {
        grant.withLock { $0 = value }
        signal.signal()
    }

    /// Waits for a grant; nil after `timeout`. The caller must then withdraw from the pool.
    func wait(_ timeout: Nanoseconds) throws(SystemError) -> Grant? {
        _ = try waitReady(
            signal.descriptor.rawValue, .readable, timeout: max(0, timeout.nanoseconds))
        return taken()
    }

    func taken() -> Grant? { grant.withLock { $0 } }
}

/// The containers of one function: an idle stack, so that the most recently used is used next and the others age, a bound on how
/// many there are, and a bounded queue of waiters in order of arrival. Any thread.
final class ContainerPool: Sendable {
    enum Admission {
        case container(FunctionContainer)
        /// The caller has a place and is to start a container in it.
        case start
        case wait(PoolWaiter)
        case full
        case closed
    }

    struct Census: Equatable, Sendable {
        var idle = 0
        var living = 0
        var waiting = 0
    }

    private struct Idle {
        let container: FunctionContainer
        let since: Int64
    }

    private struct State {
        var idle: [Idle] = []
        var living = 0
        var waiters: [PoolWaiter] = []
        var isClosed = false
    }

    private let containersMax: Int
    private let waitersMax: Int
    private let state = Mutex(State())

    init(containersMax: Int, waitersMax: Int) {
        self.containersMax = containersMax
        self.waitersMax = waitersMax
    }

    /// Takes the most recently used idle container, or a place for a new one, or queues up.
    func acquire() throws(SystemError) -> Admission {
        // Made outside the lock, and only used when nothing is free.
        let waiter = try PoolWaiter()
        return state.withLock { state in
            if state.isClosed { return .closed }
            if let idle = state.idle.popLast() { return .container(idle.container) }
            if state.living < containersMax {
                state.living += 1
                return .start
            }
            guard state.waiters.count < waitersMax else { return .full }
            state.waiters.append(waiter)
            return .wait(waiter)
        }
    }

    /// Leaves the queue. A grant that came meanwhile is returned and belongs to the caller.
    func withdraw(_ waiter: PoolWaiter) -> PoolWaiter.Grant? {
        state.withLock { state in
            state.waiters.removeAll { $0 === waiter }
            return waiter.taken()
        }
    }

    /// Gives a container back after use, to the first waiter or to the idle stack. False: the pool is closed and the container
    /// is the caller's to remove.
    func release(_ container: FunctionContainer, at now: Int64) -> Bool {
        state.withLock { state in
            if state.isClosed { return false }
            if state.waiters.isEmpty {
                state.idle.append(Idle(container: container, since: now))
            } else {
                state.waiters.removeFirst().give(.container(container))
            }
            return true
        }
    }

    /// A container of this pool is gone, or a start failed: its place is free.
    func forget() {
        state.withLock { state in
            state.living -= 1
            guard !state.waiters.isEmpty, !state.isClosed else { return }
            state.living += 1
            state.waiters.removeFirst().give(.start)
        }
    }

    /// Takes out the containers that are idle for longer than `keepAlive`, or have ended. They still hold their places.
    func takeExpired(keepAlive: Nanoseconds, at now: Int64) -> [FunctionContainer] {
        state.withLock { state in
            var expired: [FunctionContainer] = []
            state.idle.removeAll { idle in
                guard now - idle.since >= keepAlive.nanoseconds || idle.container.hasEnded else {
                    return false
                }
                expired.append(idle.container)
                return true
            }
            return expired
        }
    }

    /// Refuses everything from now on, and hands out the idle containers.
    func close() -> [FunctionContainer] {
        state.withLock { state in
            state.isClosed = true
            for waiter in state.waiters { waiter.give(.closed) }
            state.waiters.removeAll()
            let idle = state.idle.map(\.container)
            state.idle.removeAll()
            return idle
        }
    }

    /// Takes requests again.
    func reopen() { state.withLock { $0.isClosed = false } }

    var census: Census {
        state.withLock {
            Census(idle: $0.idle.count, living: $0.living, waiting: $0.waiters.count)
        }
    }
}
