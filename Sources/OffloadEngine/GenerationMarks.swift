import Containers

// The law of barriers between generations.
//
// A barrier is the number of the generation that was the youngest when a Pucket ended: its pages are in that generation or in
// older ones, until they are used. Numbers are the kernel's and only grow, so a barrier never points at younger pages, whatever the kernel ages
// by itself. But the kernel keeps four generations: when the oldest that is left is younger than a barrier, what was behind it has been
// evicted or merged with younger pages. Then the Pucket is no more: nothing is evicted in its name, and that is counted.

/// What is known of one Pucket's generations in one list.
enum GenerationMark: Equatable, Sendable {
    /// Its pages are in this generation and older ones.
    case at(UInt64)
    /// The engine has evicted what was behind it.
    case released
    /// The kernel has evicted it or merged it into younger generations.
    case merged
}

/// The barriers of one container, by list.
struct GenerationMarks: Equatable, Sendable {
    var runtime: [GenerationListName: GenerationMark] = [:]
    var initialization: [GenerationListName: GenerationMark] = [:]
    /// Behind it is what an open window has not seen in use yet.
    var window: [GenerationListName: GenerationMark] = [:]
    /// Pages that may be evicted when the first request, and the open window, end: what the budget gave.
    var runtimeReserved: UInt64 = 0
    var windowReserved: UInt64 = 0
    /// Barriers lost to merging.
    private(set) var merges: UInt64 = 0

    /// Takes in what the kernel did since the last look. Lists that are gone (a group below was removed) are forgotten.
    mutating func note(_ lists: [GenerationList]) {
        let oldest = Dictionary(
            lists.map { ($0.name, $0.oldest) }, uniquingKeysWith: { first, _ in first })
        runtime = noted(runtime, oldest)
        initialization = noted(initialization, oldest)
        window = noted(window, oldest)
    }

    private mutating func noted(
        _ marks: [GenerationListName: GenerationMark], _ oldest: [GenerationListName: UInt64]
    ) -> [GenerationListName: GenerationMark] {
        var result: [GenerationListName: GenerationMark] = [:]
        for (name, mark) in marks {
            guard let first = oldest[name] else { continue }
            if case .at(let barrier) = mark, barrier < first {
                merges += 1
                result[name] = .merged
            } else {
                result[name] = mark
            }
        }
        return result
    }

    /// Anonymous pages behind a barrier; nil when no list tells any more.
    static func pages(
        behind marks: [GenerationListName: GenerationMark], in lists: [GenerationList]
    ) -> UInt64? {
        var sum: UInt64?
        for list in lists {
            switch marks[list.name] {
            case .at(let barrier): sum = (sum ?? 0) + list.anonymousPages(through: barrier)
            case .released: sum = sum ?? 0
            case .merged, nil: return nil
            }
        }
        return sum
    }
}
