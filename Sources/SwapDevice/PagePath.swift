// What a swap device does when far memory does not answer. In prose:
//
// A store has a short deadline. It is tried again while the reason is one that passes (no connection,
// a lost answer) and then refused, or written to the fallback: the kernel keeps a page whose store
// failed. A pool that is full does not become empty by waiting: refused at once.
//
// A load has a long deadline and is tried again until then. If the fallback has the page's present
// bytes they are taken after the first failure. Only a load that nobody can serve fails, and it fails as
// a failure: never with other bytes.
//
// Where the present bytes of a page are is recorded after they are there and before the kernel hears
// of it, so that a crash between any two steps leaves a state in which repeating the request is right.

package import Fabric
import FarMemory
package import Glibc

/// Time, so that the same path runs in a simulation.
package protocol PathClock: AnyObject {
    func now() -> Int64
    func sleep(until moment: Int64)
}

/// A local store for pages that far memory refuses.
package protocol FallbackStore: AnyObject {
    func load(_ range: PageRange, into bytes: UnsafeMutableRawPointer) -> Bool
    func store(_ range: PageRange, from bytes: UnsafeRawPointer) -> Bool
    func discard(_ range: PageRange)
}

/// What goes to the fallback.
package enum FallbackMode: String, Sendable {
    /// Only what far memory refuses.
    case refused
    /// Every page, so that pages outlive the memory node.
    case mirror
}

/// The deadlines and the fallback's part.
package struct PathPolicy: Sendable {
    package var storeDeadline: Int64
    package var loadDeadline: Int64
    package var mode: FallbackMode
    package var retryPause: ClosedRange<Int64>

    package init(
        storeDeadline: Int64 = SwapLimits.storeDeadline.nanoseconds,
        loadDeadline: Int64 = SwapLimits.loadDeadline.nanoseconds, mode: FallbackMode = .refused,
        retryPause: ClosedRange<Int64> = SwapLimits.retryPause
    ) {
        self.storeDeadline = storeDeadline
        self.loadDeadline = loadDeadline
        self.mode = mode
        self.retryPause = retryPause
    }
}

