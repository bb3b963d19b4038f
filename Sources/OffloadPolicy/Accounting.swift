package import FarMemory

// The record of sizes: how the anonymous memory of a container divides, as an engine finds it. File cache is no part of
// it: dropping it saves local memory too, but it is not offloaded and does not come back from far memory.

/// One segment of a container. Nil: this engine cannot tell, which is not zero.
package struct SegmentSize: Equatable, Sendable {
    /// Bytes in local memory.
    package var local: ByteCount?
    /// Bytes written out and unmapped. Some of them may still have their copy in local memory: see `SegmentSizes.waiting`.
    package var far: ByteCount?

    package init(local: ByteCount?, far: ByteCount?) {
        self.local = local
        self.far = far
    }
}

/// The sizes of a container's segments at one moment. Anonymous memory only.
package struct SegmentSizes: Equatable, Sendable {
    package var runtime: SegmentSize
    package var initialization: SegmentSize
    /// What came since initialization ended.
    package var execution: SegmentSize
    /// The hot-page pool: local pages, of whichever segment, that the last window found in use.
    package var hot: ByteCount?
    /// Pages that are written out and unmapped and whose copy is still in local memory (swap cache).
    package var waiting: ByteCount?
    /// When the figures were taken, on the policy's clock: they are as old as that.
    package var measuredAt: Nanoseconds

    package init(
        runtime: SegmentSize, initialization: SegmentSize, execution: SegmentSize,
        hot: ByteCount?, waiting: ByteCount?, measuredAt: Nanoseconds
    ) {
        self.runtime = runtime
        self.initialization = initialization
        self.execution = execution
        self.hot = hot
        self.waiting = waiting
        self.measuredAt = measuredAt
    }
}

/// Whether a request to a drained container brings its working set back at once.
package enum PrefetchMode: String, CaseIterable, Sendable {
    case off
    /// All of what the container held when its drain began.
    case on
    /// What the first requests after a drain needed; less or more as that record proves right.
    case adaptive
}
