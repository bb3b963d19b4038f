/// A named secret that a server and its clients share, as psktool writes it: `name:hex`.
package struct SharedKey: Equatable, Sendable {
    package let name: String
    package let secret: [UInt8]

    /// Bytes of a secret: 16 bytes at least, as long as anybody needs at most.
    package static let secretBytes = 16...512

    package init(name: String, secret: [UInt8]) {
        self.name = name
        self.secret = secret
    }
}

/// What is wrong with a key file: the line and why. Never the secret.
package struct KeyFileError: Error, Equatable, Sendable, CustomStringConvertible {
    package let line: Int
    package let reason: String

    package var description: String { "line \(line): \(reason)" }
}

extension SharedKey {
    /// Reads a file of keys: one `name:hexkey` per line; empty lines and lines that start with `#` are
    /// skipped. A name stands once.
    package static func parse(_ text: String) throws(KeyFileError) -> [SharedKey] {
        var keys: [SharedKey] = []
        // "\r\n" is one Character, and a newline.
        let lines = text.split(omittingEmptySubsequences: false) { $0.isNewline }
        for (index, line) in lines.enumerated() {
            if line.isEmpty || line.first == "#" { continue }
            let key = try parseLine(line, number: index + 1)
            guard !keys.contains(where: { $0.name == key.name }) else {
                throw KeyFileError(line: index + 1, reason: "key '\(key.name)' stands twice")
            }
            keys.append(key)
        }
        return keys
    }

    private static func parseLine(
        _ line: Substring, number: Int
    ) throws(KeyFileError) -> SharedKey {
        guard let colon = line.lastIndex(of: ":") else {
            throw KeyFileError(line: number, reason: "expected name:hexkey")
        }
        let name = String(line[..<colon])
        guard isLeaseName(name) else {
            throw KeyFileError(
                line: number, reason: "a key's name is 1 to 64 of letters, digits, . _ -")
        }
        guard let secret = bytes(ofHex: line[line.index(after: colon)...]) else {
            throw KeyFileError(line: number, reason: "the key is not hexadecimal")
        }
        guard secretBytes.contains(secret.count) else {
            throw KeyFileError(
                line: number,
                reason: "a key has \(secretBytes.lowerBound) bytes at least; use psktool")
        }
        return SharedKey(name: name, secret: secret)
    }

    private static func bytes(ofHex text: Substring) -> [UInt8]? {
        let digits = Array(text.utf8)
        guard digits.count % 2 == 0 else { return nil }
        var bytes: [UInt8] = []
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = nibble(digits[index]), let low = nibble(digits[index + 1]) else {
                return nil
            }
            bytes.append(high << 4 | low)
        }
        return bytes
    }

    private static func nibble(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x41...0x46: digit - 0x41 + 10
        case 0x61...0x66: digit - 0x61 + 10
        default: nil
        }
    }
}
