import CommandLineKit
import ContainerDiscovery
import Containers
import FarMemory
import LinuxSystem
import OffloadEngine
import Telemetry

/// Where containers are looked for.
enum DiscoverySource: Equatable, Sendable {
    /// A runtime with Docker's API; the label begins its containers' names.
    case runtime(label: String, Endpoint)
    case controlGroups

    /// Reads `--discover`.
    init(_ text: String) throws {
        switch text {
        case "docker": self = .runtime(label: text, .unix(path: "/var/run/docker.sock"))
        case "podman": self = .runtime(label: text, .unix(path: "/run/podman/podman.sock"))
        case "cgroups": self = .controlGroups
        default:
            if text.hasPrefix("unix:"), let endpoint = try? Units.endpoint(text) {
                self = .runtime(label: "docker", endpoint)
                return
            }
            let hint =
                nearestName(to: text, among: ["docker", "podman", "cgroups"])
                .map { "did you mean '\($0)'?" } ?? "use docker, podman, cgroups or unix:PATH"
            throw UsageError("--discover: '\(text)' is no source; \(hint)")
        }
    }
}

/// The sources that a command line names, each once.
func discoverySources(_ invocation: Invocation) throws -> [DiscoverySource] {
    var sources: [DiscoverySource] = []
    for text in invocation.strings("discover") {
        let source = try DiscoverySource(text)
        if !sources.contains(source) { sources.append(source) }
    }
    guard sources.count <= 8 else { throw UsageError("--discover: at most 8 sources") }
    return sources
}

/// The threads that find containers for a controller.
final class Discovery: Sendable {
    private let followers: [(label: String, follower: RuntimeFollower)]
    private let scanners: [GroupScanner]

    /// Starts nothing yet.
    init(
        _ sources: [DiscoverySource], takesUnlabelled: Bool, groups: ControlGroups,
        controller: Controller, log: Logger
    ) {
        var rules = DiscoveryRules()
        rules.takesUnlabelled = takesUnlabelled
        let receive: ChangeReceiver = { change in
            switch change {
            case .appeared(let found):
                controller.adopt(
                    DiscoveredContainer(
                        name: found.name, function: found.function, group: found.group,
                        settings: found.settings))
            case .gone(let name): controller.drop(name)
            }
        }
        var followers: [(label: String, follower: RuntimeFollower)] = []
        var scanners: [GroupScanner] = []
        for source in sources {
            switch source {
            case .runtime(let label, let endpoint):
                let follower = RuntimeFollower(
                    label: label, endpoint: endpoint, rules: rules, log: log,
                    groupOfProcess: { (try? groups.path(ofProcess: $0)) ?? nil },
                    receive: receive)
                followers.append((label, follower))
            case .controlGroups:
                scanners.append(
                    GroupScanner(groups: groups, rules: rules, log: log, receive: receive))
            }
        }
        self.followers = followers
        self.scanners = scanners
    }

    /// Starts a thread for each source; they run until `stop`.
    func start() throws(SystemError) {
        for (_, follower) in followers { _ = try WorkerThread("fm-follow") { follower.run() } }
        for scanner in scanners { _ = try WorkerThread("fm-scan") { scanner.run() } }
    }

    /// What the sources count, in the Prometheus text format. Any thread.
    var metrics: String {
        discoveryMetrics(
            followers.map { ($0.label, $0.follower.discovery) }
                + scanners.map { ("cgroups", $0.discovery) })
    }

    /// Ends the threads. A request that hangs is left to its deadline: nothing waits for it.
    func stop() {
        for (_, follower) in followers { follower.stop() }
        for scanner in scanners { scanner.stop() }
    }
}
