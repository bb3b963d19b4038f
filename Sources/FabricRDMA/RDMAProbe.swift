// Raw verbs against a lease: what the network and the devices cost without anything of a swap path. For measurements only.

import CVerbsShims
import Fabric
package import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol
package import Telemetry
import Verbs

/// What one series of requests took.
package struct RDMAProbeResult: Sendable {
    package let pagesPerSecond: Double
    /// Of a doorbell's requests together: a page where there is one.
    package let latency: HistogramSnapshot
}

/// How a series is made.
package struct RDMAProbeSeries: Sendable {
    package enum Operation: Sendable { case read, write }

    package var operation: Operation
    /// Requests under way at once; a multiple of `chain`.
    package var depth: Int
    /// Requests for each doorbell; the last one's completion stands for all.
    package var chain: Int
    /// Pages in all.
    package var pages: Int
    /// Sleeps for completions instead of polling, which is best where the device's work needs the processor.
    package var sleeps: Bool
    package var seed: UInt64

    package init(
        _ operation: Operation, depth: Int, chain: Int = 1, pages: Int, sleeps: Bool, seed: UInt64
    ) {
        precondition(depth > 0 && chain > 0 && depth % chain == 0, "whole chains")
        precondition(chain <= Int(FM_RDMA_CHAIN_MAX) && depth <= 256, "bounds of a queue")
        self.operation = operation
        self.depth = depth
        self.chain = chain
        self.pages = pages
        self.sleeps = sleeps
        self.seed = seed
    }
}

