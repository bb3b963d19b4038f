import LinuxSystem
import TestSupport
import Testing

@testable import Containers

@Suite struct GenerationParsingTests {
    private static let text = """
        memcg     1 /
         node     0
                  0       1234          0        100\u{20}
        memcg    12 /a
         node     0
                  3        500        100          7\u{20}
                  4         20          5          0\u{20}
         node     1
                  9        500          1          2\u{20}
        memcg    13 /a/b c
         node     0
                  7          1          2          3\u{20}
        memcg    14 /ab
         node     0
                  7          1          4          4\u{20}
        """

    private func parse(_ text: String, _ path: String) throws -> [GenerationList] {
        try parseGenerations(Array(text.utf8), of: path)
    }

    @Test func aGroupIsFoundByItsPathWithThoseBelowItOnAllNodes() throws {
        let lists = try parse(Self.text, "/a")
        #expect(
            lists.map(\.name) == [
                GenerationListName(group: 12, node: 0), GenerationListName(group: 12, node: 1),
                GenerationListName(group: 13, node: 0),
            ])
        #expect(lists[2].path == "/a/b c")
        #expect(lists[0].oldest == 3 && lists[0].youngest == 4)
        #expect(lists[0].anonymousPages(through: 3) == 100)
        #expect(lists[0].anonymousPages(from: 4) == 5)
        #expect(lists[1].generations[0].filePages == 2)
        #expect(try parse(Self.text, "/ab").map(\.name.group) == [14])
        #expect(try parse(Self.text, "/").count == 5)
        #expect(try parse(Self.text, "/b").isEmpty)
        #expect(try parse("", "/a").isEmpty)
    }

    /// The container that is last in the file is as good as any other.
    @Test func theEndOfTheTextEndsTheLastList() throws {
        let cut = "memcg 5 /a\n node 0\n 1 2 3 4"
        #expect(try parse(cut, "/a").map(\.youngest) == [1])
    }

    @Test(arguments: [
        "memcg 5 /a\n node 0", "memcg 5 /a\n node 0\n 1 2 3", "memcg 5 /a\n node 0\n 1 2 3 x",
        "memcg 5 /a\n node 0\n 1 2 3 4 5", "memcg 5 /a\n 1 2 3 4", "memcg 5 /a\n node\n 1 2 3 4",
        "memcg 5 /a\n node 0\n 1 2 3 4\n 3 2 3 4", "memcg x /a\n node 0\n 1 2 3 4",
        "memcg 5 /a\n node 0\n 1 2 3 4\n node 0\n 1 2 3 4",
        "memcg 5 /a\n node 0\n 99999999999999999999 2 3 4",
    ])
    func whatIsNoListIsRefusedWithItsLine(text: String) {
        #expect(throws: GenerationParseError.self) { try parse(text, "/a") }
    }

    @Test func nothingOfOtherGroupsCanFailIt() throws {
        #expect(try parse("memcg 4 /other\n junk\nmemcg 5 /a\n node 0\n 1 2 3 4", "/a").count == 1)
    }

    @Test func whatIsMissingIsSaid() throws {
        let tree = try TemporaryDirectory()
        #expect(throws: GenerationError.missing(path: tree.file("lru_gen"))) {
            _ = try GenerationControl(
                path: tree.file("lru_gen"), enabledPath: tree.file("enabled"))
        }
        try replaceFile(tree.file("lru_gen"), with: "")
        try replaceFile(tree.file("enabled"), with: "0x0006\n")
        #expect(throws: GenerationError.disabled) {
            _ = try GenerationControl(
                path: tree.file("lru_gen"), enabledPath: tree.file("enabled"))
        }
        try replaceFile(tree.file("enabled"), with: "0x0007\n")
        _ = try GenerationControl(path: tree.file("lru_gen"), enabledPath: tree.file("enabled"))
    }
}
