package import FarMemory
package import OffloadPolicy

/// What a gateway, or the watcher, says about a container.
package struct LifecycleEvent: Equatable, Sendable {
    package enum Kind: String, CaseIterable, Sendable {
        case containerStarted = "container_started"
        case runtimeReady = "runtime_ready"
        case initDone = "init_done"
        case requestStart = "request_start"
        case requestEnd = "request_end"
        case containerStopped = "container_stopped"
    }

    package var kind: Kind
    /// The sender's name of the container, unique among those that run.
    package var container: String
    /// Needed when it starts: function name, and the group's path below the controller's mount.
    package var function: String?
    package var controlGroup: String?
    /// When it starts: what is set for it, by labels say.
    package var settings = ContainerSettings()
    /// After which idle time the sender will end it, when it says.
    package var keepAlive: Nanoseconds?
    /// How long the request took that ended.
    package var latency: Nanoseconds?

    package init(
        kind: Kind, container: String, function: String? = nil, controlGroup: String? = nil,
        keepAlive: Nanoseconds? = nil, latency: Nanoseconds? = nil
    ) {
        self.kind = kind
        self.container = container
        self.function = function
        self.controlGroup = controlGroup
        self.keepAlive = keepAlive
        self.latency = latency
    }
}
