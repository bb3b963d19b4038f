import Containers
import FarMemory
import Glibc
import LinuxSystem
package import OffloadPolicy

// The law without events. A group whose path matches a pattern is a container, and so is each that discovery tells of. It is
// busy (a request runs) while it uses more than the given share of a processor, and idle when it has not for
// the quiet time. When the group is gone, the container has stopped. The Puckets of one that matches a pattern begin when it
// is found; one that discovery tells of may have just begun: its initialization is done when it first rests, or after a minute.

/// A container that discovery tells of, instead of a gateway.
package struct DiscoveredContainer: Equatable, Sendable {
    /// Unique among all containers.
    package var name: String
    package var function: String
    /// Path below the memory controller's mount.
    package var group: String
    package var settings: ContainerSettings

    package init(name: String, function: String, group: String, settings: ContainerSettings) {
        self.name = name
        self.function = function
        self.group = group
        self.settings = settings
    }
}

/// Makes lifecycle events out of watched groups. Belongs to the control thread.
struct ContainerWatcher {
    private struct Watched {
        var name: String
        var group: MemoryGroup
        var processorTime: Nanoseconds?
        var foundAt: Int64
        var lookedAt: Int64
        var busyAt: Int64?
        var isBusy = false
        var isLaunching = false
    }

    private static let discoveryInterval: Int64 = 1_000_000_000
    private static let activityInterval: Int64 = 200_000_000
    private static let launchMaximum: Int64 = 60_000_000_000

    private let settings: EngineSettings
    private let groups: ControlGroups
    /// By the group's path.
    private var watched: [String: Watched] = [:]
    private var discoveredAt = Int64.min

    init(settings: EngineSettings, groups: ControlGroups) {
        self.settings = settings
        self.groups = groups
    }

    /// What happened to watched groups since the last look. `isTaken`: groups that a gateway reports on.
    mutating func look(at now: Int64, isTaken: (String) -> Bool) -> [LifecycleEvent] {
        guard !settings.watchPatterns.isEmpty || !watched.isEmpty else { return [] }
        var events: [LifecycleEvent] = []
        if discoveredAt == .min || now - discoveredAt >= Self.discoveryInterval {
            discoveredAt = now
            discover(now, isTaken, &events)
        }
        for path in watched.keys.sorted() { followActivity(path, now, &events) }
        return events
    }

    /// Watches a container that discovery tells of.
    mutating func adopt(_ container: DiscoveredContainer, at now: Int64) -> [LifecycleEvent] {
        var events: [LifecycleEvent] = []
        if let old = watched.removeValue(forKey: container.group) {
            // It matched a pattern before, or its labels changed: discovery knows better.
            events.append(LifecycleEvent(kind: .containerStopped, container: old.name))
        }
        guard let group = try? groups.open(container.group) else { return events }
        watched[container.group] = Watched(
            name: container.name, group: group, processorTime: group.processorTime(),
            foundAt: now, lookedAt: now, isLaunching: true)
        var started = LifecycleEvent(
            kind: .containerStarted, container: container.name, function: container.function,
            controlGroup: container.group)
        started.settings = container.settings
        events.append(started)
        return events
    }

    /// Whether the group at this path is watched, and no gateway's.
    func watches(_ path: String) -> Bool { watched[path] != nil }

    /// A container ended, says discovery.
    mutating func drop(_ name: String) -> [LifecycleEvent] {
        guard let path = watched.first(where: { $0.value.name == name })?.key else { return [] }
        watched[path] = nil
        return [LifecycleEvent(kind: .containerStopped, container: name)]
    }

    /// A gateway reports on this group from now on: it knows more than the use of the processor says.
    mutating func yield(_ path: String) -> [LifecycleEvent] {
        guard let old = watched.removeValue(forKey: path) else { return [] }
        return [LifecycleEvent(kind: .containerStopped, container: old.name)]
    }

    private mutating func discover(
        _ now: Int64, _ isTaken: (String) -> Bool, _ events: inout [LifecycleEvent]
    ) {
        for (path, entry) in watched where !entry.group.isCurrent {
            watched[path] = nil
            events.append(LifecycleEvent(kind: .containerStopped, container: entry.name))
        }
        guard !settings.watchPatterns.isEmpty else { return }
        let paths = (try? groups.groups(below: "/", depth: Limits.watchDepth)) ?? []
        for path in paths where watched[path] == nil && matches(path) && !isTaken(path) {
            guard let group = try? groups.open(path), (try? group.processes())?.isEmpty == false
            else { continue }
            watched[path] = Watched(
                name: path, group: group, processorTime: group.processorTime(), foundAt: now,
                lookedAt: now)
            events.append(
                LifecycleEvent(
                    kind: .containerStarted, container: path, function: functionName(path),
                    controlGroup: path))
            events.append(LifecycleEvent(kind: .initDone, container: path))
        }
    }

    private func matches(_ path: String) -> Bool {
        settings.watchPatterns.contains { unsafe fnmatch($0, path, FNM_PATHNAME) == 0 }
    }

    private mutating func followActivity(
        _ path: String, _ now: Int64, _ events: inout [LifecycleEvent]
    ) {
        guard var entry = watched[path], now - entry.lookedAt >= Self.activityInterval else {
            return
        }
        defer { watched[path] = entry }
        let time = entry.group.processorTime()
        let elapsed = now - entry.lookedAt
        let before = entry.processorTime
        entry.lookedAt = now
        entry.processorTime = time
        guard let time, let before else { return }
        let used = max(0, (time - before).nanoseconds)
        let isBusy = UInt64(used) * 1000 > UInt64(elapsed) * settings.busyPermille
        if isBusy { entry.busyAt = now }
        let isQuiet =
            !isBusy && now - (entry.busyAt ?? entry.foundAt) >= settings.quietTime.nanoseconds
        if entry.isLaunching {
            guard isQuiet || now - entry.foundAt >= Self.launchMaximum else { return }
            entry.isLaunching = false
            events.append(LifecycleEvent(kind: .initDone, container: entry.name))
        }
        if isBusy, !entry.isBusy {
            entry.isBusy = true
            events.append(LifecycleEvent(kind: .requestStart, container: entry.name))
        } else if isQuiet, entry.isBusy {
            entry.isBusy = false
            events.append(LifecycleEvent(kind: .requestEnd, container: entry.name))
        }
    }

    /// Containers of one function share what is learned: the last component without a trailing number
    /// or a long hexadecimal name's tail.
    private func functionName(_ path: String) -> String {
        let name = pathComponents(path).last.map(String.init) ?? path
        guard let dash = name.lastIndex(of: "-") else { return name }
        let tail = name[name.index(after: dash)...]
        return tail.allSatisfy(\.isNumber) && !tail.isEmpty ? String(name[..<dash]) : name
    }
}
