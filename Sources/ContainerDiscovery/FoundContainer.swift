package import OffloadPolicy

/// A container that runs on this host.
package struct FoundContainer: Equatable, Sendable {
    /// `docker:web-1`; unique on this host.
    package var name: String
    package var function: String
    /// Path of its group below the memory controller's mount.
    package var group: String
    package var settings: ContainerSettings
    /// Tells one start of a container from the next: each has a group of its own, of the same name.
    package var life: String

    package init(
        name: String, function: String, group: String, settings: ContainerSettings,
        life: String = ""
    ) {
        self.name = name
        self.function = function
        self.group = group
        self.settings = settings
        self.life = life
    }
}

/// What a follower or scanner tells.
package enum ContainerChange: Equatable, Sendable {
    case appeared(FoundContainer)
    /// By its name.
    case gone(String)
}

/// Takes changes; false when it cannot now, and wants to hear them again with the next listing. Called by the thread that
/// follows.
package typealias ChangeReceiver = @Sendable (ContainerChange) -> Bool

/// Which containers are to be told of at all.
package struct DiscoveryRules: Equatable, Sendable {
    /// Whether those that no label speaks for are offloaded: else only `farmem.offload=true`.
    package var takesUnlabelled = true

    package init() {}

    func takes(_ settings: ContainerSettings) -> Bool {
        takesUnlabelled || settings.offloads != nil
    }
}

/// What was told, so that only changes are. Belongs to the thread that follows.
final class KnownContainers {
    private(set) var byID: [String: FoundContainer] = [:]
    private let receive: ChangeReceiver
    private let tally: DiscoveryTally

    init(tally: DiscoveryTally, receive: @escaping ChangeReceiver) {
        self.tally = tally
        self.receive = receive
    }

    /// Tells of a container if it is new or another than was told. One of the same name must have ended: it goes first. `problems`: its
    /// labels were not all understood.
    func note(_ container: FoundContainer, id: String, problems: Bool) {
        if byID[id] == container { return }
        for other in byID.keys where other == id || byID[other]?.name == container.name {
            forget(other)
            guard byID[other] == nil else { return }
        }
        guard byID.count < AnswerLimits.containers else {
            return refuse(.limit, id: id, life: container.life)
        }
        guard receive(.appeared(container)) else { return tally.noteDeferred() }
        byID[id] = container
        let isOptedOut = container.settings.offloads == false
        tally.note(
            problems ? .refused(.label) : isOptedOut ? .optedOut : .taken, id: id,
            life: container.life)
    }

    /// Counts a container that runs and is not told of.
    func refuse(_ reason: DiscoveryRefusal, id: String, life: String) {
        tally.note(.refused(reason), id: id, life: life)
    }

    func forget(_ id: String) {
        guard let old = byID[id] else { return }
        if receive(.gone(old.name)) { byID[id] = nil } else { tally.noteDeferred() }
    }

    /// Forgets all that a listing does not have.
    func keep(_ ids: Set<String>) {
        tally.keep(ids)
        for id in byID.keys.sorted() where !ids.contains(id) { forget(id) }
    }
}
