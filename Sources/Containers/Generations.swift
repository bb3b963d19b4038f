// The text of /sys/kernel/debug/lru_gen: for each memory group, for each NUMA node that has memory, one line per generation
// from the oldest to the youngest:
//
//     memcg    12 /farmem/web-1
//      node     0
//               4      12345        100         20
//
// (number, age in ms, anonymous pages, file pages.) Documentation/admin-guide/mm/multigen_lru.rst.

/// Pages of a node that were last found in use at about the same time.
package struct Generation: Equatable, Sendable {
    /// Grows by one with each aging of its list; the kernel's number.
    package var number: UInt64
    package var ageMilliseconds: UInt64
    package var anonymousPages: UInt64
    package var filePages: UInt64

    package init(
        number: UInt64, ageMilliseconds: UInt64, anonymousPages: UInt64, filePages: UInt64
    ) {
        self.number = number
        self.ageMilliseconds = ageMilliseconds
        self.anonymousPages = anonymousPages
        self.filePages = filePages
    }
}

/// Which list of generations: that of a memory group on a node.
package struct GenerationListName: Hashable, Sendable {
    /// The kernel's number of the group.
    package var group: UInt32
    package var node: UInt32

    package init(group: UInt32, node: UInt32) {
        self.group = group
        self.node = node
    }
}

/// The generations of a group on a node, oldest first; there is at least one.
package struct GenerationList: Equatable, Sendable {
    package var name: GenerationListName
    /// Path of the group from the root of its hierarchy.
    package var path: String
    package var generations: [Generation]

    package init(name: GenerationListName, path: String, generations: [Generation]) {
        precondition(!generations.isEmpty, "a list has a youngest generation")
        self.name = name
        self.path = path
        self.generations = generations
    }

    package var oldest: UInt64 { generations[0].number }
    package var youngest: UInt64 { generations[generations.count - 1].number }

    /// File pages in generations up to `last`.
    package func filePages(through last: UInt64) -> UInt64 {
        generations.reduce(0) { $1.number <= last ? $0 &+ $1.filePages : $0 }
    }

    /// Anonymous pages in generations from `first` to `last`.
    package func anonymousPages(from first: UInt64 = 0, through last: UInt64 = .max) -> UInt64 {
        generations.reduce(0) {
            $1.number >= first && $1.number <= last ? $0 &+ $1.anonymousPages : $0
        }
    }
}

/// Why a text is no list of generations.
package struct GenerationParseError: Error, Equatable, CustomStringConvertible {
    /// Counts from 1.
    package var line: Int
    package var reason: String
    package var description: String { "lru_gen line \(line): \(reason)" }
}

/// Most lists that one container may have: groups below it, times nodes.
private let listsMax = 4096
/// More generations than any kernel keeps (four now).
private let generationsMax = 64

/// The lists of the group at `path` and of the groups below it. Lines of other groups are passed over unread, so that nothing
/// of theirs can fail this; what belongs to the group is checked to the last digit. Empty when it is not in the text.
package func parseGenerations(
    _ text: [UInt8], of path: String
) throws(GenerationParseError) -> [GenerationList] {
    var parser = GenerationParser(path: Array(path.utf8))
    var number = 0
    var start = text.startIndex
    while start < text.endIndex {
        let end = text[start...].firstIndex(of: UInt8(ascii: "\n")) ?? text.endIndex
        number += 1
        try parser.take(text[start..<end], number)
        start = end + 1
    }
    try parser.finishNode(number)
    return parser.lists
}

private struct GenerationParser {
    let path: [UInt8]
    private(set) var lists: [GenerationList] = []
    private var group: (number: UInt32, path: String)?
    private var node: UInt32?
    private var generations: [Generation] = []

    init(path: [UInt8]) { self.path = path }

    mutating func take(_ line: ArraySlice<UInt8>, _ number: Int) throws(GenerationParseError) {
        if line.starts(with: Array("memcg ".utf8)) {
            try finishNode(number)
            group = try header(line.dropFirst(6), number)
            return
        }
        guard let group else { return }
        let words = line.split(separator: UInt8(ascii: " "))
        if words.first.map({ Array($0) }) == Array("node".utf8) {
            try finishNode(number)
            guard words.count == 2, let value = decimal(words[1]), value <= UInt32.max else {
                throw GenerationParseError(line: number, reason: "a node without its number")
            }
            let name = GenerationListName(group: group.number, node: UInt32(value))
            guard !lists.contains(where: { $0.name == name }), lists.count < listsMax else {
                throw GenerationParseError(line: number, reason: "a node twice, or too many")
            }
            node = UInt32(value)
            return
        }
        guard node != nil else {
            throw GenerationParseError(line: number, reason: "a generation without a node")
        }
        generations.append(try generation(words, number))
    }

    /// The number and path of a group; nil when it is another's.
    private func header(
        _ text: ArraySlice<UInt8>, _ line: Int
    ) throws(GenerationParseError) -> (UInt32, String)? {
        let trimmed = text.drop { $0 == UInt8(ascii: " ") }
        let digits = trimmed.prefix { $0 != UInt8(ascii: " ") }
        // A path may hold spaces: it is all that follows the one behind the number.
        let name = trimmed.dropFirst(digits.count + 1)
        guard name.starts(with: path) else { return nil }
        let rest = name.dropFirst(path.count)
        guard rest.isEmpty || rest.first == UInt8(ascii: "/") || path == [UInt8(ascii: "/")] else {
            return nil
        }
        guard let value = decimal(digits), value <= UInt32.max else {
            throw GenerationParseError(line: line, reason: "a group without its number")
        }
        return (UInt32(value), String(decoding: name, as: UTF8.self))
    }

    private func generation(
        _ words: [ArraySlice<UInt8>], _ line: Int
    ) throws(GenerationParseError) -> Generation {
        guard words.count == 4, let number = decimal(words[0]), let age = decimal(words[1]),
            let anonymous = decimal(words[2]), let file = decimal(words[3])
        else {
            throw GenerationParseError(line: line, reason: "a generation is four numbers")
        }
        if let last = generations.last, number != last.number &+ 1 {
            throw GenerationParseError(line: line, reason: "generations are not in order")
        }
        guard generations.count < generationsMax else {
            throw GenerationParseError(line: line, reason: "too many generations")
        }
        return Generation(
            number: number, ageMilliseconds: age, anonymousPages: anonymous, filePages: file)
    }

    mutating func finishNode(_ line: Int) throws(GenerationParseError) {
        defer {
            node = nil
            generations = []
        }
        guard let group, let node else { return }
        guard !generations.isEmpty else {
            throw GenerationParseError(line: line, reason: "node \(node) has no generation")
        }
        lists.append(
            GenerationList(
                name: GenerationListName(group: group.number, node: node), path: group.path,
                generations: generations))
    }
}

/// A decimal number of at most 64 bits, and nothing else.
private func decimal(_ digits: ArraySlice<UInt8>) -> UInt64? {
    guard !digits.isEmpty else { return nil }
    var value: UInt64 = 0
    for digit in digits {
        guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
        let (product, overflows) = value.multipliedReportingOverflow(by: 10)
        let (sum, overflowsToo) = product.addingReportingOverflow(
            UInt64(digit - UInt8(ascii: "0")))
        guard !overflows, !overflowsToo else { return nil }
        value = sum
    }
    return value
}
