import CSwapShims
import FarMemory

/// What one worker counted. Lives in shared memory: it survives the data process, and any process
/// that maps the region may read it. Recording is one relaxed add.
@unsafe package struct SwapCounters {
    /// One counter a cause: each failure that the kernel sees has its own.
    package enum Counter: Int, CaseIterable, Sendable {
        case loads, stores, discards, pagesIn, pagesOut, pagesDiscarded
        /// Requests of any other kind.
        case otherRequests
        /// Carried out, or only answered, in place of a predecessor.
        case replayed, replayAnswered
        /// Stores that failed towards the kernel, by cause: the page stayed local.
        case storeNoSpace, storeUnreachable, storeDeadline, storePeerError, storeOther
        /// Loads that failed towards the kernel: a process died of it.
        case loadFailed
        /// Loads and stores that were tried again.
        case retries
        case fallbackPagesOut, fallbackPagesIn, fallbackErrors
        case malformedRequests

        /// The name in metrics and reports.
        package var name: String {
            var text = ""
            for character in "\(self)" {
                text += character.isUppercase ? "_\(character.lowercased())" : String(character)
            }
            return text
        }
    }

    package static let histogramBuckets = 64
    private static let loadHistogram = 64
    private static let storeHistogram = 128

    private let words: UnsafeMutablePointer<UInt64>

    init(words: UnsafeMutablePointer<UInt64>) { unsafe self.words = unsafe words }

    package func add(_ counter: Counter, _ amount: Int = 1) {
        unsafe fm_add_relaxed(words + counter.rawValue, UInt64(amount))
    }

    package func value(_ counter: Counter) -> UInt64 {
        unsafe fm_load_acquire(words + counter.rawValue)
    }

    /// How long a load took from receipt to answer; bucket n counts [2^n, 2^(n+1)) nanoseconds.
    package func recordLoad(nanoseconds: Int64) {
        unsafe fm_add_relaxed(words + Self.loadHistogram + bucket(nanoseconds), 1)
    }

    package func recordStore(nanoseconds: Int64) {
        unsafe fm_add_relaxed(words + Self.storeHistogram + bucket(nanoseconds), 1)
    }

    package func loadBucket(_ index: Int) -> UInt64 {
        unsafe fm_load_acquire(words + Self.loadHistogram + index)
    }

    package func storeBucket(_ index: Int) -> UInt64 {
        unsafe fm_load_acquire(words + Self.storeHistogram + index)
    }

    private func bucket(_ nanoseconds: Int64) -> Int {
        nanoseconds <= 1 ? 0 : 63 - UInt64(nanoseconds).leadingZeroBitCount
    }
}
