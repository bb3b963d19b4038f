import Containers

/// The kernel's lists of generations, of the group /a and of all: what is told apart is in order and of that group.
@Sendable func fuzzGenerations(_ bytes: [UInt8]) {
    for path in ["/a", "/"] {
        guard let lists = try? parseGenerations(bytes, of: path) else { continue }
        for list in lists {
            precondition(
                path == "/" || list.path == path || list.path.hasPrefix(path + "/"),
                "a list of another group")
            precondition(list.oldest <= list.youngest || list.generations.count > 1)
            precondition(
                list.anonymousPages(through: list.youngest) <= list.anonymousPages()
                    || list.generations.contains { $0.anonymousPages > 1 << 60 })
        }
        precondition(Set(lists.map(\.name)).count == lists.count, "a list twice")
    }
}
