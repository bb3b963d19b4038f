package import FarMemory

/// What is set for one container or function beside what holds for all. Nil: as for all.
package struct ContainerSettings: Equatable, Sendable {
    /// False: no page of it is moved. Nothing overrides a false.
    package var offloads: Bool?
    /// Requests in a window; 0 lets it grow by itself.
    package var requestWindow: UInt32?
    /// Idle time before it is drained; 0 learns it.
    package var semiWarmDelay: Nanoseconds?
    /// Local memory that it keeps.
    package var floor: ByteCount?

    package init() {}

    /// These, and where they say nothing, the others. Who says that nothing may move is heard, whoever it is.
    package func over(_ other: ContainerSettings) -> ContainerSettings {
        var merged = self
        merged.offloads =
            offloads == false || other.offloads == false ? false : offloads ?? other.offloads
        merged.requestWindow = requestWindow ?? other.requestWindow
        merged.semiWarmDelay = semiWarmDelay ?? other.semiWarmDelay
        merged.floor = floor ?? other.floor
        return merged
    }
}
