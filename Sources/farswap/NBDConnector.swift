import CommandLineKit
import Fabric
import FabricNBD
import FarMemory
import LinuxSystem
import PoolProtocol
import SwapDevice
import TransportSecurity

extension FabricConnector {
    /// For one attempt to connect; attach waits a little longer for the data process.
    private static let connectTimeout: Int64 = 10_000_000_000

    /// An export as far memory. A successor takes over from the process before it: the server ends that one's
    /// connections first, and another lease under the old name is no far memory of this device.
    func connectNBD(_ uri: NBDURI, _ size: ByteCount) throws(ConnectFailure) -> any Fabric {
        let uri = uri.named(by: invocation)
        let security = try credentials(uri)
        let epoch = try withRegion { $0[.leaseEpoch] }
        let identity = invocation.stringIfSet("identity").flatMap(parseIdentity)
        let fabric: FabricNBD
        do throws(NBDConnectError) {
            fabric = try FabricNBD(
                uri, security: security, limit: size,
                continuity: NBDContinuity(identity: identity, epoch: epoch == 0 ? nil : epoch),
                deadline: monotonicNow() + Self.connectTimeout)
        } catch {
            throw ConnectFailure(error, uri)
        }
        if fabric.state == .lost { return fabric }
        guard fabric.size == size else {
            let given = fabric.facts?.size ?? fabric.size
            fabric.close(releaseLease: false)
            throw .exportTooSmall(uri, given, wanted: size)
        }
        let given = fabric.facts?.epoch ?? 0
        try withRegion { $0[.leaseEpoch] = given }
        return fabric
    }

    /// What TLS needs, of the options; nil when it is in the URI, or not needed.
    private func credentials(_ uri: NBDURI) throws(ConnectFailure) -> TLSCredentials? {
        let directory = invocation.stringIfSet("tls-certificates")
        guard uri.usesTLS else {
            guard directory == nil, invocation.stringIfSet("auth-file") == nil else {
                throw ConnectFailure(
                    status: ExitStatus.usage.rawValue,
                    reason: "keys and certificates need TLS: give an nbds:// URL")
            }
            return nil
        }
        if uri.certificates != nil || uri.pskFile != nil { return nil }
        let key = try key(preferring: uri.user)
        do throws(TLSError) {
            if let directory { return try TLSCredentials(clientCertificates: directory) }
            if let key { return try TLSCredentials(clientKey: key) }
        } catch {
            throw ConnectFailure(.security(error.description), uri)
        }
        throw ConnectFailure(
            status: ExitStatus.usage.rawValue,
            reason:
                "nbds:// needs --auth-file FILE or --tls-certificates DIR (or tls-psk-file= or tls-certificates= in the URL)"
        )
    }
}

extension NBDURI {
    /// The same with an export's name: the URI's own, --lease, or the device's.
    func named(by invocation: Invocation) -> NBDURI {
        var copy = self
        if export.isEmpty {
            copy.export = invocation.stringIfSet("lease") ?? invocation.string("name")
        }
        return copy
    }
}

extension ConnectFailure {
    /// What a failed connection means for the command that waits for it.
    init(_ error: NBDConnectError, _ uri: NBDURI) {
        let status: ExitStatus =
            switch error {
            case .system(let cause):
                ExitStatus(cause) == .permission ? .permission : .peerUnavailable
            case .interrupted, .notNBD, .unknownExport: .peerUnavailable
            case .refused: .tryAgain
            case .security: .permission
            }
        // A failed connect(2) names its end itself; keys never stand in an endpoint.
        let place = if case .system = error { "" } else { "\(uri.endpoint): " }
        let export = error == .unknownExport ? " ('\(uri.export)')" : ""
        self.init(status: status.rawValue, reason: "\(place)\(error)\(export)")
    }

    static func exportTooSmall(
        _ uri: NBDURI, _ given: ByteCount, wanted: ByteCount
    ) -> ConnectFailure {
        ConnectFailure(
            status: ExitStatus.usage.rawValue,
            reason:
                "export '\(uri.export)' has \(given), the device needs \(wanted); give a smaller --size or another export"
        )
    }
}

/// The option by which attach tells every process of a device the name that its connections share.
let identityOption = Option(
    "identity", .string, hidden: true, help: "What its NBD connections call themselves, in hex.")

func makeIdentity() -> String {
    NBDContinuity.randomIdentity().map { byte in
        let digits = String(byte, radix: 16)
        return digits.count == 1 ? "0" + digits : digits
    }.joined()
}

func parseIdentity(_ text: String) -> [UInt8]? {
    let digits = Array(text.utf8)
    guard digits.count == 2 * NBDWire.fenceBytes else { return nil }
    var bytes: [UInt8] = []
    for index in stride(from: 0, to: digits.count, by: 2) {
        let pair = String(decoding: digits[index..<index + 2], as: UTF8.self)
        guard let byte = UInt8(pair, radix: 16) else { return nil }
        bytes.append(byte)
    }
    return bytes
}

/// Makes connections for the kernel's NBD client.
func kernelConnector(_ uri: NBDURI, _ invocation: Invocation) -> KernelNBDConnect {
    let size = invocation.size("size")
    let identity =
        invocation.stringIfSet("identity").flatMap(parseIdentity)
        ?? NBDContinuity.randomIdentity()
    return { (number, deadline) throws(ConnectFailure) in
        let export: NBDConnectedExport
        do throws(NBDConnectError) {
            export = try NBDHandshake.connect(
                uri, client: NBDContinuity.connectionName(identity, number), deadline: deadline)
        } catch {
            throw ConnectFailure(error, uri)
        }
        let facts = export.facts
        guard facts.size >= size else { throw .exportTooSmall(uri, facts.size, wanted: size) }
        return KernelNBDSocket(
            descriptor: export.takeDescriptor(), size: facts.size, flags: facts.flags.rawValue,
            epoch: facts.epoch, isFenced: facts.isFenced)
    }
}
