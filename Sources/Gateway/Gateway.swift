// Gateway: runs functions in containers and routes requests to them.
//
// Purpose: a keep-alive pool of containers per function, one request per container at a time, and the lifecycle events that
// the offload controller goes by.
// Thread model: requests come on the HTTP server's threads and may block to their deadlines; one thread (the caretaker)
// removes containers, one sends events. Shared state is under mutexes that are never held across a wait.
// Invariants: a container belongs to one holder at a time: the idle list, a request, or the caretaker. Every wait has a
// deadline, every queue a bound. A controller that is slow or gone never delays a request.
// Must not import: Foundation, OffloadEngine, OffloadPolicy.

package import FarMemory

/// The gateway's bounds.
package struct GatewayLimits: Equatable, Sendable {
    /// Containers of one function at a time, starting ones included.
    package var containersPerFunction = 8
    /// Requests of one function that wait for a container; more are refused with 503.
    package var waitersPerFunction = 64
    /// How long a request waits for a container before it is refused with 503.
    package var waitTimeout = Nanoseconds.seconds(30)
    /// An idle container is removed after this time.
    package var keepAlive = Nanoseconds.seconds(600)
    /// Bytes of a request's body.
    package var bodyBytesMax = 1 << 20
    /// Events that wait for the controller; more are dropped and counted.
    package var eventsMax = 4096

    package init() {}
}

/// Where a container's agent listens, seen from the host and from inside.
enum AgentPaths {
    static let directoryInside = "/farmem/run"
    static let socketName = "agent.sock"
    static let agentInside = "/farmem/agent"
    static let functionInside = "/farmem/function"
}
