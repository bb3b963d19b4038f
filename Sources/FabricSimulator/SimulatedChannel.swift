import Fabric
import FarMemory
import Glibc

/// One connection, as both ends see it. Gone for good once closed.
final class SimulatedConnection {
    var isOpen = true
    /// What a crash does to the store that is on its way: carries out a part of it.
    var tear: ((inout SeededRandom) -> Void)?
}

/// One thread's way into the simulated lease.
final class SimulatedChannel: FabricChannel {
    private let fabric: SimulatedFabric
    private var connection = SimulatedConnection()
    private var clock: VirtualClock { fabric.clock }
    private var server: SimulatedServer { fabric.server }
    private var isOneSided: Bool { fabric.options.family == .oneSided }

    init(fabric: SimulatedFabric) {
        self.fabric = fabric
        connection.isOpen = false
    }

    func load(
        _ range: PageRange, staging: UnsafeMutableRawPointer,
        vectors: UnsafeMutablePointer<iovec>, deadline: Int64
    ) throws(FabricError) -> Int {
        try check(range)
        let length = range.count * pageBytes
        if isOneSided {
            // A vector a page, into the mapping itself.
            for index in 0..<range.count {
                let page = unsafe server.page(range.first + UInt64(index))
                unsafe vectors[index] = iovec(iov_base: page, iov_len: pageBytes)
            }
            return range.count
        }
        var answer: [UInt8] = []
        try exchange(deadline: deadline) { [server] _ in
            let page = unsafe server.page(range.first)
            answer = unsafe Array(UnsafeRawBufferPointer(start: page, count: length))
            return nil
        }
        unsafe UnsafeMutableRawBufferPointer(start: staging, count: length).copyBytes(from: answer)
        unsafe vectors[0] = iovec(iov_base: staging, iov_len: length)
        return 1
    }

    func store(
        _ range: PageRange, from bytes: UnsafeRawPointer, deadline: Int64
    ) throws(FabricError) {
        try check(range)
        if isOneSided { return unsafe try storeHere(range, from: bytes, deadline: deadline) }
        let copy = unsafe Array(
            UnsafeRawBufferPointer(start: bytes, count: range.count * pageBytes))
        let tear = { [server, fabric] (random: inout SeededRandom) in
            fabric.countTorn()
            let whole = random.below(range.count)
            for index in 0..<whole { _ = Self.store(copy, index, range, server) }
            let count = random.below(pageBytes)
            unsafe copy.withUnsafeBytes { source in
                // SAFETY: the array holds a page for each index of the range.
                guard let base = source.baseAddress else { return }
                let page = unsafe base + whole * pageBytes
                unsafe server.tear(range.first + UInt64(whole), from: page, count: count)
            }
        }
        try exchange(deadline: deadline, tear: tear) { [server, fabric] isLate in
            if isLate { fabric.countLate() }
            for index in 0..<range.count {
                guard Self.store(copy, index, range, server) else { return .noSpace }
            }
            return nil
        }
    }

    /// Carries out one page of a store that arrived; false when the pool is full.
    private static func store(
        _ bytes: [UInt8], _ index: Int, _ range: PageRange, _ server: SimulatedServer
    ) -> Bool {
        unsafe bytes.withUnsafeBytes { source in
            // SAFETY: the array holds a page for each index of the range.
            guard let base = source.baseAddress else { return false }
            return unsafe server.store(
                range.first + UInt64(index), from: base + index * pageBytes)
        }
    }

    /// Stores through the mapping; only a grant needs the server.
    private func storeHere(
        _ range: PageRange, from bytes: UnsafeRawPointer, deadline: Int64
    ) throws(FabricError) {
        for index in 0..<range.count {
            let page = range.first + UInt64(index)
            if server.needsGrant(page) { try exchange(deadline: deadline) { _ in nil } }
            guard unsafe server.store(page, from: bytes + index * pageBytes) else {
                fabric.count(.noSpace)
                throw .noSpace
            }
        }
    }

    func discard(_ range: PageRange, deadline: Int64) throws(FabricError) {
        try check(range)
        if isOneSided {
            for page in range.first..<range.end { server.discard(page) }
            return
        }
        try exchange(deadline: deadline) { [server] _ in
            for page in range.first..<range.end { server.discard(page) }
            return nil
        }
    }

    private func check(_ range: PageRange) throws(FabricError) {
        guard fabric.state != .closed else { throw .unreachable }
        guard !server.hasLostLease else { throw .leaseLost }
        guard server.contains(range.first, range.count) else { throw .outOfRange }
    }

    /// Sends a request and waits for its answer in virtual time. `work` is what the server does; it is told whether
    /// the connection is gone by then, which happens only without fencing.
    private func exchange(
        deadline: Int64, tear: ((inout SeededRandom) -> Void)? = nil,
        _ work: @escaping (_ isLate: Bool) -> FabricError?
    ) throws(FabricError) {
        do throws(FabricError) {
            try connect(deadline: deadline)
            try send(deadline: deadline, tear: tear, work)
        } catch {
            fabric.count(error)
            throw error
        }
    }

    /// A new connection costs a round trip; while there is nobody to connect to, the answer is quick.
    private func connect(deadline: Int64) throws(FabricError) {
        guard !connection.isOpen else { return }
        guard let arrival = fabric.arrival(), arrival <= deadline else {
            clock.sleep(until: deadline)
            throw .deadlinePassed
        }
        clock.sleep(until: arrival)
        guard !server.hasLostLease else { throw .leaseLost }
        guard fabric.isReachable else { throw .unreachable }
        connection = SimulatedConnection()
        fabric.register(connection)
        fabric.countReconnect()
    }

    private func send(
        deadline: Int64, tear: ((inout SeededRandom) -> Void)?,
        _ work: @escaping (_ isLate: Bool) -> FabricError?
    ) throws(FabricError) {
        let mine = connection
        var answer: Result<Void, FabricError>?
        mine.tear = tear
        defer { mine.tear = nil }
        if let arrival = fabric.arrival() {
            clock.schedule(at: arrival) { [fabric, server, clock] in
                let isLate = !mine.isOpen
                guard server.isUp, !isLate || !fabric.options.fencing else { return }
                mine.tear = nil
                let failure = work(isLate)
                guard let reply = fabric.arrival() else { return }
                clock.schedule(at: reply) {
                    guard mine.isOpen else { return }
                    answer = failure.map { .failure($0) } ?? .success(())
                }
            }
        }
        clock.wait(until: deadline) { answer != nil || !mine.isOpen }
        if let answer { return try answer.get() }
        guard mine.isOpen else { throw server.hasLostLease ? .leaseLost : .unreachable }
        // Nobody knows what became of the request: only without its connection can it not come late.
        mine.isOpen = false
        throw .deadlinePassed
    }
}
