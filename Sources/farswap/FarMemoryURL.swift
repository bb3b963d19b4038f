import CommandLineKit
import Fabric
import FabricDRAM
import FarMemory
import LinuxSystem
import PoolProtocol
import SwapDevice

/// Where far memory is, as the command line names it.
struct FarMemoryURL {
    enum Source: Equatable {
        case shm(socket: String, lease: String?)
        case nbd(NBDURI)
        case rdma(RDMAURL)
        case dram(path: String)
        /// This host's own memory, held by farmem.ko: at most so much.
        case moduleMemory(ByteCount)
    }

    let text: String
    let source: Source

    init(_ text: String) throws(UsageError) {
        self.text = text
        if text.hasPrefix("shm:") {
            let rest = text.dropFirst(4)
            let parts = rest.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
            let lease = try parts.count > 1 ? Self.lease(parts[1], in: text) : nil
            guard let path = parts.first, path.hasPrefix("/") else {
                throw UsageError(
                    "'\(text)': give an absolute path, as in shm:/run/farmem/memserver.sock")
            }
            source = .shm(socket: String(path), lease: lease)
        } else if text.hasPrefix("nbd") && text.contains(":") {
            source = .nbd(try Self.nbd(text))
        } else if text.hasPrefix("dram:/") {
            source = .dram(path: String(text.dropFirst(5)))
        } else if text.hasPrefix("dram:"), let capacity = try? Units.size(String(text.dropFirst(5)))
        {
            source = .moduleMemory(capacity)
        } else if text.hasPrefix("rdma:") {
            do throws(RDMAURLError) {
                source = .rdma(try RDMAURL(text))
            } catch {
                throw UsageError("\(error)")
            }
        } else {
            throw UsageError(
                "'\(text)' is no URL of far memory; use rdma://HOST/LEASE, shm:PATH, nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH"
            )
        }
    }

    private static func lease(_ query: Substring, in text: String) throws(UsageError) -> String {
        guard query.hasPrefix("lease="), DeviceDirectory.isName(String(query.dropFirst(6))) else {
            throw UsageError("'\(text)': after ? comes lease=NAME")
        }
        return String(query.dropFirst(6))
    }

    private static func nbd(_ text: String) throws(UsageError) -> NBDURI {
        do throws(NBDURIError) {
            let uri = try NBDURI(text)
            if case .unix(let path) = uri.endpoint, !path.hasPrefix("/") {
                throw NBDURIError(text, "give socket= an absolute path")
            }
            return uri
        } catch {
            throw UsageError("\(error)")
        }
    }

    var isNBD: Bool { if case .nbd = source { true } else { false } }
}
