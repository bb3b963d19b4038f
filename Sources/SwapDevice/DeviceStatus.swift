import CLinuxShims
import CSwapShims
package import FarMemory
import Glibc
package import LinuxSystem

/// A latency distribution of whole requests, from receipt to answer; bucket n counts [2^n, 2^(n+1)) ns.
package struct LatencyBuckets: Equatable, Sendable {
    package var counts: [UInt64]

    package init(counts: [UInt64]) { self.counts = counts }

    package var total: UInt64 { counts.reduce(0, +) }

    /// An upper bound of the ratio-th percentile in nanoseconds, 0 when nothing was counted.
    package func percentile(_ ratio: Double) -> UInt64 {
        let wanted = max(1, UInt64((Double(total) * ratio).rounded(.up)))
        var seen: UInt64 = 0
        for (bucket, count) in counts.enumerated() {
            seen += count
            if seen >= wanted { return 2 << UInt64(bucket) }
        }
        return 0
    }
}

/// What is known of one device now.
package struct DeviceStatus: Sendable {
    package enum Condition: String, Sendable {
        case starting, attached, reconnecting, lost
        /// Nobody serves it: pages on it are lost.
        case dead
        /// The kernel serves it, and nobody will connect it again when its server goes away.
        case keeperDown = "keeper-down"
    }

    package var record: DeviceRecord
    package var condition: Condition
    package var keeperPid: Int32
    package var dataPid: Int32
    package var dataStarts: UInt64 = 0
    package var swapUsed = ByteCount.zero
    package var counters: [SwapCounters.Counter: UInt64] = [:]
    package var loads = LatencyBuckets(counts: [])
    package var stores = LatencyBuckets(counts: [])
    package var fabricReconnects: UInt64 = 0
    package var fabricRefused: UInt64 = 0
    package var fabricSlabs: UInt64 = 0
    package var fabricPages: UInt64 = 0
    /// How large `fabricSlabs` are; zero where there are none.
    package var fabricSlab = ByteCount.zero

    /// Reads a device's state; it opens the keeper's shared region, which needs root.
    package init(of record: DeviceRecord) throws(SystemError) {
        self.record = record
        keeperPid = record.keeperPid
        dataPid = 0
        condition = .dead
        let area = try swapAreas().first { $0.path == record.device }
        swapUsed = ByteCount(area?.used ?? 0)
        guard !record.isModules else {
            readModule()
            return
        }
        let isKernels =
            record.frontend == "nbd" && KernelNBD.isOurs(record.device, record.name)
        if isKernels {
            condition = .keeperDown
            readKernelCounters()
        }
        let keeper = record.keeperIsAlive ? record.keeperPid : findKeeper(of: record.name)
        guard let keeper, let file = Self.regionFile(of: keeper) else { return }
        keeperPid = keeper
        let region = try SharedRegion(openingIn: file, populate: false)
        dataPid = Int32(truncatingIfNeeded: region[.dataPid])
        dataStarts = region[.dataStarts]
        condition =
            switch region.deviceState {
            case .starting: .starting
            case .attached: .attached
            case .reconnecting: .reconnecting
            case .lost: .lost
            }
        if isKernels {
            fabricReconnects = region[.fabricReconnects]
        } else {
            readCounters(region)
        }
    }

    /// What far memory holds for it, and in which steps; nil where that is not known.
    var held: (bytes: ByteCount, step: ByteCount)? {
        if fabricSlab > .zero {
            return (ByteCount(fabricSlabs * fabricSlab.bytes), fabricSlab)
        }
        guard record.isModules, condition != .dead else { return nil }
        return (ByteCount(fabricPages * UInt64(pageBytes)), ByteCount(UInt64(pageBytes)))
    }

    /// What the kernel counted of the block device (Documentation/block/stat.rst).
    private mutating func readKernelCounters() {
        let path = "/sys/block/\(record.device.dropFirst(5))/stat"
        guard let text = try? readSmallText(path) else { return }
        let words = text.split(whereSeparator: \.isWhitespace).compactMap { UInt64($0) }
        guard words.count >= 14 else { return }
        let sectors = UInt64(pageBytes / 512)
        counters = [
            .loads: words[0], .pagesIn: words[2] / sectors, .stores: words[4],
            .pagesOut: words[6] / sectors, .discards: words[11],
            .pagesDiscarded: words[13] / sectors,
        ]
    }

    private mutating func readCounters(_ region: borrowing SharedRegion) {
        fabricReconnects = region[.fabricReconnects]
        fabricRefused = region[.fabricRefused]
        fabricSlabs = region[.fabricSlabs]
        fabricPages = region[.fabricPages]
        fabricSlab = ByteCount(region[.fabricSlabBytes])
        loads.counts = unsafe [UInt64](repeating: 0, count: SwapCounters.histogramBuckets)
        stores.counts = loads.counts
        for index in 0..<region.workers {
            let worker = unsafe region.counters(worker: index)
            for counter in SwapCounters.Counter.allCases {
                unsafe counters[counter, default: 0] += worker.value(counter)
            }
            for bucket in unsafe 0..<SwapCounters.histogramBuckets {
                unsafe loads.counts[bucket] += worker.loadBucket(bucket)
                unsafe stores.counts[bucket] += worker.storeBucket(bucket)
            }
        }
    }

    private static func regionFile(of keeper: Int32) -> FileDescriptor? {
        let raw = fm_pidfd_open(keeper)
        guard raw >= 0 else { return nil }
        let pidfd = FileDescriptor(owning: raw)
        let copy = fm_pidfd_getfd(pidfd.rawValue, SwapDescriptor.region)
        return copy >= 0 ? FileDescriptor(owning: copy) : nil
    }
}
