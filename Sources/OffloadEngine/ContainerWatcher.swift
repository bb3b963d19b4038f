import Containers
import FarMemory
import Glibc
import LinuxSystem

// The law without events. A group whose path matches a pattern is a container; its Puckets begin when it is found. It is
// busy (a request runs) while it uses more than the given share of a processor, and idle when it has not for
// the quiet time. When the group is gone, the container has stopped.

/// Makes lifecycle events out of watched groups. Belongs to the control thread.
struct ContainerWatcher {
    private struct Watched {
        var group: MemoryGroup
        var processorTime: Nanoseconds?
        var lookedAt: Int64
        var busyAt: Int64?
        var isBusy = false
    }

    private static let discoveryInterval: Int64 = 1_000_000_000
    private static let activityInterval: Int64 = 200_000_000

    private let settings: EngineSettings
    private let groups: ControlGroups
    private var watched: [String: Watched] = [:]
    private var discoveredAt = Int64.min

    init(settings: EngineSettings, groups: ControlGroups) {
        self.settings = settings
        self.groups = groups
    }

    /// What happened to watched groups since the last look.
    mutating func look(at now: Int64) -> [LifecycleEvent] {
        guard !settings.watchPatterns.isEmpty else { return [] }
        var events: [LifecycleEvent] = []
        if discoveredAt == .min || now - discoveredAt >= Self.discoveryInterval {
            discoveredAt = now
            discover(now, &events)
        }
        for path in watched.keys.sorted() { followActivity(path, now, &events) }
        return events
    }

    private mutating func discover(_ now: Int64, _ events: inout [LifecycleEvent]) {
        for (path, entry) in watched where !entry.group.isCurrent {
            watched[path] = nil
            events.append(LifecycleEvent(kind: .containerStopped, container: path))
        }
        let paths = (try? groups.groups(below: "/", depth: Limits.watchDepth)) ?? []
        for path in paths where watched[path] == nil && matches(path) {
            guard let group = try? groups.open(path), (try? group.processes())?.isEmpty == false
            else { continue }
            watched[path] = Watched(
                group: group, processorTime: group.processorTime(), lookedAt: now)
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
        if UInt64(used) * 1000 > UInt64(elapsed) * settings.busyPermille {
            entry.busyAt = now
            if !entry.isBusy {
                entry.isBusy = true
                events.append(LifecycleEvent(kind: .requestStart, container: path))
            }
        } else if entry.isBusy, now - (entry.busyAt ?? now) >= settings.quietTime.nanoseconds {
            entry.isBusy = false
            events.append(LifecycleEvent(kind: .requestEnd, container: path))
        }
    }

    /// Containers of one function share what is learned: the last component without a trailing number
    /// or a long hexadecimal name's tail.
    private func functionName(_ path: String) -> String {
        let name = path.split(separator: "/").last.map(String.init) ?? path
        guard let dash = name.lastIndex(of: "-") else { return name }
        let tail = name[name.index(after: dash)...]
        return tail.allSatisfy(\.isNumber) && !tail.isEmpty ? String(name[..<dash]) : name
    }
}
