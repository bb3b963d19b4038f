import FarMemory

/// What the manifest says of one lease.
struct LeaseRecord: Equatable, Sendable {
    var id: UInt64
    var name: String
    var size: ByteCount
    var quota: ByteCount
    var epoch: UInt64
    /// Made by an operator: no grace period ends it.
    var isPinned: Bool
    /// The key that made it; nil without keys.
    var owner: String?
}

/// Why a text is not a manifest.
struct ManifestProblem: Error, Equatable, Sendable {
    let reason: String
    init(_ reason: String) { self.reason = reason }
}

/// The pool's list of leases as a text with a checksum over all before it:
///
///     farmem-pool 1
///     slab 1048576
///     next 2
///     lease 1 far0 2147483648 2147483648 81985529216486895 temporary -
///     sum 0123456789abcdef
struct PoolManifest: Equatable, Sendable {
    var slab: ByteCount
    var nextID: UInt64
    var leases: [LeaseRecord]

    func text() -> String {
        var text = "farmem-pool 1\nslab \(slab.bytes)\nnext \(nextID)\n"
        for lease in leases {
            let kind = lease.isPinned ? "pinned" : "temporary"
            text +=
                "lease \(lease.id) \(lease.name) \(lease.size.bytes) \(lease.quota.bytes)"
                + " \(lease.epoch) \(kind) \(lease.owner ?? "-")\n"
        }
        return text + "sum \(Self.hex(Self.checksum(text)))\n"
    }

    /// Reads a manifest; the reason when it is not one.
    static func parse(_ text: String) -> Result<PoolManifest, ManifestProblem> {
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard lines.popLast() == "", let last = lines.popLast(), last.hasPrefix("sum ") else {
            return .failure(ManifestProblem("it is cut off"))
        }
        let body = lines.map { "\($0)\n" }.joined()
        guard last == "sum \(hex(checksum(body)))" else {
            return .failure(ManifestProblem("its checksum is wrong"))
        }
        guard lines.count >= 3, lines[0] == "farmem-pool 1",
            let slab = number(lines[1], after: "slab"), let next = number(lines[2], after: "next")
        else { return .failure(ManifestProblem("its version or head is unknown")) }
        var manifest = PoolManifest(slab: ByteCount(slab), nextID: next, leases: [])
        for line in lines.dropFirst(3) {
            guard let lease = record(line) else {
                return .failure(ManifestProblem("the line '\(line)' is not a lease"))
            }
            manifest.leases.append(lease)
        }
        return .success(manifest)
    }

    private static func number(_ line: Substring, after word: String) -> UInt64? {
        let words = line.split(separator: " ")
        return words.count == 2 && words[0] == word ? UInt64(words[1]) : nil
    }

    private static func record(_ line: Substring) -> LeaseRecord? {
        let words = line.split(separator: " ")
        guard words.count == 8, words[0] == "lease", let id = UInt64(words[1]),
            let size = UInt64(words[3]), let quota = UInt64(words[4]),
            let epoch = UInt64(words[5]), words[6] == "pinned" || words[6] == "temporary"
        else { return nil }
        return LeaseRecord(
            id: id, name: String(words[2]), size: ByteCount(size), quota: ByteCount(quota),
            epoch: epoch, isPinned: words[6] == "pinned",
            owner: words[7] == "-" ? nil : String(words[7]))
    }

    /// FNV-1a, 64 bits: guards against accidents, not against an adversary (the directory is root's).
    private static func checksum(_ text: String) -> UInt64 {
        var sum: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in text.utf8 { sum = (sum ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return sum
    }

    private static func hex(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
