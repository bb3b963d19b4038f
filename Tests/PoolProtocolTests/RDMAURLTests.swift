import FarMemory
import PoolProtocol
import TestSupport
import Testing

@Suite struct RDMAURLTests {
    @Test func partsAreFound() throws {
        let full = try RDMAURL("rdma://memory1:51000/far0")
        #expect(full.host == "memory1" && full.port == 51000 && full.lease == "far0")
        let short = try RDMAURL("rdma://10.0.0.2")
        #expect(short.host == "10.0.0.2" && short.port == 50000 && short.lease == nil)
        let six = try RDMAURL("rdma://[fd00::2]:7/a.b_c-D")
        #expect(six.host == "fd00::2" && six.port == 7 && six.lease == "a.b_c-D")
        #expect(try RDMAURL("rdma://h/").lease == nil)
    }

    @Test(
        arguments: [
            "rdma:", "rdma://", "rdma:///lease", "rdma://:50000/lease", "rdma://h:/l",
            "rdma://h:0/l",
            "rdma://h:65536/l", "rdma://h:-1/l", "rdma://h:+1/l", "rdma://h:1x/l", "rdma://[::1/l",
            "rdma://[]:1/l", "rdma://[::1]x/l", "rdma://h/.hidden", "rdma://h/a/b", "rdma://h/a b",
            "rdma://h/\(String(repeating: "x", count: 65))", "rdma://u@h/l", "rdma://h h/l",
        ])
    func nonsenseIsRefused(text: String) {
        #expect(throws: RDMAURLError.self) { try RDMAURL(text) }
    }

    @Test(arguments: TestSeed.several(100, first: 1, filter: "RDMAURLTests"))
    func anyTextIsAURLOrRefused(seed: TestSeed) {
        var random = seed.random
        let alphabet = Array("rdma://[]:.@?a0-/ é")
        let text =
            "rdma://"
            + String((0..<random.below(30)).map { _ in alphabet[random.below(alphabet.count)] })
        guard let url = try? RDMAURL(text) else { return }
        #expect(!url.host.isEmpty && url.port > 0, "\(text) \(seed)")
    }
}
