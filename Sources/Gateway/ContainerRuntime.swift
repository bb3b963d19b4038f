import FarMemory

/// What a runtime is to start.
package struct ContainerSpec: Sendable {
    /// Unique on this host: `web-7`.
    package var id: String
    package var manifest: FunctionManifest
    /// Directory of agent.py.
    package var agentDirectory: String
    /// Below the mount of each controller: `/farmem/web-7`.
    package var controlGroup: String
}

/// A container that runs.
package struct StartedContainer: Sendable {
    /// Host pid of its first process.
    package var pid: Int32
    /// The agent's socket, seen from the host.
    package var socket: String
}

/// Why a container could not be started or removed.
package struct RuntimeError: Error, Equatable, CustomStringConvertible {
    package var description: String
    package init(_ description: String) { self.description = description }
}

/// The seam to a container runtime. Calls come from several threads, each with another id, and return within bounded time.
package protocol ContainerRuntime: Sendable {
    /// Starts a container; when it returns, the first process runs, not necessarily the agent.
    func start(_ spec: ContainerSpec) throws(RuntimeError) -> StartedContainer
    /// Ends a container's processes and removes everything `start` made. A container that is not there is no error.
    func remove(_ id: String) throws(RuntimeError)
    /// Ids of containers that an earlier run left behind.
    func leftovers() -> [String]
    /// Removes what all containers share. After the last `remove`.
    func cleanUp()
}
