import CVerbsShims
import Fabric
import FarMemory
import Glibc
import LinuxSystem
import Verbs

/// One data queue with memory that its device can read and write, for one channel. The channel's thread has the lock while it
/// uses them; the control thread takes it to put new ones in or the old ones away.
@safe final class RDMADataQueue: @unchecked Sendable {
    // SAFETY of @unchecked Sendable: all but `connection`'s disconnect, which may come at any time, is done under the lock.
    let number: UInt16
    private let guardian = Condition()
    private var connection: RDMAConnection?
    private var completions: CompletionQueue?
    private var region: MemoryRegion?
    private let staging: MemoryMapping
    private let work: UnsafeMutablePointer<fm_rdma_work>
    private var count = 0
    private var stagedPages = 0
    private var batch: UInt64 = 0
    private let spinTime: Int64

    /// Pages in one batch, and so requests in one chain.
    static let pagesMax = Int(FM_RDMA_CHAIN_MAX)

    init(number: UInt16) throws(SystemError) {
        self.number = number
        staging = try MemoryMapping(anonymous: Self.pagesMax * pageBytes, populate: true)
        unsafe work = .allocate(capacity: Self.pagesMax)
        // Longer than a page takes on a fast network. With one processor the answer would have to wait for the spinning to end.
        spinTime = sysconf(Int32(_SC_NPROCESSORS_ONLN)) > 1 ? 15_000 : 0
    }

    deinit {
        remove()
        unsafe work.deallocate()
    }

    // MARK: The control thread's

    /// Registers the staging and makes the pair of queues, for `RDMALink.connect`.
    func prepare(
        _ connection: RDMAConnection, _ domain: ProtectionDomain
    ) throws(SystemError) -> (CompletionQueue, MemoryRegion) {
        let region = try unsafe MemoryRegion(
            domain, staging.base, count: staging.count, isRemote: false)
        let completions = try CompletionQueue(on: connection, entries: Self.pagesMax + 1)
        try connection.makeQueues(domain, completions, sends: Self.pagesMax, receives: 1)
        return (completions, region)
    }

    func install(
        _ connection: RDMAConnection, _ completions: CompletionQueue, _ region: MemoryRegion
    ) {
        guardian.lock()
        self.connection = connection
        self.completions = completions
        self.region = region
        guardian.unlock()
    }

    /// Ends the requests under way as failed; whoever waits for them returns.
    func fail() { connection?.disconnect() }

    /// Puts the queues away: nothing that was posted goes out any more. Waits for the channel's request to end.
    func remove() {
        guardian.lock()
        connection?.end()
        connection = nil
        // Local memory that no queue refers to any more: a failure would harm nobody.
        try? region?.end()
        region = nil
        completions = nil
        guardian.unlock()
    }

    // MARK: The channel's

    func lock() { guardian.lock() }
    func unlock() { guardian.unlock() }

    /// Whether there are queues. With the lock.
    var isConnected: Bool { connection != nil }

    /// Forgets what was added and not carried out. With the lock.
    func begin() {
        count = 0
        stagedPages = 0
    }

    var isEmpty: Bool { count == 0 }
    /// Pages that still go into this batch.
    var room: Int { Self.pagesMax - stagedPages }
    /// Requests in this batch.
    var requests: Int { count }

    /// Where a request's pages are staged, and which they are.
    func staged(_ index: Int) -> (memory: UnsafeMutableRawPointer, byteCount: Int) {
        // SAFETY: indices below `count` were filled by `add`.
        unsafe (work[index].local, Int(work[index].bytes))
    }

    /// Adds one request for `pages` pages, for which there is room. With the lock.
    /// - Returns: where its bytes are staged.
    @discardableResult
    func add(
        _ operation: fm_rdma_operation, pages: Int, address: UInt64, key: UInt32
    ) -> UnsafeMutableRawPointer {
        precondition(pages > 0 && pages <= room, "a batch has room for \(Self.pagesMax) pages")
        // SAFETY: checked just now: pages and requests stay within both buffers.
        let local = unsafe staging.base + stagedPages * pageBytes
        unsafe work[count] = fm_rdma_work(
            id: 0, local: local, remote_address: address, bytes: UInt32(pages * pageBytes),
            local_key: region?.localKey ?? 0, remote_key: key,
            operation: UInt8(operation.rawValue), is_silent: true)
        count += 1
        stagedPages += pages
        return unsafe local
    }

    /// Carries the batch out: one doorbell, one completion. With the lock. When this throws, some of it may have been done and
    /// some may still be: the queues must go.
    func run(until deadline: Int64) throws(FabricError) {
        guard let connection else { throw .unreachable }
        guard count > 0 else { return }
        batch &+= 1
        // SAFETY: `count` is at least 1 and within the buffer.
        unsafe work[count - 1].is_silent = false
        unsafe work[count - 1].id = batch
        guard unsafe connection.post(work, count: count) == count else { throw .unreachable }
        try wait(until: deadline)
    }

    private func wait(until deadline: Int64) throws(FabricError) {
        let spinEnd = spinTime > 0 ? monotonicNow() + spinTime : 0
        while true {
            if try isDone() { return }
            if spinEnd > 0, monotonicNow() < spinEnd {
                cpuRelax()
                continue
            }
            try sleep(until: deadline)
        }
    }

    private func sleep(until deadline: Int64) throws(FabricError) {
        guard let completions else { throw .unreachable }
        do throws(SystemError) {
            try completions.arm()
        } catch {
            throw .unreachable
        }
        // What came before the arming is not told of.
        if try isDone(keeping: true) { return }
        let left = deadline - monotonicNow()
        guard left > 0 else { throw .deadlinePassed }
        do throws(SystemError) {
            _ = try waitReady(completions.descriptor, .readable, timeout: left)
        } catch {
            throw .unreachable
        }
        completions.quiet()
    }

    /// Set when a look for something else found the batch done.
    private var wasDone = false

    private func isDone(keeping: Bool = false) throws(FabricError) -> Bool {
        if wasDone {
            wasDone = keeping
            return true
        }
        guard let completions else { throw .unreachable }
        var completion = RDMACompletion()
        let got: Int
        do throws(SystemError) {
            got = try unsafe completions.poll(&completion, count: 1)
        } catch {
            throw .unreachable
        }
        if got == 0 { return false }
        guard completion.status == 0 else { throw Self.failure(completion.status) }
        // One batch at a time, so there is no other.
        guard completion.id == batch else { throw .protocolViolation }
        wasDone = keeping
        return true
    }

    /// What a failed request means. The server's device answered: a wrong key or range, so that something is wrong with what is
    /// known of the lease; or nothing was heard, or the queues were put away.
    private static func failure(_ status: UInt32) -> FabricError {
        switch status {
        case 9, 10, 11: .peerError(EACCES)
        default: .unreachable
        }
    }
}
