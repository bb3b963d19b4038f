import FarMemory
import Testing

struct PathComponentsTests {
    @Test(arguments: [
        ("/a/b", ["a", "b"]), ("", []), ("/", []), ("//a//", ["a"]), ("a/..", ["a", ".."]),
        // A slash that a combining or a prepending scalar has drawn into its character still divides.
        ("/\u{367}a/b", ["\u{367}a", "b"]), ("/a\u{600}/../b", ["a\u{600}", "..", "b"]),
    ])
    func slashesDivide(path: String, components: [String]) {
        #expect(pathComponents(path).map(String.init) == components)
    }

    @Test func aSlashAtTheStartMakesItAbsolute() {
        #expect(isAbsolutePath("/a") && isAbsolutePath("/\u{367}a"))
        #expect(!isAbsolutePath("a/") && !isAbsolutePath(""))
    }
}
