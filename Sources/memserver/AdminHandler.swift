import CommandLineKit
import FarMemory
import HTTPEndpoint
import JSONText
import MemoryPool
import Telemetry

/// The admin API: GET /healthz, /metrics, /v1/status, /v1/leases; POST /v1/leases?name=&size=[&quota=][&key=],
/// DELETE /v1/leases/NAME. What changes something is answered on a unix socket only. Any thread.
struct AdminHandler: Sendable {
    private let pool: MemoryPool
    private let registry: MetricRegistry
    private let keyNames: [String]?
    private let isMutable: Bool
    private let listeners: [String]

    init(
        pool: MemoryPool, registry: MetricRegistry, keyNames: [String]?, isMutable: Bool,
        listeners: [String]
    ) {
        self.pool = pool
        self.registry = registry
        self.keyNames = keyNames
        self.isMutable = isMutable
        self.listeners = listeners
        Self.register(pool, registry)
    }

    func answer(_ request: HTTPRequest) -> HTTPResponse {
        switch (request.path, request.method) {
        case ("/healthz", "GET"): .text("ok\n")
        case ("/metrics", "GET"): .metrics(registry.render())
        case ("/v1/status", "GET"): .json(status())
        case ("/v1/leases", "GET"): .json(["schema": 1, "leases": leases()])
        case ("/v1/leases", "POST"): changing { try create(request) }
        case ("/healthz", _), ("/metrics", _), ("/v1/status", _): .methodNotAllowed("GET")
        case ("/v1/leases", _): .methodNotAllowed("GET, POST")
        default: lease(request)
        }
    }

    private func lease(_ request: HTTPRequest) -> HTTPResponse {
        let prefix = "/v1/leases/"
        guard request.path.hasPrefix(prefix) else { return .notFound }
        guard request.method == "DELETE" else { return .methodNotAllowed("DELETE") }
        return changing {
            try pool.release(String(request.path.dropFirst(prefix.count)))
            return .noContent
        }
    }

    private func changing(_ body: () throws -> HTTPResponse) -> HTTPResponse {
        guard isMutable else {
            return .error(403, "leases are changed over the admin unix socket only")
        }
        do {
            return try body()
        } catch let error as PoolError {
            return .error(httpStatus(error), error.description)
        } catch {
            return .error(400, "\(error)")
        }
    }

    private func httpStatus(_ error: PoolError) -> Int {
        switch error {
        case .noSuchLease: 404
        case .leaseExists, .leaseBusy: 409
        case .invalidName, .invalidSize: 400
        case .noSpace, .tooManyLeases: 507
        default: 500
        }
    }

    private func create(_ request: HTTPRequest) throws -> HTTPResponse {
        guard let name = request.query("name"), let size = request.query("size") else {
            return .error(400, "name= and size= are needed")
        }
        let key = request.query("key")
        if let key, keyNames?.contains(key) != true {
            return .error(400, "key '\(key)' is not in --auth-file")
        }
        let lease = try pool.create(
            name, size: try Units.size(size), quota: try request.query("quota").map(Units.size),
            owner: key, pinned: true)
        return .json(
            [
                "schema": 1, "name": JSONValue(lease.name),
                "size_bytes": JSONValue(lease.size.bytes),
            ],
            status: 201)
    }

    private func status() -> JSONValue {
        [
            "schema": 1, "version": JSONValue(ProductVersion.text),
            "pool": JSONValue(pool.options.directory),
            "capacity_bytes": JSONValue(pool.options.capacity.bytes),
            "slab_bytes": JSONValue(pool.slab.bytes),
            "granted_bytes": JSONValue(pool.grantedBytes.bytes),
            "refused_total": JSONValue(pool.ledger.refusedTotal),
            "grace_seconds": JSONValue(pool.options.grace.seconds),
            "keys": JSONValue(keyNames?.count ?? 0),
            "listeners": .array(listeners.map { JSONValue($0) }), "leases": leases(),
        ]
    }

    private func leases() -> JSONValue {
        .array(
            pool.leases().map { status in
                let lease = status.lease
                return [
                    "name": JSONValue(lease.name), "id": JSONValue(lease.id),
                    "size_bytes": JSONValue(lease.size.bytes),
                    "quota_bytes": JSONValue(lease.quota.bytes),
                    "granted_bytes": JSONValue(status.grantedSlabs * lease.slabBytes),
                    "stored_bytes": JSONValue(status.storedPages * pageBytes),
                    "clients": JSONValue(status.clients),
                    "pinned": JSONValue(lease.isPinned), "locked": JSONValue(lease.isLocked),
                    "key": JSONValue(lease.owner),
                    "expires_in_seconds": status.expiresIn.map { JSONValue($0.seconds) } ?? .null,
                ]
            })
    }

    private static func register(_ pool: MemoryPool, _ registry: MetricRegistry) {
        func gauge(_ name: String, _ help: String, _ value: @escaping @Sendable () -> UInt64) {
            registry.collectGauge(name, help: help) { [.init([:], Double(value()))] }
        }
        gauge("farmem_pool_capacity_bytes", "Memory that may be lent") {
            pool.options.capacity.bytes
        }
        gauge("farmem_pool_granted_bytes", "Memory granted now") { pool.grantedBytes.bytes }
        gauge("farmem_pool_leases", "Leases in the pool") { UInt64(pool.leases().count) }
        func counter(_ name: String, _ help: String, _ value: @escaping @Sendable () -> UInt64) {
            registry.collectCounter(name, help: help) { [.init([:], Double(value()))] }
        }
        counter("farmem_pool_slabs_granted_total", "Slabs granted") { pool.ledger.grantedTotal }
        counter("farmem_pool_slabs_returned_total", "Slabs given back") {
            pool.ledger.returnedTotal
        }
        counter("farmem_pool_grants_refused_total", "Grants that found no space") {
            pool.ledger.refusedTotal
        }
        registry.collectGauge("farmem_lease_stored_bytes", help: "Bytes that a lease holds") {
            pool.leases().map {
                .init(["lease": $0.lease.name], Double($0.storedPages * pageBytes))
            }
        }
        registry.collectGauge("farmem_lease_granted_bytes", help: "Memory granted to a lease") {
            pool.leases().map {
                .init(["lease": $0.lease.name], Double($0.grantedSlabs * $0.lease.slabBytes))
            }
        }
    }
}
