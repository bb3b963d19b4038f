package import FarMemory
package import OffloadPolicy
package import WorkloadTrace

/// One container slot; used again after its container ended.
struct SimulatedContainer {
    var function: Int32 = -1
    var life: UInt32 = 0
    var isBusy = false
    var isRecyclePending = false
    var handle = ContainerHandle(0)
    var pages: ContainerPages
    /// What the totals count of it, in pages.
    var countedLocal: UInt64 = 0
    var countedFar: UInt64 = 0
    var startedAt: Int64 = 0
    var idleSince: Int64 = 0
    var hasServed = false
    /// The request that it starts for, then the one that runs.
    var arrival: Arrival
    /// How long that takes with what its pages add, as the gateway reports it at the end.
    var latency = Nanoseconds.zero
    /// Its earliest wake-up in the queue.
    var wakeAt = Int64.max
    /// DAMON pages out what was not touched for this long.
    var coldAge: Int64?
    var isColdPending = false
    var semiWarmSince: Int64?
    var semiWarmTime: Int64 = 0
    /// Local byte-seconds up to `weighedAt`.
    var localPageTime = 0.0
    var weighedAt: Int64 = 0
}

/// A trace run through containers and the policy. Use once.
package struct Simulator {
    let settings: SimulationSettings
    let trace: WholeTrace
    let functions: FunctionShapes
    var machine: PolicyMachine
    /// False: the policy is never asked, and nothing leaves.
    let offloads: Bool
    var queue = EventQueue()
    var containers: [SimulatedContainer] = []
    var free: [Int32] = []
    /// Idle containers per function, the one used last at the end.
    var idle: [[Int32]]
    var byHandle: [Int32] = []
    var waits: [Int64]
    let names: [String]
    var random: SeededRandom
    var result: SimulationResult
    var now: Int64 = 0
    var localPages: UInt64 = 0
    var farPages: UInt64 = 0
    var live: UInt64 = 0
    let farCapacity: UInt64
    let tick: Int64
    /// Whether the machine was told that far memory is short, and when it is to be told anew.
    var toldShort = false
    var hostTickAt = Int64.max
    var lastTickAt = Int64.min
    var decisions: [Decision] = []
    /// For tests: each decision with its time.
    package var log: [(Nanoseconds, Decision)]?

    /// A trace for every policy; a machine for each run.
    package init(_ trace: WholeTrace, _ settings: SimulationSettings) {
        precondition(settings.tick > .zero && settings.keepAlive > .zero, "time must pass")
        self.trace = trace
        self.settings = settings
        functions = FunctionShapes(trace, settings)
        // Short names: the policy looks functions up by them.
        names = trace.functions.indices.map { "f\($0)" }
        offloads = settings.policy != nil
        machine = PolicyMachine(
            settings: Self.policy(settings, functions, names), at: .zero)
        machine.explainsDrains = false
        idle = Array(repeating: [], count: trace.functions.count)
        waits = Array(repeating: .max, count: trace.functions.count)
        random = SeededRandom(seed: settings.seed)
        result = SimulationResult(
            name: settings.name, length: trace.length, profiles: settings.costs.profiles.count)
        if settings.collectsReuse {
            result.reuse = Array(repeating: [], count: trace.functions.count)
        }
        farCapacity = settings.farSpace.pages.pages
        tick = settings.tick.nanoseconds
        for (index, load) in functions.classes.enumerated() where trace.functions[index].calls > 0 {
            result.classes[load.rawValue].functions += 1
        }
    }

    /// Windows that are known by name hold for the functions that have this profile.
    private static func policy(
        _ settings: SimulationSettings, _ functions: FunctionShapes, _ names: [String]
    ) -> PolicySettings {
        var policy = settings.policy ?? PolicySettings(.none)
        for (index, name) in names.enumerated() where !policy.requestWindows.isEmpty {
            let profile = settings.costs.profiles[functions.profiles[index]].name
            policy.requestWindows[name] = policy.requestWindows[profile]
        }
        return policy
    }

    /// Runs the whole trace. `progress` hears the share that is done, now and then.
    package mutating func run(progress: (Double) -> Void = { _ in }) -> SimulationResult {
        var source = ArrivalSource(trace, settings)
        let end = trace.length.nanoseconds
        hostTickAt = 0
        if offloads, !settings.isDense { queue.put(.wake, at: 0, container: -1, life: 0) }
        var nextTick: Int64 = 0
        var reported: Int64 = 0
        let step = max(1, end / 200)
        while true {
            let batch = source.next()
            if batch.isEmpty { break }
            for arrival in batch {
                runQueue(until: arrival.start.nanoseconds, &nextTick)
                advance(to: arrival.start.nanoseconds)
                take(arrival)
                if now - reported > step {
                    reported = now
                    progress(Double(now) / Double(max(1, end)))
                }
            }
        }
        runQueue(until: end, &nextTick)
        advance(to: end)
        for index in containers.indices where containers[index].function >= 0 {
            conclude(index, isEnded: false)
        }
        progress(1)
        return result
    }

    /// Handles what is due before `time`, and at `time` all but ticks.
    private mutating func runQueue(until time: Int64, _ nextTick: inout Int64) {
        while let event = queue.next,
            event.time < time || (event.time == time && event.kind != .wake)
        {
            if settings.isDense { denseTicks(before: event.time, &nextTick) }
            guard let event = queue.take() else { return }
            advance(to: event.time)
            handle(event)
        }
        if settings.isDense { denseTicks(before: time, &nextTick) }
    }

    private mutating func denseTicks(before time: Int64, _ nextTick: inout Int64) {
        while nextTick < time {
            advance(to: nextTick)
            tickAll()
            nextTick += tick
        }
    }

    /// Counts memory up to a moment.
    private mutating func advance(to time: Int64) {
        guard time > now else { return }
        let length = Double(time - now) / 1e9
        result.localByteSeconds += Double(localPages) * Double(pageBytes) * length
        result.farByteSeconds += Double(farPages) * Double(pageBytes) * length
        let first = Int(now / 1_000_000_000)
        let last = Int(time / 1_000_000_000)
        if last > first {
            result.local.fill(first..<last, with: localPages)
            result.far.fill(first..<last, with: farPages)
            result.containers.fill(first..<last, with: live)
        }
        now = time
    }

    // MARK: Requests

    private mutating func take(_ arrival: Arrival) {
        let function = Int(arrival.function)
        let load = functions.classes[function].rawValue
        result.requests += UInt64(arrival.calls)
        result.classes[load].requests += UInt64(arrival.calls)
        if let index = idle[function].popLast() {
            containers[Int(index)].arrival = arrival
            begin(Int(index))
            return
        }
        result.coldStarts += 1
        result.classes[load].coldStarts += 1
        start(arrival)
    }

    private mutating func start(_ arrival: Arrival) {
        let function = Int(arrival.function)
        let shape = functions.shape(of: function, &random)
        let index: Int
        if let reused = free.popLast() {
            index = Int(reused)
        } else {
            index = containers.count
            containers.append(
                SimulatedContainer(pages: ContainerPages(shape), arrival: arrival))
        }
        var container = SimulatedContainer(pages: ContainerPages(shape), arrival: arrival)
        container.life = containers[index].life &+ 1
        container.function = arrival.function
        container.isBusy = true
        container.startedAt = now
        container.weighedAt = now
        result.containersStarted += 1
        container.handle = ContainerHandle(result.containersStarted)
        containers[index] = container
        byHandle.append(Int32(index))
        live += 1
        feed(.started(function: names[function]), index)
        scheduleWake(index, from: now)
        queue.put(
            .runtimeReady, at: now + shape.runtimeTime, container: index, life: container.life)
    }

    private mutating func handle(_ event: SimulatedEvent) {
        if event.kind == .wake {
            wake(event)
            return
        }
        let index = Int(event.container)
        guard containers[index].life == event.life else { return }
        switch event.kind {
        case .wake: break
        case .runtimeReady:
            containers[index].pages.runtimeReady()
            measure(index)
            feed(.runtimeReady, index)
            queue.put(
                .initDone, at: now + containers[index].pages.shape.initializationTime,
                container: index, life: event.life)
        case .initDone:
            containers[index].pages.initDone()
            measure(index)
            feed(.initDone(recycledAt: Nanoseconds(now) + settings.keepAlive), index)
            begin(index)
        case .requestEnd: finish(index)
        case .recycle: recycle(index)
        case .cold: pageOutCold(index)
        }
    }

    /// The request that waits for the container begins.
    private mutating func begin(_ index: Int) {
        let function = Int(containers[index].function)
        let wasServing = containers[index].hasServed
        if wasServing, settings.collectsReuse {
            result.reuse[function].append(now - containers[index].idleSince)
        }
        let wasSemiWarm = endSemiWarm(index)
        containers[index].isBusy = true
        containers[index].hasServed = true
        let arrival = containers[index].arrival
        let recalled = feed(.requestStarted, index)
        let touched = containers[index].pages.request(recalled: recalled)
        settle(index)
        let costs = settings.costs
        let added =
            Int64(touched.major) * costs.majorFault.nanoseconds
            + Int64(touched.minor) * costs.minorFault.nanoseconds
            + Int64(touched.prefetched) * costs.prefetch.nanoseconds
            + (wasSemiWarm ? costs.wakeUp.nanoseconds : 0)
        result.pagesFaulted += touched.major
        result.pagesPrefetched += touched.prefetched
        let second = Int(now / 1_000_000_000)
        if touched.major + touched.prefetched > 0 {
            result.back.add(touched.major + touched.prefetched, at: second)
        }
        if wasSemiWarm { result.semiWarmRequests += 1 }
        if added > 0 { result.added.record(added) }
        let each = arrival.duration.nanoseconds / Int64(max(1, arrival.calls))
        containers[index].latency = Nanoseconds(each + added)
        result.latency.record(now - arrival.start.nanoseconds + each + added)
        if arrival.calls > 1 { result.latency.record(each, count: UInt64(arrival.calls - 1)) }
        queue.put(
            .requestEnd, at: now + arrival.duration.nanoseconds + added, container: index,
            life: containers[index].life)
        if wasServing { wakeSooner(function, by: index) }
        scheduleWake(index, from: now)
    }

    private mutating func finish(_ index: Int) {
        containers[index].isBusy = false
        containers[index].idleSince = now
        measure(index)
        let function = Int(containers[index].function)
        // As a gateway reports it: from the request's beginning in its container, without the wait for a start.
        feed(
            .requestEnded(
                recycledAt: Nanoseconds(now) + settings.keepAlive,
                latency: containers[index].latency), index)
        // What the latency taught may have shortened the function's delay.
        wakeSooner(function, by: index)
        idle[function].append(Int32(index))
        if !containers[index].isRecyclePending {
            containers[index].isRecyclePending = true
            queue.put(
                .recycle, at: now + settings.keepAlive.nanoseconds, container: index,
                life: containers[index].life)
        }
        scheduleColdPageout(index)
        scheduleWake(index, from: now)
    }

    private mutating func recycle(_ index: Int) {
        containers[index].isRecyclePending = false
        guard !containers[index].isBusy else { return }
        let due = containers[index].idleSince + settings.keepAlive.nanoseconds
        if due > now {
            containers[index].isRecyclePending = true
            queue.put(.recycle, at: due, container: index, life: containers[index].life)
            return
        }
        let function = Int(containers[index].function)
        if let place = idle[function].firstIndex(of: Int32(index)) {
            idle[function].remove(at: place)
        }
        feed(.stopped, index)
        conclude(index, isEnded: true)
    }

    private mutating func conclude(_ index: Int, isEnded: Bool) {
        _ = endSemiWarm(index)
        weigh(index)
        let container = containers[index]
        let function = Int(container.function)
        let load = functions.classes[function].rawValue
        let lifetime = now - container.startedAt
        let byteSeconds = container.localPageTime * Double(pageBytes)
        result.classes[load].localByteSeconds += byteSeconds
        result.profileLocalByteSeconds[functions.profiles[function]] += byteSeconds
        result.profileContainerSeconds[functions.profiles[function]] += Double(lifetime) / 1e9
        if isEnded, lifetime > 0 {
            result.classes[load].containers += 1
            result.classes[load].lifetime.record(lifetime)
            result.classes[load].semiWarmShare.record(
                Double(container.semiWarmTime) / Double(lifetime))
        }
        localPages -= container.countedLocal
        farPages -= container.countedFar
        live -= 1
        containers[index].function = -1
        containers[index].life &+= 1
        free.append(Int32(index))
        if isEnded { checkFarSpace() }
    }

    /// Ends the semi-warm time of a container; whether it was in it.
    private mutating func endSemiWarm(_ index: Int) -> Bool {
        guard let since = containers[index].semiWarmSince else { return false }
        containers[index].semiWarmTime += now - since
        containers[index].semiWarmSince = nil
        return true
    }

    // MARK: Memory

    /// Brings a container's own sum of memory over time up to date.
    private mutating func weigh(_ index: Int) {
        containers[index].localPageTime +=
            Double(containers[index].countedLocal) * Double(now - containers[index].weighedAt) / 1e9
        containers[index].weighedAt = now
    }

    /// Takes a container's present pages into the totals.
    mutating func settle(_ index: Int) {
        let local = containers[index].pages.local
        let far = containers[index].pages.far + containers[index].pages.waiting
        if local != containers[index].countedLocal {
            weigh(index)
            localPages = localPages &+ local &- containers[index].countedLocal
            containers[index].countedLocal = local
        }
        if far != containers[index].countedFar {
            farPages = farPages &+ far &- containers[index].countedFar
            containers[index].countedFar = far
            checkFarSpace()
        }
    }
}
