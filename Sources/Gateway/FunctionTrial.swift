import FarMemory
package import HTTPEndpoint
import LinuxSystem

/// One container that is taken through its stages step by step, by somebody who looks at it between the steps.
/// One thread. Whoever starts one removes it.
package final class FunctionTrial {
    /// Below the mount of each controller.
    package let controlGroup: String
    /// Of the container's first process, on this host.
    package var pid: Int32 { container.pid }
    private let container: FunctionContainer
    private let runtime: any ContainerRuntime
    private let manifest: FunctionManifest

    /// Starts the container; when it returns, the agent need not listen yet.
    package init(
        _ manifest: FunctionManifest, runtime: any ContainerRuntime, agentDirectory: String,
        controlGroupParent: String, number: Int
    ) throws(RuntimeError) {
        let id = "\(manifest.name)-\(number)"
        let spec = ContainerSpec(
            id: id, manifest: manifest, agentDirectory: agentDirectory,
            controlGroup: "\(controlGroupParent)/\(id)")
        let started = try runtime.start(spec)
        do throws(SystemError) {
            container = try FunctionContainer(spec, started)
        } catch {
            try? runtime.remove(id)
            throw RuntimeError("\(id): \(error)")
        }
        controlGroup = spec.controlGroup
        self.runtime = runtime
        self.manifest = manifest
    }

    /// Waits for the agent (barrier 1).
    package func waitForRuntime() throws(RuntimeError) {
        try step(manifest.initTimeout) { deadline throws(ContainerFailure) in
            try container.waitForRuntime(until: deadline)
        }
    }

    /// Has the function initialized (barrier 2).
    package func initialize() throws(RuntimeError) {
        try step(manifest.initTimeout) { deadline throws(ContainerFailure) in
            try container.initialize(until: deadline)
        }
    }

    /// The answer to one request.
    package func run(_ body: [UInt8]) throws(RuntimeError) -> HTTPResponse {
        try step(manifest.runTimeout) { deadline throws(ContainerFailure) in
            try container.run(body, until: deadline)
        }
    }

    package func remove() throws(RuntimeError) { try runtime.remove(container.id) }

    private func step<Result>(
        _ timeout: Nanoseconds, _ body: (Int64) throws(ContainerFailure) -> Result
    ) throws(RuntimeError) -> Result {
        do throws(ContainerFailure) {
            return try body(monotonicNow() + timeout.nanoseconds)
        } catch {
            throw RuntimeError(error.message)
        }
    }
}