/// One worker's way to its pages. Belongs to one thread; allocates nothing after `init`.
@safe package final class PagePath {
    private let channel: any FabricChannel
    private let fallback: (any FallbackStore)?
    private let locations: PageLocations
    private let counters: SwapCounters
    private let clock: any PathClock
    private let policy: PathPolicy

    package init(
        channel: any FabricChannel, fallback: (any FallbackStore)?, locations: PageLocations,
        counters: SwapCounters, clock: any PathClock, policy: PathPolicy
    ) {
        self.channel = channel
        self.fallback = fallback
        unsafe self.locations = unsafe locations
        unsafe self.counters = unsafe counters
        self.clock = clock
        self.policy = policy
    }

    /// Loads pages; the arguments and the answer are those of `FabricChannel.load`.
    package func load(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>
    ) throws(FabricError) -> Int {
        let deadline = clock.now() + policy.loadDeadline
        guard fallback != nil else {
            return unsafe try loadFar(
                range, staging: staging, vectors: vectors, deadline: deadline, tryOnce: false)
        }
        var filled = 0
        var next = range.first
        while next < range.end {
            let run = locationRun(from: next, to: range.end)
            let offset = Int(next - range.first) * pageBytes
            filled += unsafe try loadRun(
                run, staging: staging + offset, vectors: vectors + filled, deadline: deadline)
            next = run.end
        }
        return filled
    }

    /// The longest run from `start` whose pages are in the same places.
    private func locationRun(from start: UInt64, to end: UInt64) -> PageRange {
        let stale = unsafe locations.isFarStale(start)
        let kept = unsafe locations.isInFallback(start)
        var next = start + 1
        while next < end, unsafe locations.isFarStale(next) == stale,
            unsafe locations.isInFallback(next) == kept
        {
            next += 1
        }
        return PageRange(first: start, count: Int(next - start))
    }

    private func loadRun(
        _ run: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>, deadline: Int64
    ) throws(FabricError) -> Int {
        let kept = unsafe locations.isInFallback(run.first)
        if unsafe !locations.isFarStale(run.first) {
            do throws(FabricError) {
                return unsafe try loadFar(
                    run, staging: staging, vectors: vectors, deadline: deadline, tryOnce: kept)
            } catch {
                guard kept else { throw error }
            }
        }
        while true {
            if unsafe fallback?.load(run, into: staging) == true { break }
            unsafe counters.add(.fallbackErrors)
            guard pause(policy.retryPause.upperBound, before: deadline) else {
                throw .deadlinePassed
            }
        }
        unsafe counters.add(.fallbackPagesIn, run.count)
        unsafe vectors[0] = iovec(iov_base: staging, iov_len: run.count * pageBytes)
        return 1
    }

    private func loadFar(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>, deadline: Int64, tryOnce: Bool
    ) throws(FabricError) -> Int {
        var wait = policy.retryPause.lowerBound
        while true {
            // One try gets as long as a store would: an answer that was lost must leave time for another.
            let patience = min(deadline, clock.now() + policy.storeDeadline)
            do throws(FabricError) {
                return unsafe try channel.load(
                    range, staging: staging, vectors: vectors, deadline: patience)
            } catch {
                guard Self.passes(error), !tryOnce, pause(wait, before: deadline) else {
                    throw error
                }
            }
            unsafe counters.add(.retries)
            wait = min(wait * 2, policy.retryPause.upperBound)
        }
    }

    /// Stores pages: far, or in the fallback. An error means that the kernel must keep them.
    package func store(
        _ range: PageRange, from bytes: UnsafeRawPointer
    ) throws(FabricError) {
        guard fallback != nil else {
            return unsafe try storeFar(range, from: bytes)
        }
        let pages = range.first..<range.end
        var mirrored = false
        if policy.mode == .mirror { mirrored = unsafe storeFallback(range, from: bytes) }
        do throws(FabricError) {
            unsafe try storeFar(range, from: bytes)
            unsafe locations.setInFallback(pages, mirrored)
            unsafe locations.setFarStale(pages, false)
        } catch {
            // Far memory may hold old bytes, new ones, or some of each: none of them counts any more.
            let kept = unsafe mirrored || storeFallback(range, from: bytes)
            guard kept else { throw error }
            unsafe locations.setInFallback(pages, true)
            unsafe locations.setFarStale(pages, true)
        }
    }

    private func storeFallback(_ range: PageRange, from bytes: UnsafeRawPointer) -> Bool {
        guard unsafe fallback?.store(range, from: bytes) == true else {
            unsafe counters.add(.fallbackErrors)
            return false
        }
        unsafe counters.add(.fallbackPagesOut, range.count)
        return true
    }

    private func storeFar(_ range: PageRange, from bytes: UnsafeRawPointer) throws(FabricError) {
        let deadline = clock.now() + policy.storeDeadline
        var wait = policy.retryPause.lowerBound
        while true {
            do throws(FabricError) {
                return unsafe try channel.store(range, from: bytes, deadline: deadline)
            } catch {
                guard Self.passes(error), pause(wait, before: deadline) else { throw error }
            }
            unsafe counters.add(.retries)
            wait = min(wait * 2, policy.retryPause.upperBound)
        }
    }

    /// Forgets pages everywhere.
    package func discard(_ range: PageRange) throws(FabricError) {
        if let fallback {
            fallback.discard(range)
            unsafe locations.setInFallback(range.first..<range.end, false)
            unsafe locations.setFarStale(range.first..<range.end, false)
        }
        try channel.discard(range, deadline: clock.now() + policy.storeDeadline)
    }

    /// Whether trying again can help.
    private static func passes(_ error: FabricError) -> Bool {
        switch error {
        case .unreachable, .deadlinePassed, .peerError, .protocolViolation: true
        case .noSpace, .outOfRange, .leaseLost: false
        }
    }

    /// Waits; false when the deadline would pass.
    private func pause(_ length: Int64, before deadline: Int64) -> Bool {
        let until = clock.now() + length
        guard until < deadline else { return false }
        clock.sleep(until: until)
        return true
    }
}
