import CommandLineKit
import Fabric
import FabricDRAM
import FabricRDMA
import FabricShm
import FarMemory
import Glibc
import LinuxSystem
import PoolProtocol
import SwapDevice
import Telemetry

/// Makes the fabric that a URL names.
struct FabricConnector {
    let source: FarMemoryURL
    let invocation: Invocation
    let log: Logger

    /// The device's size comes from the shared region, so that a successor cannot differ.
    /// - Parameter left: what a predecessor left.
    func connect(_ left: Handover?) throws(ConnectFailure) -> any Fabric {
        let size = try deviceSize()
        switch source.source {
        case .dram(let path):
            do throws(SystemError) {
                return try FabricDRAM(path: path, size: size)
            } catch {
                throw ConnectFailure(status: ExitStatus(error).rawValue, reason: "\(error)")
            }
        case .shm(let socket, let lease):
            let name = lease ?? invocation.stringIfSet("lease") ?? invocation.string("name")
            return try connectShm(socket, name, size, left)
        case .rdma(let url):
            let name = url.lease ?? invocation.stringIfSet("lease") ?? invocation.string("name")
            return try connectRDMA(
                RDMATarget(host: url.host, port: url.port, lease: name, key: try key()), size, left)
        case .nbd(let uri): return try connectNBD(uri, size)
        case .moduleMemory:
            throw ConnectFailure(
                status: ExitStatus.usage.rawValue, reason: ModuleFrontend.onlyForModule)
        }
    }

    /// A successor goes on with what was left, whether the server is there or not: pages must not wait for it.
    private func connectShm(
        _ socket: String, _ name: String, _ size: ByteCount, _ left: Handover?
    ) throws(ConnectFailure) -> any Fabric {
        let key = try key()
        if let left {
            do throws(SystemError) {
                return try FabricShm.resume(
                    left, socket: socket, leaseName: name, size: size, key: key)
            } catch {
                log.warn("not_taken_over", ["lease": name, "reason": "\(error)"])
            }
        }
        let epoch = try withRegion { $0[.leaseEpoch] }
        let fabric: FabricShm
        do throws(ShmSessionError) {
            fabric = try FabricShm.connect(
                socket: socket, leaseName: name, size: size, key: key,
                epoch: epoch == 0 ? nil : epoch)
            guard fabric.size == size else {
                fabric.close(releaseLease: false)
                throw ShmSessionError.refused(
                    .exists, "lease '\(name)' has \(fabric.size), not \(size)")
            }
        } catch {
            throw ConnectFailure(status: Self.status(error).rawValue, reason: "\(error)")
        }
        let given = fabric.epoch
        try withRegion { $0[.leaseEpoch] = given }
        return fabric
    }

    /// A successor goes on with what was left, as over shared memory; its pages wait for the server.
    private func connectRDMA(
        _ target: RDMATarget, _ size: ByteCount, _ left: Handover?
    ) throws(ConnectFailure) -> any Fabric {
        if let left {
            do throws(SystemError) {
                return try FabricRDMA.resume(left, target, size: size, log: log)
            } catch {
                log.warn("not_taken_over", ["lease": target.lease, "reason": "\(error)"])
            }
        }
        let epoch = try withRegion { $0[.leaseEpoch] }
        let fabric: FabricRDMA
        do throws(RDMASessionError) {
            fabric = try FabricRDMA.connect(
                target, size: size, epoch: epoch == 0 ? nil : epoch, log: log)
            guard fabric.size == size else {
                fabric.close(releaseLease: false)
                throw RDMASessionError.refused(
                    .exists, "lease '\(target.lease)' has \(fabric.size), not \(size)")
            }
        } catch {
            let place = "\(target.host):\(target.port)"
            throw ConnectFailure(
                status: Self.status(error).rawValue, reason: "\(place): \(error)")
        }
        let given = fabric.epoch
        try withRegion { $0[.leaseEpoch] = given }
        return fabric
    }

    private static func status(_ error: RDMASessionError) -> ExitStatus {
        switch error {
        case .noDevice: .systemError
        case .keyNeeded, .refused(.unauthorized, _): .permission
        case .refused(.busy, _), .refused(.noSpace, _), .refused(.limit, _): .tryAgain
        case .refused(.exists, _), .refused(.badRequest, _): .usage
        default: .peerUnavailable
        }
    }

    /// The key that --auth-file and --key name; nil without a file.
    func key(preferring name: String? = nil) throws(ConnectFailure) -> SharedKey? {
        try sharedKey(invocation, preferring: name)
    }

    private static func status(_ error: ShmSessionError) -> ExitStatus {
        switch error {
        case .unreachable, .timedOut: .peerUnavailable
        case .keyNeeded, .refused(.unauthorized, _): .permission
        case .refused(.busy, _), .refused(.noSpace, _), .refused(.limit, _): .tryAgain
        case .refused(.exists, _), .refused(.badRequest, _): .usage
        case .refused, .protocolViolation, .anotherLease: .peerUnavailable
        }
    }

    private func deviceSize() throws(ConnectFailure) -> ByteCount {
        try withRegion { $0.size }
    }

    /// Looks into the memory that all data processes of the device share.
    func withRegion<R>(_ body: (borrowing SharedRegion) -> R) throws(ConnectFailure) -> R {
        do throws(SystemError) {
            let copy = try FileDescriptor("dup", dup(SwapDescriptor.region))
            return body(try SharedRegion(openingIn: copy, populate: false))
        } catch {
            throw ConnectFailure(status: 71, reason: "\(error)")
        }
    }
}

/// Ends the process with a status of its own numbering.
func exitNow(_ status: Int32) -> Never { exit(status) }

/// The key that --auth-file and --key name; nil without a file. `name` is taken where --key names none.
func sharedKey(
    _ invocation: Invocation, preferring name: String? = nil
) throws(ConnectFailure) -> SharedKey? {
    guard let path = invocation.stringIfSet("auth-file") else { return nil }
    do {
        let keys = try SharedKey.parse(readSmallText(path))
        let wanted = invocation.stringIfSet("key") ?? name
        guard let key = keys.first(where: { wanted == nil || $0.name == wanted }) else {
            throw ConnectFailure(
                status: ExitStatus.usage.rawValue,
                reason: "\(path) has no key\(wanted.map { " named '\($0)'" } ?? "")")
        }
        return key
    } catch let error as ConnectFailure {
        throw error
    } catch let error as SystemError {
        throw ConnectFailure(status: ExitStatus(error).rawValue, reason: "\(error)")
    } catch {
        throw ConnectFailure(
            status: ExitStatus.badConfiguration.rawValue, reason: "\(path): \(error)")
    }
}
