import FarMemory
import HTTPEndpoint
import JSONText
import LinuxSystem

/// Why a container could not answer a request.
enum ContainerFailure: Error, Equatable {
    case deadline(String)
    case broken(String)

    var message: String {
        switch self {
        case .deadline(let what), .broken(let what): what
        }
    }
}

/// One container that runs, with the connection to its agent.
final class FunctionContainer: @unchecked Sendable {
    // SAFETY of @unchecked: whoever took the container from the pool is its only user until it gives it back, and the pool's
    // mutex orders one holder's writes before the next one's reads. `id`, `manifest` and `process` never change.

    let id: String
    /// What it was started by.
    let manifest: FunctionManifest
    var function: String { manifest.name }
    let controlGroup: String
    private let process: ProcessHandle
    private let client: HTTPClient
    private(set) var requests = 0

    var pid: Int32 { process.pid }
    var hasEnded: Bool { process.hasEnded }

    private static let responseBytesMax = 8 << 20
    /// Between two looks whether the agent listens.
    private static let pollInterval: Int64 = 2_000_000

    init(_ spec: ContainerSpec, _ started: StartedContainer) throws(SystemError) {
        id = spec.id
        manifest = spec.manifest
        controlGroup = spec.controlGroup
        process = try ProcessHandle(pid: started.pid)
        client = HTTPClient(
            target: .unix(path: started.socket), bodyBytesMax: Self.responseBytesMax)
    }

    /// Waits until the agent answers: the runtime is up (barrier 1).
    func waitForRuntime(until deadline: Int64) throws(ContainerFailure) {
        guard case .unix(let socket) = client.target else { return }
        while !fileExists(socket) {
            if process.hasEnded { throw .broken("\(id) ended while it started") }
            if monotonicNow() > deadline { throw .deadline("\(id) did not start in time") }
            sleepNanoseconds(Self.pollInterval)
        }
        let response = try send("GET", "/status", nil, until: deadline)
        guard response.status == 200 else {
            throw .broken("\(id): the agent answered \(response.status) at start")
        }
    }

    /// Has the function initialized (barrier 2).
    func initialize(until deadline: Int64) throws(ContainerFailure) {
        let response = try send("POST", "/init", [], until: deadline)
        guard response.status == 200 else {
            let reason = (try? JSONValue.parse(response.body))?["error"]?.string
            throw .broken("\(id): initialization failed: \(reason ?? "status \(response.status)")")
        }
    }

    /// Runs one request.
    func run(_ body: [UInt8], until deadline: Int64) throws(ContainerFailure) -> HTTPResponse {
        requests += 1
        return try send("POST", "/run", body, until: deadline)
    }

    private func send(
        _ method: String, _ path: String, _ body: [UInt8]?, until deadline: Int64
    ) throws(ContainerFailure) -> HTTPResponse {
        let left = deadline - monotonicNow()
        guard left > 0 else { throw .deadline("\(id) had no time left for \(path)") }
        do throws(HTTPClientError) {
            return try client.request(method, path, body: body, timeout: Nanoseconds(left))
        } catch {
            if case .deadline = error { throw .deadline("\(id) did not answer \(path) in time") }
            throw .broken("\(id): \(error)")
        }
    }
}
