package import Fabric
package import FarMemory

/// A lease on the simulated memory node. All its channels belong to one thread.
package final class SimulatedFabric: Fabric, @unchecked Sendable {
    // SAFETY of @unchecked Sendable: a simulation runs on one thread; the protocol asks for Sendable.

    package let clock: VirtualClock
    package let options: SimulatorOptions
    package private(set) var events = SimulatorEvents()
    let server: SimulatedServer
    var random: SeededRandom
    private var tally = FabricCounters()
    private var isCut = false
    private var isClosed = false
    private var faultsOn = true

    package init(options: SimulatorOptions, clock: VirtualClock) {
        self.options = options
        self.clock = clock
        server = SimulatedServer(options: options)
        random = SeededRandom(seed: options.seed)
        scheduleFault(options.crashInterval) { $0.crash() }
        scheduleFault(options.cutInterval) { $0.cut() }
        scheduleFault(options.squeezeInterval) { $0.squeeze() }
    }

    // MARK: The seam

    package var size: ByteCount { options.size }
    package var maximumChannels: Int { 16 }

    package var state: FabricState {
        if isClosed { return .closed }
        if server.hasLostLease { return .lost }
        return isReachable ? .connected : .reconnecting
    }

    package var counters: FabricCounters {
        var counters = tally
        counters.slabsGranted = UInt64(server.slabsGranted)
        counters.pagesStored = UInt64(server.pagesStored)
        return counters
    }

    package func makeChannel() throws(FabricError) -> any FabricChannel {
        guard !isClosed else { throw .unreachable }
        return SimulatedChannel(fabric: self)
    }

    package func close(releaseLease: Bool) {
        isClosed = true
        if releaseLease { server.loseLease() }
    }

    // MARK: The world

    /// Whether a message can pass now.
    var isReachable: Bool { server.isUp && !isCut }

    /// No more faults, and those that last end: for the end of a run, when everything must be readable.
    package func heal() {
        faultsOn = false
        isCut = false
        server.isUp = true
        server.capacitySlabs = options.capacitySlabs ?? Int.max
    }

    private var connections: [SimulatedConnection] = []

    func register(_ connection: SimulatedConnection) {
        connections.removeAll { !$0.isOpen }
        connections.append(connection)
    }

    /// A crash or a cut ends every connection; what is in flight is answered by nobody.
    private func closeConnections() {
        for connection in connections { connection.isOpen = false }
        connections = []
    }

    private func scheduleFault(_ interval: Int64, _ fault: @escaping (SimulatedFabric) -> Void) {
        guard interval > 0 else { return }
        let pause = 1 + Int64(random.unit() * 2 * Double(interval))
        clock.schedule(at: clock.now() + pause) { [weak self] in
            guard let self, faultsOn else { return }
            fault(self)
            scheduleFault(interval, fault)
        }
    }

    private func outage() -> Int64 {
        let range = options.outage
        return range.lowerBound
            + Int64(random.unit() * Double(range.upperBound - range.lowerBound))
    }

    private func crash() {
        guard server.isUp else { return }
        events.crashes += 1
        for connection in connections where random.chance(1, in: 2) {
            connection.tear?(&random)
        }
        closeConnections()
        server.isUp = false
        if options.crashLosesPages { server.loseLease() }
        clock.schedule(at: clock.now() + outage()) { [weak self] in self?.server.isUp = true }
    }

    private func cut() {
        guard !isCut else { return }
        events.cuts += 1
        closeConnections()
        isCut = true
        clock.schedule(at: clock.now() + outage()) { [weak self] in self?.isCut = false }
    }

    /// Other leases take what is free of the pool for a while.
    private func squeeze() {
        events.squeezes += 1
        server.capacitySlabs = server.slabsGranted
        let all = options.capacitySlabs ?? Int.max
        clock.schedule(at: clock.now() + outage()) { [weak self] in self?.server.capacitySlabs = all
        }
    }

    /// When a message sent now arrives; nil: never.
    func arrival() -> Int64? {
        if random.chance(options.lossPer10k, in: 10_000) {
            events.messagesLost += 1
            return nil
        }
        var delay =
            options.latency.lowerBound
            + Int64(random.below(Int(options.latency.upperBound - options.latency.lowerBound) + 1))
        if random.chance(options.delayPer10k, in: 10_000) {
            events.messagesDelayed += 1
            delay += Int64(random.unit() * Double(options.delayMax))
        }
        return clock.now() + delay
    }

    // MARK: Accounting

    func countReconnect() { tally.reconnects += 1 }
    func countTorn() { events.storesTorn += 1 }
    func countLate() { events.storesCarriedOutLate += 1 }

    func count(_ error: FabricError) {
        switch error {
        case .noSpace:
            tally.refusedNoSpace += 1
            events.refusals += 1
        case .deadlinePassed: tally.deadlinesPassed += 1
        case .peerError: tally.peerErrors += 1
        case .protocolViolation: tally.protocolViolations += 1
        case .unreachable, .outOfRange, .leaseLost: break
        }
    }
}
