import Containers
package import FarMemory
import HTTPEndpoint
import LinuxSystem
import Synchronization
package import Telemetry

/// What a follower counts.
package struct FollowerCounters: Equatable, Sendable {
    /// Connections to the event feed that were made.
    package var connections: UInt64 = 0
    package var events: UInt64 = 0
    /// Lines and answers that were not understood.
    package var refused: UInt64 = 0
    package var listings: UInt64 = 0
}

/// Times of a follower; tests shorten them.
package struct FollowerTimes: Equatable, Sendable {
    package var request = Nanoseconds.seconds(10)
    /// A listing this often, whatever the events say.
    package var listing = Nanoseconds.seconds(60)
    package var backoff = Nanoseconds.milliseconds(100)
    package var backoffMaximum = Nanoseconds.seconds(10)

    package init() {}
}

// The law of following. List; then read events from the second in which the listing began, so that none is lost in
// between. An event only says where to look: the container is inspected, and what it says then holds. So it does not matter
// that events are repeated, reordered or late. When the feed ends, or the listing is old, all of it begins again: the listing
// makes good what was lost, also while the runtime itself was away. While it is away nothing is forgotten, for containers
// outlive their runtime's daemon; those that end meanwhile lose their group, and the engine sees that.

/// Follows one runtime with Docker's API over its unix socket, on a thread of its own.
package final class RuntimeFollower: Sendable {
    private let label: String
    private let endpoint: Endpoint
    private let groupOfProcess: @Sendable (Int32) -> String?
    private let rules: DiscoveryRules
    private let times: FollowerTimes
    private let log: Logger
    private let receive: ChangeReceiver
    private let isStopping = Atomic<Bool>(false)
    private let counted = Mutex(FollowerCounters())
    private let tally = DiscoveryTally()

    /// `label` begins the containers' names: `docker`. `groupOfProcess` gives the path of a process's memory group.
    package init(
        label: String, endpoint: Endpoint, rules: DiscoveryRules,
        times: FollowerTimes = FollowerTimes(), log: Logger,
        groupOfProcess: @escaping @Sendable (Int32) -> String?, receive: @escaping ChangeReceiver
    ) {
        self.label = label
        self.endpoint = endpoint
        self.groupOfProcess = groupOfProcess
        self.rules = rules
        self.times = times
        self.log = log
        self.receive = receive
    }

    package var counters: FollowerCounters { counted.withLock { $0 } }
    /// What became of the containers that it found. Any thread.
    package var discovery: DiscoveryCounters { tally.counters }

    /// Makes `run` return within a second or one request's time.
    package func stop() { isStopping.store(true, ordering: .releasing) }

    private var mayGoOn: Bool { !isStopping.load(ordering: .acquiring) }

    /// Follows until `stop`. Any failure is logged once, and tried again with growing pauses.
    package func run() {
        let known = KnownContainers(tally: tally, receive: receive)
        var pause = times.backoff
        var isConnected: Bool?
        while mayGoOn {
            do throws(HTTPClientError) {
                let since = wallClockNow() / 1_000_000_000
                let listed = monotonicNow()
                try list(known)
                if isConnected != true {
                    log.info("runtime_connected", ["runtime": label, "socket": "\(endpoint)"])
                }
                isConnected = true
                pause = times.backoff
                try follow(since: since, until: listed + times.listing.nanoseconds, known)
                // A feed that ends at once must not make this a busy loop.
                sleep(times.backoff)
            } catch {
                tally.noteError()
                if isConnected != false {
                    log.warn("runtime_lost", ["runtime": label, "error": error.description])
                }
                isConnected = false
                sleep(pause)
                pause = min(pause + pause, times.backoffMaximum)
            }
        }
    }

    private func sleep(_ length: Nanoseconds) {
        let end = monotonicNow() + length.nanoseconds
        while mayGoOn, monotonicNow() < end {
            sleepNanoseconds(min(50_000_000, max(1, end - monotonicNow())))
        }
    }

    private func client(_ bodyBytesMax: Int) -> HTTPClient {
        HTTPClient(target: endpoint, bodyBytesMax: bodyBytesMax)
    }

    /// Lists what runs, tells of what is new and what is gone.
    private func list(_ known: KnownContainers) throws(HTTPClientError) {
        let response = try client(AnswerLimits.listBytes).request(
            "GET", "/containers/json", timeout: times.request)
        counted.withLock { $0.listings += 1 }
        guard response.status == 200 else { throw refusal(response) }
        let ids: [String]
        do throws(AnswerError) {
            ids = try parseContainerList(response.body)
        } catch {
            throw .broken(endpoint, error.description)
        }
        let inspector = client(AnswerLimits.inspectBytes)
        for id in ids where mayGoOn { try look(at: id, inspector, known) }
        if mayGoOn { known.keep(Set(ids)) }
    }

    /// Inspects one container and tells what changed. A container that is gone is no error.
    private func look(
        at id: String, _ client: HTTPClient, _ known: KnownContainers
    ) throws(HTTPClientError) {
        let response = try client.request(
            "GET", "/containers/\(id)/json", timeout: times.request)
        guard response.status == 200 else {
            guard response.status == 404 else { throw refusal(response) }
            known.forget(id)
            return
        }
        do throws(AnswerError) {
            let container = try parseInspection(response.body)
            guard container.id == id else { throw AnswerError("\(id) is answered by another") }
            let labels = ContainerLabels(container.labels, environment: container.environment)
            if let found = try found(container, labels, known) {
                if known.byID[id] != found { warn(labels.problems, found.name, log) }
                known.note(found, id: id, problems: !labels.problems.isEmpty)
            } else {
                known.forget(id)
            }
        } catch {
            refuse(error)
        }
    }

    /// Where a running container's group is, and what its labels say; nil when it does not run, or is not to be told of.
    private func found(
        _ container: InspectedContainer, _ labels: ContainerLabels, _ known: KnownContainers
    ) throws(AnswerError) -> FoundContainer? {
        guard let pid = container.pid else { return nil }
        guard rules.takes(labels.settings) else {
            known.refuse(.unlabelled, id: container.id, life: container.startedAt)
            return nil
        }
        // A process that ended meanwhile has no group: its event will say so.
        guard let path = groupOfProcess(pid) else { return nil }
        guard let group = containerGroup(path, id: container.id) else {
            known.refuse(.foreignGroup, id: container.id, life: container.startedAt)
            throw AnswerError(
                "the group \(path) of \(container.name) is not its own; offloadd must see the host's groups"
            )
        }
        return FoundContainer(
            name: "\(label):\(container.name)",
            function: labels.function ?? functionName(ofContainer: container.name), group: group,
            settings: labels.settings, life: container.startedAt)
    }

    /// Reads events from `since` on until the feed ends or `deadline`.
    private func follow(
        since: Int64, until deadline: Int64, _ known: KnownContainers
    ) throws(HTTPClientError) {
        let filters = PercentEncoding.encode(#"{"type":["container"]}"#)
        let inspector = client(AnswerLimits.inspectBytes)
        var lines = EventLines()
        var failure: HTTPClientError?
        counted.withLock { $0.connections += 1 }
        let (_, refused) = try client(AnswerLimits.inspectBytes).stream(
            "/events?since=\(since)&filters=\(filters)", connectTimeout: times.request
        ) { piece in
            for line in lines.take(piece) {
                guard let event = self.event(line), event.isRelevant else { continue }
                do throws(HTTPClientError) {
                    try self.look(at: event.id, inspector, known)
                } catch {
                    failure = error
                    return false
                }
            }
            return self.mayGoOn
        } mayGoOn: {
            self.mayGoOn && monotonicNow() < deadline
        }
        if lines.dropped > 0 { refuse(AnswerError("\(lines.dropped) events were too long")) }
        if let failure { throw failure }
        if let refused { throw refusal(refused) }
    }

    private func event(_ line: [UInt8]) -> RuntimeEvent? {
        counted.withLock { $0.events += 1 }
        do throws(AnswerError) {
            return try parseRuntimeEvent(line)
        } catch {
            refuse(error)
            return nil
        }
    }

    private func refuse(_ error: AnswerError) {
        counted.withLock { $0.refused += 1 }
        tally.noteError()
        log.warn("runtime_answer_refused", ["runtime": label, "error": error.description])
    }

    private func refusal(_ response: HTTPResponse) -> HTTPClientError {
        .broken(endpoint, "status \(response.status): \(response.text.prefix(200))")
    }
}

/// Says which labels are not understood.
func warn(_ problems: [String], _ container: String, _ log: Logger) {
    for problem in problems.prefix(8) {
        log.warn("label_refused", ["container": container, "error": problem])
    }
}

/// The container's own group in the path of one of its processes: the part up to what names its id. Nil when nothing names
/// it: then the group may be somebody else's too.
package func containerGroup(_ path: String, id: String) -> String? {
    guard isAbsolutePath(path), !pathComponents(path).contains("..") else { return nil }
    if let identity = containerIdentity(ofGroup: path), identity.id == id { return identity.group }
    let components = pathComponents(path)
    guard id.utf8.count >= 12, let index = components.firstIndex(where: { contains($0, id) })
    else { return nil }
    return "/" + components[...index].joined(separator: "/")
}

private func contains(_ text: Substring, _ part: String) -> Bool {
    text.indices.contains { text[$0...].hasPrefix(part) }
}
