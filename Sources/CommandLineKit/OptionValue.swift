package import FarMemory

/// What an option's text means, and so how it is parsed, shown in help and read back.
package enum ValueKind: Sendable, Equatable {
    /// On or off; takes no value on the command line (`--json`, or `--json=false` to override a file).
    case flag
    case string
    /// One of these words.
    case choice([String])
    case size
    case duration
    /// Bytes per second.
    case rate
    case integer(ClosedRange<Int64>)
    /// 0 to 1.
    case ratio
    /// A unix socket or a TCP address.
    case endpoint

    /// Zero or more.
    package static let count = ValueKind.integer(0...Int64.max)

    /// How help names a value of this kind.
    package var placeholder: String {
        switch self {
        case .flag: ""
        case .string: "TEXT"
        case .choice(let words): words.joined(separator: "|")
        case .size: "SIZE"
        case .duration: "DURATION"
        case .rate: "RATE"
        case .integer: "N"
        case .ratio: "RATIO"
        case .endpoint: "ENDPOINT"
        }
    }

    /// The kind's name in `--help=json`.
    package var name: String {
        switch self {
        case .flag: "flag"
        case .string: "string"
        case .choice: "choice"
        case .size: "size"
        case .duration: "duration"
        case .rate: "rate"
        case .integer: "integer"
        case .ratio: "ratio"
        case .endpoint: "endpoint"
        }
    }

    /// Parses one text. The error's message says what to write instead.
    package func parse(_ text: String) throws(UnitError) -> OptionValue {
        switch self {
        case .flag:
            switch text {
            case "true": return .flag(true)
            case "false": return .flag(false)
            default: throw UnitError("'\(text)' is neither true nor false")
            }
        case .string: return .string(text)
        case .choice(let words):
            guard words.contains(text) else {
                let nearest =
                    nearestName(to: text, among: words).map { "; did you mean '\($0)'?" } ?? ""
                throw UnitError(
                    "'\(text)' is not one of \(words.joined(separator: ", "))\(nearest)")
            }
            return .string(text)
        case .size: return .size(try Units.size(text))
        case .duration: return .duration(try Units.duration(text))
        case .rate: return .rate(try Units.rate(text))
        case .integer(let range): return .integer(try Units.integer(text, in: range))
        case .ratio: return .ratio(try Units.ratio(text))
        case .endpoint: return .endpoint(try Units.endpoint(text))
        }
    }
}

/// A parsed value.
package enum OptionValue: Sendable, Equatable {
    case flag(Bool)
    case string(String)
    case size(ByteCount)
    case duration(Nanoseconds)
    case rate(ByteCount)
    case integer(Int64)
    case ratio(Double)
    case endpoint(Endpoint)

    /// As the parser reads it back.
    package var text: String {
        switch self {
        case .flag(let value): "\(value)"
        case .string(let value): value
        case .size(let value): "\(value)"
        case .duration(let value): "\(value)"
        case .rate(let value): "\(value)/s"
        case .integer(let value): "\(value)"
        case .ratio(let value): Units.ratioText(value)
        case .endpoint(let value): "\(value)"
        }
    }
}

/// The candidate with the fewest edits from `name`, if it is near enough to be what was meant.
package func nearestName(to name: String, among candidates: [String]) -> String? {
    let wanted = Array(name.utf8.prefix(64))
    let allowed = max(2, wanted.count / 3)
    var best: (distance: Int, name: String)?
    for candidate in candidates {
        let distance = editDistance(wanted, Array(candidate.utf8))
        if distance <= allowed, distance < (best?.distance ?? .max) { best = (distance, candidate) }
    }
    return best?.name
}

/// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours count one each.
private func editDistance(_ a: [UInt8], _ b: [UInt8]) -> Int {
    var beforeLast = [Int](repeating: 0, count: b.count + 1)
    var last = Array(0...b.count)
    for i in 0..<a.count {
        var row = [i + 1]
        for j in 0..<b.count {
            var cost = min(last[j] + (a[i] == b[j] ? 0 : 1), last[j + 1] + 1, row[j] + 1)
            if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] {
                cost = min(cost, beforeLast[j - 1] + 1)
            }
            row.append(cost)
        }
        beforeLast = last
        last = row
    }
    return last[b.count]
}
