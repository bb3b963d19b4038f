package import Containers
package import FarMemory
import LinuxSystem
import Synchronization
package import Telemetry

// Where no runtime with Docker's API is asked (containerd, CRI-O under Kubernetes), the groups' names tell which containers
// there are, and the OCI bundle that the runtime keeps for each tells its annotations and names, if it can be read.

/// Where runtimes keep the bundle of a container: ID stands for its id.
package let bundlePaths = [
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
    "/run/containerd/io.containerd.runtime.v2.task/default/ID/config.json",
    "/run/containerd/io.containerd.runtime.v2.task/openfaas-fn/ID/config.json",
    "/run/containerd/io.containerd.runtime.v2.task/moby/ID/config.json",
    "/run/containers/storage/overlay-containers/ID/userdata/config.json",
    "/var/lib/containers/storage/overlay-containers/ID/userdata/config.json",
]

/// Which annotations name a container: namespace, pod, container.
private let nameAnnotations = [
    [
        "io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-name",
        "io.kubernetes.cri.container-name",
    ],
    ["io.kubernetes.pod.namespace", "io.kubernetes.pod.name", "io.kubernetes.container.name"],
]

/// Which annotations say that it is not the user's container, but holds its pod's namespaces.
private let sandboxAnnotations = [
    ("io.kubernetes.cri.container-type", "sandbox"),
    ("io.kubernetes.cri-o.ContainerType", "sandbox"),
]

/// Finds containers by the names of their groups, on a thread of its own.
package final class GroupScanner: Sendable {
    private let groups: ControlGroups
    private let rules: DiscoveryRules
    private let root: String
    private let interval: Nanoseconds
    private let log: Logger
    private let receive: ChangeReceiver
    private let isStopping = Atomic<Bool>(false)
    private let tally = DiscoveryTally()

    /// Depth of groups below the mount that are looked at: a pod's container in a cluster inside a container.
    private static let depth = 8

    /// `root` stands before the bundles' paths, for tests and for a host mounted elsewhere.
    package init(
        groups: ControlGroups, rules: DiscoveryRules, root: String = "",
        interval: Nanoseconds = .seconds(1), log: Logger, receive: @escaping ChangeReceiver
    ) {
        self.groups = groups
        self.rules = rules
        self.root = root
        self.interval = interval
        self.log = log
        self.receive = receive
    }

    /// What became of the containers that it found. Any thread.
    package var discovery: DiscoveryCounters { tally.counters }

    package func stop() { isStopping.store(true, ordering: .releasing) }

    private var mayGoOn: Bool { !isStopping.load(ordering: .acquiring) }

    /// Looks again and again until `stop`.
    package func run() {
        let known = KnownContainers(tally: tally, receive: receive)
        var told: Set<String> = []
        while mayGoOn {
            scan(known, &told)
            let end = monotonicNow() + interval.nanoseconds
            while mayGoOn, monotonicNow() < end {
                sleepNanoseconds(min(50_000_000, max(1, end - monotonicNow())))
            }
        }
    }

    /// One look. A tree that cannot be read tells nothing, so nothing is forgotten. `passedOver`: containers that are not to be
    /// told of, so that their bundles are read once.
    private func scan(_ known: KnownContainers, _ passedOver: inout Set<String>) {
        guard let paths = try? groups.groups(below: "/", depth: Self.depth) else {
            return tally.noteError()
        }
        var ids: Set<String> = []
        for path in paths {
            guard let identity = containerIdentity(ofGroup: path), identity.group == path,
                ids.count < AnswerLimits.containers
            else { continue }
            let key = identity.group
            ids.insert(key)
            if passedOver.contains(key) { continue }
            guard let group = try? groups.open(path) else { continue }
            let life = "\(group.inode)"
            if known.byID[key]?.life == life { continue }
            // A group without processes has only just been made: its container is told of when it runs.
            guard (try? group.processes())?.isEmpty == false else { continue }
            switch describe(identity, life) {
            case .refused(let reason):
                known.refuse(reason, id: key, life: life)
                passedOver.insert(key)
            case .found(let found, let problems):
                warn(problems, found.name, log)
                known.note(found, id: key, problems: !problems.isEmpty)
            }
        }
        known.keep(ids)
        passedOver.formIntersection(ids)
    }

    private enum Description {
        case found(FoundContainer, problems: [String])
        case refused(DiscoveryRefusal)
    }

    private func describe(_ identity: ContainerIdentity, _ life: String) -> Description {
        let (annotations, environment) = bundle(identity.id)
        if sandboxAnnotations.contains(where: { annotations[$0.0] == $0.1 }) {
            return .refused(.sandbox)
        }
        let labels = ContainerLabels(annotations, environment: environment)
        guard rules.takes(labels.settings) else { return .refused(.unlabelled) }
        let short = String(identity.id.prefix(12))
        let parts = nameAnnotations.map { $0.compactMap { annotations[$0] } }
            .first { $0.count == 3 && $0.allSatisfy { isPrintable($0, 1...80) } }
        let name =
            ([identity.runtime] + [parts.map { ($0 + [short]).joined(separator: "/") } ?? short])
            .joined(separator: ":")
        return .found(
            FoundContainer(
                name: name, function: labels.function ?? name, group: identity.group,
                settings: labels.settings, life: life), problems: labels.problems)
    }

    /// What the container's bundle says; nothing when it cannot be read or understood.
    private func bundle(
        _ id: String
    ) -> (annotations: [String: String], environment: [String: String]) {
        guard isPlainID(id), id != "..", id != "." else { return ([:], [:]) }
        for pattern in bundlePaths {
            let path =
                root
                + pattern.split(separator: "/", omittingEmptySubsequences: false)
                .map { $0 == "ID" ? id : String($0) }.joined(separator: "/")
            guard let bytes = try? readSmallFile(path, limit: AnswerLimits.inspectBytes) else {
                continue
            }
            do throws(AnswerError) {
                return try parseBundle(bytes)
            } catch {
                tally.noteError()
                log.warn("bundle_refused", ["file": path, "error": error.description])
            }
        }
        return ([:], [:])
    }
}
