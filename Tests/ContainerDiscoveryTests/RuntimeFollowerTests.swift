import Containers
import FarMemory
import Glibc
import HTTPEndpoint
import LinuxSystem
import OffloadPolicy
import Synchronization
import Telemetry
import TestSupport
import Testing

@testable import ContainerDiscovery

/// A runtime whose answers can be changed, and that can go away and come back. Its event feed ends at once, so the
/// follower lists again and again.
private final class FakeRuntime: Sendable {
    struct State: Sendable {
        /// Labels, as JSON, by id.
        var containers: [String: String] = [:]
        var answersNonsense = false
        var startedAt = ""
    }
    let state = Mutex(State())
    let endpoint: Endpoint
    private let server = Mutex<HTTPServer?>(nil)

    init(_ directory: TemporaryDirectory) throws {
        endpoint = .unix(path: directory.file("api.sock"))
        try start()
    }

    func start() throws {
        let server = try HTTPServer(listen: endpoint) { [self] in answer($0) }
        self.server.withLock { $0 = server }
    }

    func stop() { server.withLock { $0.take() }?.stop(drain: .zero) }

    private func answer(_ request: HTTPRequest) -> HTTPResponse {
        state.withLock { state in
            if state.answersNonsense { return .text("<html>") }
            if request.path == "/events" { return .text("") }
            if request.path == "/containers/json" {
                let items = state.containers.keys.sorted().map { #"{"Id":"\#($0)"}"# }
                return .text("[\(items.joined(separator: ","))]")
            }
            let parts = request.path.split(separator: "/")
            guard parts.count == 3, let labels = state.containers[String(parts[1])] else {
                return .error(404, "no such container")
            }
            return .text(
                #"{"Id":"\#(parts[1])","Name":"/c\#(parts[1].prefix(4))","#
                    + #""State":{"Running":true,"Pid":77,"StartedAt":"\#(state.startedAt)"},"Config":{"Labels":\#(labels)}}"#
            )
        }
    }
}

private final class Changes: Sendable {
    private let all = Mutex<[ContainerChange]>([])
    let refuses = Atomic<Bool>(false)

    func take(_ change: ContainerChange) -> Bool {
        if refuses.load(ordering: .acquiring) { return false }
        all.withLock { $0.append(change) }
        return true
    }

