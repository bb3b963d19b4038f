import Glibc
import LinuxSystem

/// Tells whoever started a daemon that it is ready: on a descriptor (`--ready-fd`) and to the service manager
/// (`$NOTIFY_SOCKET`, sd_notify's protocol). Used from one thread.
package final class ReadyNotifier {
    private var readyDescriptor: Int32?
    private let notifySocket: String?

    package init(readyDescriptor: Int32?, notifySocket: String?) {
        self.readyDescriptor = readyDescriptor
        self.notifySocket = notifySocket
    }

    /// Writes `READY=1` once everywhere. A starter that went away is not an error.
    package func announceReady() {
        if let descriptor = readyDescriptor {
            readyDescriptor = nil
            var line = Array("READY=1\n".utf8)
            // SAFETY: the buffer lives through the call and is as long as said.
            _ = unsafe line.withUnsafeMutableBytes {
                unsafe write(descriptor, $0.baseAddress, $0.count)
            }
            close(descriptor)
        }
        notify("READY=1")
    }

    /// Tells the service manager that draining has begun.
    package func announceStopping() { notify("STOPPING=1") }

    /// Shows one line of state in the service manager (`systemctl status`).
    package func status(_ text: String) { notify("STATUS=\(text)") }

    /// One datagram, never waiting: the service manager's queue being full must not hold a daemon up.
    private func notify(_ message: String) {
        guard let path = notifySocket, let first = path.utf8.first else { return }
        var name = Array(path.utf8)
        if first == UInt8(ascii: "@") { name[0] = 0 }
        var address = sockaddr_un()
        let room = MemoryLayout.size(ofValue: address.sun_path)
        guard first == UInt8(ascii: "/") || name[0] == 0, name.count < room else { return }
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: name) }
        let type = Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(AF_UNIX, type, 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let offset = MemoryLayout<sockaddr_un>.size - room
        let length = socklen_t(offset + name.count + (name[0] == 0 ? 0 : 1))
        let bytes = Array(message.utf8)
        // SAFETY: the address and the bytes live through the call; the length covers the used part of the address.
        unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                _ = unsafe sendto(
                    descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT),
                    generic, length)
            }
        }
    }
}

extension Invocation {
    /// The readiness channel of a command that has `Option.daemon`.
    package func readiness() -> ReadyNotifier {
        ReadyNotifier(
            readyDescriptor: integerIfSet("ready-fd").map { Int32($0) },
            notifySocket: ProcessEnvironment.value("NOTIFY_SOCKET"))
    }
}

/// The environment as it was at the first use.
package enum ProcessEnvironment {
    package static let all: [String: String] = {
        var result: [String: String] = [:]
        for entry in currentEnvironment() {
            guard let equals = entry.firstIndex(of: "=") else { continue }
            result[String(entry[..<equals])] = String(entry[entry.index(after: equals)...])
        }
        return result
    }()

    package static func value(_ name: String) -> String? { all[name] }
}
