import CommandLineKit
import FarMemory
import HTTPEndpoint
import JSONText

private let adminOption = Option(
    "admin", .endpoint,
    help: "The server's admin API (default unix:/run/farmem/memserver-admin.sock)."
)

let leaseCommand = Command(
    name: "lease", summary: "make, list and release leases", options: [adminOption],
    subcommands: [createCommand, listCommand, releaseCommand])

private let createCommand = Command(
    name: "create", summary: "make a lease that no grace period ends",
    options: [
        Option("size", .size, required: true, help: "Length of its address space."),
        Option("quota", .size, help: "Most memory that it may hold (default: its size)."),
        Option("key", .string, placeholder: "NAME", help: "The key of --auth-file that owns it."),
        .json,
    ],
    positionals: [Positional("name", help: "The lease, and its NBD export.")], configurable: false
) { invocation in
    var items = [("name", invocation.positional("name"))]
    items.append(("size", invocation.size("size").description))
    if let quota = invocation.sizeIfSet("quota") { items.append(("quota", quota.description)) }
    if let key = invocation.stringIfSet("key") { items.append(("key", key)) }
    let query = PercentEncoding.query(items.map { (name: $0.0, value: $0.1) })
    let answer = try call(invocation, "POST", "/v1/leases\(query)")
    if invocation.flag("json") { printOut(answer.text) }
    return .done
}

private let listCommand = Command(
    name: "list", summary: "list leases", options: [.json], configurable: false
) { invocation in
    let answer = try call(invocation, "GET", "/v1/leases")
    if invocation.flag("json") {
        printOut(answer.text)
    } else {
        printOut(try leaseTable(JSONValue.parse(answer.body)["leases"]?.array ?? []))
    }
    return .done
}

private let releaseCommand = Command(
    name: "release", summary: "end a lease and free its memory; its pages are lost",
    positionals: [Positional("name", help: "The lease.")], configurable: false
) { invocation in
    let name = PercentEncoding.encode(invocation.positional("name"))
    _ = try call(invocation, "DELETE", "/v1/leases/\(name)")
    return .done
}

let statusCommand = Command(
    name: "status", summary: "show a server's pool and leases", options: [adminOption, .json],
    configurable: false
) { invocation in
    let answer = try call(invocation, "GET", "/v1/status")
    if invocation.flag("json") {
        printOut(answer.text)
        return .done
    }
    let status = try JSONValue.parse(answer.body)
    func mebibytes(_ key: String) -> String { mebibyteText(status[key]) }
    printOut(
        """
        capacity   \(mebibytes("capacity_bytes")) MiB
        granted    \(mebibytes("granted_bytes")) MiB
        slab       \(ByteCount(UInt64(status["slab_bytes"]?.integer ?? 0)))
        pool       \(status["pool"]?.string ?? "memory of the process")
        refused    \(status["refused_total"]?.integer ?? 0) grants
        listeners  \((status["listeners"]?.array ?? []).compactMap(\.string).joined(separator: " "))

        """)
    printOut(leaseTable(status["leases"]?.array ?? []))
    return .done
}

/// Calls the admin API; a status of 400 or more becomes one line and an exit status.
private func call(
    _ invocation: Invocation, _ method: String, _ path: String
) throws -> HTTPResponse {
    let endpoint = defaultAdmin(invocation)
    let response: HTTPResponse
    do throws(HTTPClientError) {
        response = try HTTPClient(target: endpoint).request(method, path, timeout: .seconds(10))
    } catch {
        throw CommandFailure(
            .peerUnavailable, "\(error); is memserver running? see --admin")
    }
    guard response.status >= 400 else { return response }
    let reason = (try? JSONValue.parse(response.body))?["error"]?.string ?? response.text
    let status: ExitStatus =
        switch response.status {
        case 400, 404, 405: .usage
        case 401, 403: .permission
        case 409, 507: .tryAgain
        default: .systemError
        }
    throw CommandFailure(status, reason)
}

private func mebibyteText(_ value: JSONValue?) -> String {
    "\((value?.integer ?? 0) >> 20)"
}

private func leaseTable(_ leases: [JSONValue]) -> String {
    var table = TextTable([
        .init("lease"), .right("size MiB"), .right("granted MiB"), .right("stored MiB"),
        .right("clients"), .init("key"),
    ])
    for lease in leases {
        table.append([
            lease["name"]?.string ?? "?", mebibyteText(lease["size_bytes"]),
            mebibyteText(lease["granted_bytes"]), mebibyteText(lease["stored_bytes"]),
            "\(lease["clients"]?.integer ?? 0)", lease["key"]?.string ?? "-",
        ])
    }
    return table.rendered()
}