    var list: [ContainerChange] { all.withLock { $0 } }
}

private func wait(_ what: String, _ condition: () -> Bool) throws {
    let deadline = monotonicNow() + 30_000_000_000
    while !condition() {
        try #require(monotonicNow() < deadline, "not seen: \(what)")
        sleepNanoseconds(2_000_000)
    }
}

@Suite(.timeLimit(.minutes(2))) struct RuntimeFollowerTests {
    private static let first = String(repeating: "1", count: 64)
    private static let second = String(repeating: "2", count: 64)

    private func inWorld(
        takesUnlabelled: Bool = true,
        _ body: (FakeRuntime, RuntimeFollower, Changes) throws -> Void
    ) throws {
        ignoreBrokenPipes()
        let directory = try TemporaryDirectory()
        let runtime = try FakeRuntime(directory)
        defer { runtime.stop() }
        let changes = Changes()
        var times = FollowerTimes()
        times.backoff = .milliseconds(5)
        times.backoffMaximum = .milliseconds(20)
        var rules = DiscoveryRules()
        rules.takesUnlabelled = takesUnlabelled
        let follower = RuntimeFollower(
            label: "fake", endpoint: runtime.endpoint, rules: rules, times: times,
            log: Logger(level: .error), groupOfProcess: { _ in "/docker/\(Self.first)" },
            receive: { changes.take($0) })
        let thread = try WorkerThread("follower") { follower.run() }
        defer {
            follower.stop()
            thread.join()
        }
        try body(runtime, follower, changes)
    }

    private func awaitListings(_ count: UInt64, _ follower: RuntimeFollower) throws {
        let wanted = follower.counters.listings + count
        try wait("\(count) listings") { follower.counters.listings >= wanted }
    }

    @Test func aContainerIsToldOfOnceAndItsEndToo() throws {
        try inWorld { runtime, follower, changes in
            runtime.state.withLock { $0.containers[Self.first] = #"{"farmem.function":"f"}"# }
            let found = FoundContainer(
                name: "fake:c1111", function: "f", group: "/docker/\(Self.first)",
                settings: ContainerSettings())
            try wait("the container") { changes.list == [.appeared(found)] }
            try awaitListings(3, follower)
            #expect(changes.list == [.appeared(found)], "listed again, and not told again")
            runtime.state.withLock { $0.containers = [:] }
            try wait("its end") { changes.list == [.appeared(found), .gone("fake:c1111")] }
        }
    }

    @Test func whatChangedWhileTheRuntimeWasAwayIsMadeGood() throws {
        try inWorld { runtime, _, changes in
            runtime.state.withLock { $0.containers[Self.first] = #"{"farmem.floor":"1MiB"}"# }
            try wait("the container") { changes.list.count == 1 }
            runtime.stop()
            sleepNanoseconds(100_000_000)
            #expect(changes.list.count == 1, "nothing is forgotten while the runtime is away")
            runtime.state.withLock { $0.containers[Self.first] = #"{"farmem.floor":"2MiB"}"# }
            try runtime.start()
            try wait("the changed label") { changes.list.count == 3 }
            #expect(changes.list[1] == .gone("fake:c1111"))
            guard case .appeared(let again) = changes.list[2] else {
                Issue.record("\(changes.list)")
                return
            }
            #expect(again.settings.floor == .mib(2))
        }
    }

    @Test func aRestartedContainerIsAnotherOne() throws {
        try inWorld { runtime, _, changes in
            runtime.state.withLock {
                $0.containers[Self.first] = "{}"
                $0.startedAt = "1"
            }
            try wait("the container") { changes.list.count == 1 }
            runtime.state.withLock { $0.startedAt = "2" }
            try wait("its next life") { changes.list.count == 3 }
            #expect(changes.list[1] == .gone("fake:c1111"))
        }
    }

    @Test func nonsenseChangesNothingAndIsSurvived() throws {
        try inWorld { runtime, follower, changes in
            runtime.state.withLock { $0.containers[Self.first] = "{}" }
            try wait("the container") { changes.list.count == 1 }
            runtime.state.withLock { $0.answersNonsense = true }
            try awaitListings(3, follower)
            #expect(changes.list.count == 1)
            runtime.state.withLock {
                $0.answersNonsense = false
                $0.containers = [:]
            }
            try wait("its end") { changes.list.count == 2 }
        }
    }

    @Test func whatWasNotTakenIsToldAgain() throws {
        try inWorld { runtime, follower, changes in
            changes.refuses.store(true, ordering: .releasing)
            runtime.state.withLock { $0.containers[Self.first] = "{}" }
            try awaitListings(3, follower)
            #expect(changes.list.isEmpty)
            changes.refuses.store(false, ordering: .releasing)
            try wait("the container") { changes.list.count == 1 }
        }
    }

    @Test func onlyThoseThatSaySoWhereLabelsDecide() throws {
        try inWorld(takesUnlabelled: false) { runtime, follower, changes in
            runtime.state.withLock { $0.containers[Self.first] = #"{"farmem.floor":"1MiB"}"# }
            try awaitListings(3, follower)
            #expect(changes.list.isEmpty)
            runtime.state.withLock { $0.containers[Self.first] = #"{"farmem.offload":"true"}"# }
            try wait("the labelled one") { changes.list.count == 1 }
        }
    }

    @Test func whatBecameOfEachIsCountedOnceInItsLife() throws {
        try inWorld { runtime, follower, changes in
            runtime.state.withLock { $0.containers[Self.first] = "{}" }
            try wait("the container") { changes.list.count == 1 }
            try awaitListings(3, follower)
            var expected = DiscoveryCounters()
            expected.seen = 1
            #expect(follower.discovery == expected, "listed again, and not counted again")
            runtime.state.withLock { state in
                state.containers[Self.first] = #"{"farmem.offload":"false"}"#
                state.startedAt = "2"
            }
            try wait("the one that keeps out") { follower.discovery.optedOut == 1 }
            runtime.state.withLock { state in
                state.containers[Self.first] = #"{"farmem.ofload":"true"}"#
                state.startedAt = "3"
            }
            try wait("the misspelt one") { follower.discovery.refused[.label] == 1 }
            runtime.state.withLock { $0.containers = [Self.second: "{}"] }
            try wait("one in a group not its own") {
                follower.discovery.refused[.foreignGroup] == 1
            }
            try awaitListings(3, follower)
            #expect(follower.discovery.seen == 4)
            #expect(follower.discovery.optedOut == 1)
            #expect(follower.discovery.refused == [.label: 1, .foreignGroup: 1])
        }
    }

    @Test func errorsOfTheRuntimeAreCounted() throws {
        try inWorld { runtime, follower, _ in
            try awaitListings(1, follower)
            let before = follower.discovery.errors
            runtime.state.withLock { $0.answersNonsense = true }
            try wait("answers that are not understood") { follower.discovery.errors > before }
            runtime.stop()
            let later = follower.discovery.errors
            try wait("requests that fail") { follower.discovery.errors > later + 3 }
            try runtime.start()
        }
    }

    @Test func aContainerInAGroupThatIsNotItsOwnIsLeftAlone() throws {
        try inWorld { runtime, follower, changes in
            runtime.state.withLock { $0.containers[Self.second] = "{}" }
            try wait("two refusals") { follower.counters.refused >= 2 }
            #expect(changes.list.isEmpty)
        }
    }
}

@Suite(.timeLimit(.minutes(1))) struct GroupScannerTests {
    private func bundle(_ directory: TemporaryDirectory, _ id: String, _ text: String) throws {
        let path = directory.file(
            "run/containerd/io.containerd.runtime.v2.task/k8s.io/\(id)")
        try makeDirectories(path)
        try replaceFile("\(path)/config.json", with: text)
    }

    @Test func podsAreFoundByTheirGroupsAndNamedByTheirBundles() throws {
        let directory = try TemporaryDirectory()
        let uid = "1b2e8d9c-5d0b-4e57-9d5e-0a1b2c3d4e5f"
        let ids = ["a", "b", "c"].map { String(repeating: $0, count: 64) }
        for id in ids {
            try makeDirectories(directory.file("cgroup/kubepods/burstable/pod\(uid)/\(id)"))
            try replaceFile(
                directory.file("cgroup/kubepods/burstable/pod\(uid)/\(id)/cgroup.procs"),
                with: "1\n")
        }
        func annotations(_ type: String, _ more: String) -> String {
            #"{"annotations":{"io.kubernetes.cri.container-type":"\#(type)","#
                + #""io.kubernetes.cri.sandbox-namespace":"default","#
                + #""io.kubernetes.cri.sandbox-name":"hello-7d","#
                + #""io.kubernetes.cri.container-name":"user-container"\#(more)},"#
                + #""process":{"env":["K_SERVICE=hello"]}}"#
        }
        try bundle(directory, ids[0], annotations("sandbox", ""))
        try bundle(directory, ids[1], annotations("container", #","farmem.floor":"32MiB""#))
        let changes = Changes()
        let scanner = GroupScanner(
            groups: ControlGroups(
                version: .v2, memoryMount: directory.file("cgroup"), processorMount: nil),
            rules: DiscoveryRules(), root: directory.path, interval: .milliseconds(5),
            log: Logger(level: .error), receive: { changes.take($0) })
        let thread = try WorkerThread("scanner") { scanner.run() }
        defer {
            scanner.stop()
            thread.join()
        }
        try wait("both containers") { changes.list.count == 2 }
        let found = changes.list.compactMap { change -> FoundContainer? in
            guard case .appeared(var container) = change else { return nil }
            container.life = ""
            return container
        }
        var settings = ContainerSettings()
        settings.floor = .mib(32)
        let group = "/kubepods/burstable/pod\(uid)"
        #expect(scanner.discovery.seen == 3)
        #expect(scanner.discovery.refused == [.sandbox: 1])
        #expect(
            found.contains(
                FoundContainer(
                    name: "cri:default/hello-7d/user-container/bbbbbbbbbbbb", function: "hello",
                    group: "\(group)/\(ids[1])", settings: settings)))
        #expect(
            found.contains(
                FoundContainer(
                    name: "cri:cccccccccccc", function: "cri:cccccccccccc",
                    group: "\(group)/\(ids[2])", settings: ContainerSettings())))
        unsafe unlink(directory.file("cgroup\(group)/\(ids[2])/cgroup.procs"))
        unsafe rmdir(directory.file("cgroup\(group)/\(ids[2])"))
        try wait("its end") { changes.list.contains(.gone("cri:cccccccccccc")) }
    }
}

@Suite struct DiscoveryMetricsTests {
    @Test func sourcesOfOneNameAreOneSeries() {
        var one = DiscoveryCounters()
        one.seen = 3
        one.refused = [.label: 1]
        one.errors = 7
        var other = DiscoveryCounters()
        other.seen = 2
        other.optedOut = 1
        let text = discoveryMetrics([("docker", one), ("docker", other), ("cgroups", other)])
        let lines = Set(text.split(separator: "\n").map(String.init))
        let name = "farmem_offload_discovery"
        for line in [
            "# TYPE \(name)_containers_total counter",
            "\(name)_containers_total{source=\"docker\"} 5",
            "\(name)_containers_total{source=\"cgroups\"} 2",
            "\(name)_opt_outs_total{source=\"docker\"} 1",
            "\(name)_refused_total{source=\"docker\",reason=\"label\"} 1",
            "\(name)_refused_total{source=\"cgroups\",reason=\"foreign-group\"} 0",
            "\(name)_errors_total{source=\"docker\"} 7",
            "\(name)_deferred_total{source=\"docker\"} 0",
        ] {
            #expect(lines.contains(line), "\(line) is not in:\n\(text)")
        }
        #expect(discoveryMetrics([]).isEmpty)
    }
}
