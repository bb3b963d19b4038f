import FarMemory
import LinuxSystem

// Functions come, change and go while the gateway runs. Containers that started under another manifest end when they are idle: a request that
// runs is never cut short. A function that went keeps its service, refusing requests, so that what its last containers still hold is
// accounted for, and its counters go on when it comes back.

/// What another set of manifests changed, by name.
package struct FunctionChanges: Equatable, Sendable {
    package internal(set) var added: [String] = []
    package internal(set) var changed: [String] = []
    package internal(set) var removed: [String] = []
}

extension FunctionGateway {
    /// Serves these functions from now on, and no others. From one thread at a time; not after stop().
    package func reload(_ manifests: [FunctionManifest]) -> FunctionChanges {
        var changes = FunctionChanges()
        for manifest in manifests {
            guard let service = service(manifest.name) else {
                add(manifest)
                changes.added.append(manifest.name)
                continue
            }
            let wasServed = service.isServed
            if wasServed && service.manifest == manifest { continue }
            for container in service.serve(manifest) { retire(container) }
            if wasServed {
                changes.changed.append(manifest.name)
            } else {
                changes.added.append(manifest.name)
            }
        }
        let names = Set(manifests.map(\.name))
        for service in servedFunctions where !names.contains(service.name) {
            for container in service.withdraw() { retire(container) }
            changes.removed.append(service.name)
        }
        return changes
    }
}

extension FunctionService {
    /// Goes by this manifest from now on. Returns the idle containers of the one before: they are the caller's to remove.
    func serve(_ manifest: FunctionManifest) -> [FunctionContainer] {
        // First the manifest: whoever gives a container back from now on sees that it is of another.
        set(manifest, isServed: true)
        pool.reopen()
        return pool.takeExpired(keepAlive: .zero, at: monotonicNow())
    }

    /// Refuses requests from now on. Returns the idle containers: they are the caller's to remove.
    func withdraw() -> [FunctionContainer] {
        set(manifest, isServed: false)
        return pool.close()
    }
}
