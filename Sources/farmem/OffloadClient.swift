import CommandLineKit
import FarMemory
import HTTPEndpoint
import JSONText
import LinuxSystem

/// `--offloadd`: where the controller listens.
let offloaddOption = Option(
    "offloadd", .endpoint, environment: "FARMEM_OFFLOADD", configurable: false,
    help: "The controller's socket (default unix:/run/farmem/offloadd.sock).")

/// Asks the offload controller.
struct OffloadClient {
    private let client: HTTPClient

    init(_ invocation: Invocation) {
        client = HTTPClient(
            target: invocation.endpointIfSet("offloadd")
                ?? .unix(path: "\(runtimeDirectory())/offloadd.sock"))
    }

    /// The JSON that a path answers with.
    func get(_ path: String) throws(CommandFailure) -> JSONValue {
        do throws(HTTPClientError) {
            let response = try client.request("GET", path, timeout: .seconds(5))
            guard response.status == 200 else {
                throw HTTPClientError.broken(client.target, "status \(response.status)")
            }
            return try parse(response.body)
        } catch {
            throw CommandFailure(
                .peerUnavailable, "\(error); start it with: offloadd run, or give --offloadd")
        }
    }

    /// Gives an order; throws what the controller says against it.
    func post(_ path: String, _ body: JSONValue) throws(CommandFailure) {
        let response: HTTPResponse
        do throws(HTTPClientError) {
            response = try client.request(
                "POST", path, body: body.renderedBytes(), timeout: .seconds(5))
        } catch {
            throw CommandFailure(
                .peerUnavailable, "\(error); start it with: offloadd run, or give --offloadd")
        }
        guard response.status == 204 else {
            let reason = (try? JSONValue.parse(response.body))?["error"]?.string
            throw CommandFailure(.tryAgain, reason ?? "status \(response.status)")
        }
    }

    private func parse(_ body: [UInt8]) throws(HTTPClientError) -> JSONValue {
        do throws(JSONError) {
            return try JSONValue.parse(body)
        } catch {
            throw .broken(client.target, error.description)
        }
    }
}

extension JSONValue {
    /// A number of bytes as MiB with one decimal; `-` when it is unknown.
    func mebibytes(_ key: String) -> String {
        self[key]?.integer.map { fixed(Double($0) / 1_048_576, 1) } ?? "-"
    }

    /// A whole number; `-` when it is unknown.
    func count(_ key: String) -> String { self[key]?.integer.map { "\($0)" } ?? "-" }

    func word(_ key: String) -> String { self[key]?.string ?? "-" }
}
