import Glibc

/// Numbers for names in the order of their first appearance, without a String per look-up. The names themselves are kept in one array of bytes.
struct NameTable {
    private var slots = [Int32](repeating: -1, count: 1024)
    private var hashes: [UInt64] = []
    private var ends: [Int] = []
    private var bytes: [UInt8] = []

    var count: Int { ends.count }

    /// The number of a name; a new one when it was not there.
    mutating func number(of name: ByteLine) -> Int {
        let hash = name.hash
        if let found = find(name, hash) { return found }
        if (count + 1) * 2 > slots.count { grow() }
        let number = count
        hashes.append(hash)
        unsafe bytes.append(contentsOf: name.bytes)
        ends.append(bytes.count)
        place(number)
        return number
    }

    /// The number of a name that is there.
    func known(_ name: ByteLine) -> Int? { find(name, name.hash) }

    /// The name with this number.
    func name(_ number: Int) -> String {
        String(decoding: bytes[range(number)], as: UTF8.self)
    }

    private func range(_ number: Int) -> Range<Int> {
        (number == 0 ? 0 : ends[number - 1])..<ends[number]
    }

    private func find(_ name: ByteLine, _ hash: UInt64) -> Int? {
        var slot = Int(truncatingIfNeeded: hash) & (slots.count - 1)
        while slots[slot] >= 0 {
            let number = Int(slots[slot])
            if hashes[number] == hash, isSame(number, name) { return number }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    private func isSame(_ number: Int, _ name: ByteLine) -> Bool {
        let range = range(number)
        guard range.count == name.count else { return false }
        guard !range.isEmpty else { return true }
        return unsafe bytes.withUnsafeBytes { all in
            // SAFETY: the range lies in the array of names, the name in the scanner's buffer; both are as long and not empty.
            guard let own = all.baseAddress, let other = unsafe name.bytes.baseAddress else {
                return false
            }
            return unsafe memcmp(own + range.lowerBound, other, range.count) == 0
        }
    }

    private mutating func place(_ number: Int) {
        var slot = Int(truncatingIfNeeded: hashes[number]) & (slots.count - 1)
        while slots[slot] >= 0 { slot = (slot + 1) & (slots.count - 1) }
        slots[slot] = Int32(number)
    }

    private mutating func grow() {
        slots = Array(repeating: -1, count: slots.count * 2)
        for number in 0..<count { place(number) }
    }
}
