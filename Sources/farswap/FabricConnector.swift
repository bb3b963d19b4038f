import CommandLineKit
import Fabric
import FabricDRAM
import FarMemory
import Glibc
import LinuxSystem
import SwapDevice

/// Makes the fabric that a URL names.
struct FabricConnector {
    let source: FarMemoryURL
    let invocation: Invocation

    /// The device's size comes from the shared region, so that a successor cannot differ.
    func connect() throws(ConnectFailure) -> any Fabric {
        let size = try deviceSize()
        switch source.source {
        case .dram(let path):
            do throws(SystemError) {
                return try FabricDRAM(path: path, size: size)
            } catch {
                throw ConnectFailure(status: ExitStatus(error).rawValue, reason: "\(error)")
            }
        case .shm, .nbd:
            throw ConnectFailure(status: 70, reason: "not wired yet")
        }
    }

    private func deviceSize() throws(ConnectFailure) -> ByteCount {
        do throws(SystemError) {
            let copy = try FileDescriptor("dup", dup(SwapDescriptor.region))
            return try SharedRegion(openingIn: copy, populate: false).size
        } catch {
            throw ConnectFailure(status: 71, reason: "\(error)")
        }
    }
}

/// Ends the process with a status of its own numbering.
func exitNow(_ status: Int32) -> Never { exit(status) }
