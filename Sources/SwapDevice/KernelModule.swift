import CNetlinkShims
package import FarMemory
import Glibc
import LinuxSystem

/// farmem.ko over generic netlink (kernel-patch/module/farmem_uapi.h). Control path: it allocates. Any thread.
package enum KernelModule {
    /// Whether the running kernel has it, loaded.
    package static var isAvailable: Bool { fm_module_probe() == 0 }

    /// What attach tells the module.
    package struct Setup: Sendable {
        package var name: String
        package var backend: String
        package var size: ByteCount
        /// How much it may hold at one time; nil: as much as there are addresses.
        package var capacity: ByteCount?
        /// The swap area to serve by frontswap; nil makes a disk.
        package var area: String?
        /// Whether all of the capacity is set aside at attach and kept: no page-out waits for a grant then.
        package var isReserved = false
        /// Where the backend `rdma` has its memory.
        package var server: Server?

        package init(name: String, backend: String, size: ByteCount) {
            self.name = name
            self.backend = backend
            self.size = size
        }
    }

    /// A lease on a memory server, and how long things there may take: whole milliseconds.
    package struct Server: Sendable {
        /// IPv4 or IPv6, in numbers.
        package var address: String
        package var port: UInt16
        package var lease: String
        package var keyName: String?
        package var keySecret: [UInt8] = []
        package var loadDeadline: Nanoseconds
        /// Nil: the module's own.
        package var storeDeadline: Nanoseconds?
        /// At most so many data queues; nil: one for each processor.
        package var queues: UInt16?
        /// Whether loads of one page spin until it is there.
        package var polls = false
        /// One page per round trip, to compare with.
        package var isSynchronous = false

        package init(
            address: String, port: UInt16, lease: String, loadDeadline: Nanoseconds
        ) {
            self.address = address
            self.port = port
            self.lease = lease
            self.loadDeadline = loadDeadline
        }

        fileprivate var words: [(farmem_attribute, Word)] {
            var words: [(farmem_attribute, Word)] = [
                (FARMEM_A_ADDRESS, .text(address)), (FARMEM_A_PORT, .u16(port)),
                (FARMEM_A_LEASE, .text(lease)),
                (FARMEM_A_READ_DEADLINE, .milliseconds(loadDeadline)),
            ]
            if let storeDeadline {
                words.append((FARMEM_A_WRITE_DEADLINE, .milliseconds(storeDeadline)))
            }
            if let keyName {
                words.append((FARMEM_A_KEY_NAME, .text(keyName)))
                words.append((FARMEM_A_KEY_SECRET, .bytes(keySecret)))
            }
            if let queues { words.append((FARMEM_A_QUEUES, .u16(queues))) }
            if polls { words.append((FARMEM_A_POLL, .bytes([]))) }
            if isSynchronous { words.append((FARMEM_A_SYNCHRONOUS, .bytes([]))) }
            return words
        }
    }

    /// A value in a message to the module.
    fileprivate enum Word {
        case text(String)
        case u16(UInt16)
        case u64(UInt64)
        case milliseconds(Nanoseconds)
        case bytes([UInt8])

        var encoded: [UInt8] {
            switch self {
            case .text(let text): Array(text.utf8) + [0]
            case .u16(let value): Self.bytes(of: UInt64(value), 2)
            case .u64(let value): Self.bytes(of: value, 8)
            case .milliseconds(let time):
                Self.bytes(of: UInt64(clamping: time.nanoseconds / 1_000_000), 4)
            case .bytes(let bytes): bytes
            }
        }

        private static func bytes(of value: UInt64, _ count: Int) -> [UInt8] {
            unsafe withUnsafeBytes(of: value.littleEndian) { unsafe Array($0.prefix(count)) }
        }
    }

    /// Makes a device. Returns what the module says of it.
    static func attach(_ setup: Setup) throws(SwapDeviceError) -> ModuleStatus {
        var words: [(farmem_attribute, Word)] = [
            (FARMEM_A_NAME, .text(setup.name)), (FARMEM_A_BACKEND, .text(setup.backend)),
            (FARMEM_A_SIZE, .u64(setup.size.bytes)),
        ]
        if let capacity = setup.capacity { words.append((FARMEM_A_CAPACITY, .u64(capacity.bytes))) }
        if setup.isReserved { words.append((FARMEM_A_RESERVE, .bytes([]))) }
        if let area = setup.area {
            words += [(FARMEM_A_FRONTEND, .text("frontswap")), (FARMEM_A_AREA, .text(area))]
        }
        if let server = setup.server { words += server.words }
        return ModuleStatus(try ask(FARMEM_CMD_ATTACH, words))
    }

    /// Removes a device and what it holds. One that is not there is no error.
    static func detach(_ name: String) throws(SwapDeviceError) {
        do throws(SwapDeviceError) {
            _ = try ask(FARMEM_CMD_DETACH, [(FARMEM_A_NAME, .text(name))])
        } catch {
            if !error.saysThereIsNone { throw error }
        }
    }

    /// What the module says of a device; nil when it has none of that name, or is not loaded.
    static func status(_ name: String) throws(SwapDeviceError) -> ModuleStatus? {
        do throws(SwapDeviceError) {
            return ModuleStatus(try ask(FARMEM_CMD_STATUS, [(FARMEM_A_NAME, .text(name))]))
        } catch {
            if error.saysThereIsNone { return nil }
            throw error
        }
    }

    private static func ask(
        _ command: farmem_command, _ words: [(farmem_attribute, Word)]
    ) throws(SwapDeviceError) -> [UInt8] {
        var bytes: [UInt8] = []
        var places: [(type: Int32, offset: Int, length: Int)] = []
        for (attribute, word) in words {
            let encoded = word.encoded
            places.append((Int32(attribute.rawValue), bytes.count, encoded.count))
            bytes += encoded
        }
        var reply = [UInt8](repeating: 0, count: Int(FM_MODULE_ANSWER_MAX))
        var answer = unsafe fm_module_answer()
        let result = unsafe bytes.withUnsafeBytes { buffer in
            // SAFETY: the attributes point into `bytes`, which lives for the call.
            let attributes = unsafe places.map {
                unsafe fm_module_attribute(
                    type: $0.type, data: UnsafeRawPointer(buffer.baseAddress! + $0.offset),
                    length: Int32($0.length))
            }
            return unsafe reply.withUnsafeMutableBytes { reply -> Int32 in
                unsafe answer.bytes = reply.baseAddress
                return unsafe attributes.withUnsafeBufferPointer {
                    unsafe fm_module_ask(
                        Int32(command.rawValue), $0.baseAddress, Int32($0.count), &answer)
                }
            }
        }
        guard result == 0 else {
            let reason = unsafe withUnsafeBytes(of: answer.reason) {
                unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if !reason.isEmpty || result == -ENODEV {
                throw .refusedByModule(-result, reason)
            }
            throw .system(SystemError(call: "ask farmem.ko", code: -result))
        }
        return unsafe Array(reply.prefix(Int(answer.length)))
    }
}

extension SwapDeviceError {
    /// The module has no such device, or is not loaded.
    fileprivate var saysThereIsNone: Bool {
        switch self {
        case .refusedByModule(let code, _): code == ENODEV
        case .system(let error): error.code == ENOENT
        default: false
        }
    }
}

/// What farmem.ko says of a device: the attributes of its answer.
package struct ModuleStatus: Equatable, Sendable {
    /// The block device is `/dev/<disk>`; empty where there is none.
    package private(set) var disk = ""
    /// The swap area it serves by frontswap; empty where it has a disk.
    package private(set) var area = ""
    /// How often its disk is open, or 1 while its swap area is in use.
    package private(set) var openers: UInt64 = 0
    package private(set) var backend = ""
    /// Bytes held now: pages, or slabs where the module holds slabs.
    package private(set) var used = ByteCount.zero
    /// What `used` counts in; zero where it counts pages.
    package private(set) var slab = ByteCount.zero
    /// "live", "reconnecting" or "lost"; empty where there is no server.
    package private(set) var state = ""
    /// Reads and writes by how long they took: below 1 us, then 1, 2 to 3, 4 to 7 us and so on.
    package private(set) var readLatency: [UInt64] = []
    package private(set) var writeLatency: [UInt64] = []
    /// By `farmem_counter`.
    package private(set) var counters: [UInt32: UInt64] = [:]

    /// Reads attributes; what it does not know, or what makes no sense, it passes over.
    package init(_ bytes: [UInt8]) {
        for (type, value) in Self.attributes(bytes[...]) {
            switch type {
            case FARMEM_A_DISK.rawValue: disk = Self.text(value)
            case FARMEM_A_AREA.rawValue: area = Self.text(value)
            case FARMEM_A_OPENERS.rawValue: openers = Self.number(value) ?? 0
            case FARMEM_A_BACKEND.rawValue: backend = Self.text(value)
            case FARMEM_A_USED.rawValue: used = ByteCount(Self.number(value) ?? 0)
            case FARMEM_A_SLAB.rawValue: slab = ByteCount(Self.number(value) ?? 0)
            case FARMEM_A_STATE.rawValue: state = Self.text(value)
            case FARMEM_A_READ_LATENCY.rawValue: readLatency = Self.numbers(value)
            case FARMEM_A_WRITE_LATENCY.rawValue: writeLatency = Self.numbers(value)
            case FARMEM_A_COUNTERS.rawValue:
                for (counter, value) in Self.attributes(value) {
                    counters[counter] = Self.number(value)
                }
            default: break
            }
        }
    }

    func counter(_ counter: farmem_counter) -> UInt64 { counters[counter.rawValue] ?? 0 }

    /// The attributes in a message (include/uapi/linux/netlink.h, struct nlattr), up to the first that is none.
    private static func attributes(_ bytes: ArraySlice<UInt8>) -> [(UInt32, ArraySlice<UInt8>)] {
        var found: [(UInt32, ArraySlice<UInt8>)] = []
        var rest = bytes
        while rest.count >= 4 {
            let start = rest.startIndex
            let length = Int(rest[start]) | Int(rest[start + 1]) << 8
            // The two top bits are flags: nested, and byte order.
            let type = (UInt32(rest[start + 2]) | UInt32(rest[start + 3]) << 8) & 0x3fff
            guard length >= 4, length <= rest.count else { break }
            found.append((type, rest[(start + 4)..<(start + length)]))
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return found
    }

    private static func text(_ bytes: ArraySlice<UInt8>) -> String {
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }

    private static func number(_ bytes: ArraySlice<UInt8>) -> UInt64? {
        guard bytes.count == 8 || bytes.count == 4 else { return nil }
        return bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    private static func numbers(_ bytes: ArraySlice<UInt8>) -> [UInt64] {
        stride(from: bytes.startIndex, to: bytes.startIndex + bytes.count / 8 * 8, by: 8).map {
            number(bytes[$0..<($0 + 8)]) ?? 0
        }
    }
}