/// A new lease with all its slabs, and one data queue. One thread.
@safe package final class RDMAProbe {
    private let session: RDMAControlClient
    private let lease: OpenedRDMA
    private var keys: [UInt32] = []
    private let staging: MemoryMapping
    private var region: MemoryRegion?
    private var completions: CompletionQueue?
    private var connection: RDMAConnection?

    private static let depthMax = 256
    private static let keysMax = 124

    /// Makes the lease, which must not be there yet, and writes every page once.
    package init(_ target: RDMATarget, size: ByteCount) throws(RDMASessionError) {
        let session = try RDMAControlClient(target)
        self.session = session
        let lease = try session.open(size: size.bytes, create: true, exclusive: true)
        self.lease = lease
        do throws(SystemError) {
            staging = try MemoryMapping(anonymous: Self.depthMax * pageBytes, populate: true)
        } catch {
            throw .unreachable(error)
        }
        try grantAll()
        let request = RDMAConnectRequest(
            versions: 1...1, queue: 1, session: lease.session, token: lease.token)
        let (made, _) = try session.link.connect(request, readsOut: Int(lease.readsMax)) {
            (connection, domain) throws(SystemError) in
            region = try unsafe MemoryRegion(
                domain, staging.base, count: staging.count, isRemote: false)
            let queue = try CompletionQueue(on: connection, entries: Self.depthMax + 1)
            completions = queue
            try connection.makeQueues(domain, queue, sends: Self.depthMax, receives: 1)
        }
        connection = made
    }

    private func grantAll() throws(RDMASessionError) {
        let slabs = Int(lease.size / UInt64(lease.slabBytes))
        while keys.count < slabs {
            let more = try session.grant(
                SlabRange(
                    first: UInt32(keys.count), count: UInt32(min(Self.keysMax, slabs - keys.count)))
            )
            keys += more
        }
    }

    /// Gives the lease back.
    package func close() throws(RDMASessionError) {
        connection?.end()
        connection = nil
        try session.finish(releaseLease: true)
        session.end()
    }

    /// Writes pages that say where they are, reads them back, and counts those that are wrong.
    package func verify(pages: Int) throws(RDMASessionError) -> Int {
        var wrong = 0
        for page in 0..<min(pages, pageCount) {
            // SAFETY: the staging has room for two pages and more.
            let words = unsafe staging.base.assumingMemoryBound(to: UInt64.self)
            for index in 0..<512 {
                unsafe words[index] = UInt64(page) &* 0x9E37_79B9_7F4A_7C15 &+ UInt64(index)
                unsafe words[512 + index] = 0
            }
            try one(.write, page, slot: 0)
            try one(.read, page, slot: 1)
            let isSame = unsafe memcmp(staging.base, staging.base + pageBytes, pageBytes) == 0
            if !isSame { wrong += 1 }
        }
        return wrong
    }

    private var pageCount: Int { Int(lease.size) / pageBytes }

    private func one(
        _ operation: RDMAProbeSeries.Operation, _ page: Int, slot: Int
    ) throws(RDMASessionError) {
        var work = unsafe work(operation, page, slot: slot)
        guard let connection, unsafe connection.post(&work, count: 1) == 1 else {
            throw .queueFailed
        }
        let deadline = monotonicNow() + 5_000_000_000
        while try take({ _ in }) == 0 {
            guard monotonicNow() < deadline else { throw .timedOut }
            try sleep(until: deadline)
        }
    }

    private func work(
        _ operation: RDMAProbeSeries.Operation, _ page: Int, slot: Int
    ) -> fm_rdma_work {
        let slab = page / (Int(lease.slabBytes) / pageBytes)
        // SAFETY: slots are below `depthMax`.
        return unsafe fm_rdma_work(
            id: UInt64(slot), local: staging.base + slot * pageBytes,
            remote_address: lease.base + UInt64(page * pageBytes), bytes: UInt32(pageBytes),
            local_key: region?.localKey ?? 0, remote_key: keys[slab],
            operation: UInt8(
                operation == .read ? FM_RDMA_READ.rawValue : FM_RDMA_WRITE.rawValue),
            is_silent: false)
    }

    /// Runs a series over pages in random order.
    package func run(_ series: RDMAProbeSeries) throws(RDMASessionError) -> RDMAProbeResult {
        let latency = Histogram()
        var random = SeededRandom(seed: series.seed)
        var free = Array(stride(from: 0, to: series.depth, by: series.chain))
        var starts = [Int64](repeating: 0, count: series.depth)
        var chain = unsafe [fm_rdma_work](repeating: fm_rdma_work(), count: series.chain)
        let chains = max(1, series.pages / series.chain)
        var (posted, done) = (0, 0)
        guard let connection else { throw .queueFailed }
        let begin = monotonicNow()
        var lastDone = begin
        while done < chains {
            while posted < chains, let first = free.popLast() {
                for index in 0..<series.chain {
                    let page = Int(random.next() % UInt64(pageCount))
                    unsafe chain[index] = work(series.operation, page, slot: first + index)
                    unsafe chain[index].is_silent = index + 1 < series.chain
                    unsafe chain[index].id = UInt64(first)
                }
                starts[first] = monotonicNow()
                guard unsafe connection.post(chain, count: series.chain) == series.chain else {
                    throw .queueFailed
                }
                posted += 1
            }
            let got = try take { id in
                latency.record(UInt64(monotonicNow() - starts[id]))
                free.append(id)
            }
            done += got
            if got > 0 { lastDone = monotonicNow() }
            try beHeard()
            // A bound on every wait: nothing takes as long as this.
            guard monotonicNow() - lastDone < 10_000_000_000 else { throw .timedOut }
            if got == 0, series.sleeps { try sleep(until: lastDone + 10_000_000_000) }
        }
        let seconds = Double(monotonicNow() - begin) / 1e9
        return RDMAProbeResult(
            pagesPerSecond: Double(done * series.chain) / seconds, latency: latency.snapshot())
    }

    /// The server sees no READ and no WRITE, and would take the session's client for gone.
    private func beHeard() throws(RDMASessionError) {
        let silence = Int64(lease.silenceMilliseconds) * 1_000_000
        if monotonicNow() - session.lastSent > silence / 3 { try session.ping() }
    }

    private func take(_ body: (Int) -> Void) throws(RDMASessionError) -> Int {
        guard let completions else { return 0 }
        let batch: InlineArray<16, RDMACompletion>
        let count: Int
        do throws(SystemError) {
            (batch, count) = try completions.pollBatch()
        } catch {
            throw .unreachable(error)
        }
        for index in 0..<count {
            guard batch[index].status == 0 else { throw .queueFailed }
            body(Int(batch[index].id))
        }
        return count
    }

    /// Set between asking for the descriptor to become readable and waiting for it.
    private var isArmed = false

    /// To be called when nothing was done: asks for notice first, so that the caller looks again, and waits the next time.
    private func sleep(until deadline: Int64) throws(RDMASessionError) {
        guard let completions else { throw .queueFailed }
        do throws(SystemError) {
            if isArmed {
                _ = try waitReady(
                    completions.descriptor, .readable, timeout: max(0, deadline - monotonicNow()))
                completions.quiet()
            } else {
                try completions.arm()
            }
        } catch {
            throw .unreachable(error)
        }
        isArmed.toggle()
    }
}
