import PoolProtocol
import Testing

@Suite struct KeyFileTests {
    @Test func linesMayEndAsOnOtherSystems() throws {
        let secret = String(repeating: "0a", count: 32)
        let keys = try SharedKey.parse("alice:\(secret)\r\n# note\r\n\r\nbob:\(secret)\r\n")
        #expect(keys.map(\.name) == ["alice", "bob"])
    }
}
