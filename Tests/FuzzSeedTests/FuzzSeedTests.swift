import FuzzTargets
import LinuxSystem
import Testing

/// Every seed, and every input that once failed, goes through its decoder in the ordinary tests.
@Suite struct FuzzSeedTests {
    /// Tests/Fuzz/seeds, found from this file.
    static let seeds: String = {
        let parts = #filePath.split(separator: "/").dropLast(2)
        return "/" + parts.joined(separator: "/") + "/Fuzz/seeds"
    }()

    @Test(arguments: FuzzTarget.all.map(\.name))
    func seedsPass(name: String) throws {
        let target = try #require(FuzzTarget.all.first { $0.name == name })
        let files = try directoryEntries("\(Self.seeds)/\(name)")
        #expect(!files.isEmpty, "\(name) has no seeds")
        for file in files { target.run(try readSmallFile("\(Self.seeds)/\(name)/\(file)")) }
        target.run([])
    }

    @Test func everyFolderOfSeedsHasATarget() throws {
        let names = Set(FuzzTarget.all.map(\.name))
        #expect(Set(try directoryEntries(Self.seeds)) == names)
    }
}
