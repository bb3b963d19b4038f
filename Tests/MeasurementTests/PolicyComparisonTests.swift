import Containers
import FarMemory
import JSONText
import Testing

@testable import Measurement

@Suite struct PolicyComparisonTests {
    private let functions = ["bert", "web-low"]

    /// Every request of function i takes `milliseconds[i]`; each function holds `mebibytes[i]`.
    private func replay(
        _ policy: String, repetition: Int = 0, _ milliseconds: [Int64], _ mebibytes: [Double],
        failing: Int? = nil
    ) -> PolicyReplay {
        var results: [RequestResult] = []
        var memory: [String: MemoryFigures] = [:]
        for (index, name) in functions.enumerated() {
            for number in 0..<20 {
                let fails = failing == index && number == 7
                results.append(
                    RequestResult(
                        function: index, outcome: fails ? .failed("gone") : .right,
                        latency: .milliseconds(milliseconds[index]), isCold: false,
                        majorFaults: 2))
            }
            var figures = MemoryFigures()
            figures.samples = 10
            figures.localSum = mebibytes[index] * 1_048_576 * 10
            memory[name] = figures
        }
        let findings = MemorySampler.Findings(
            figures: memory, missed: 0, timeline: MemoryTimeline(), decisions: [])
        return PolicyReplay(
            policy: policy, repetition: repetition,
            result: PhaseResult(results: results, sampled: findings))
    }

    private func figure(
        _ comparison: PolicyComparison, _ function: String, _ policy: String
    ) throws -> PolicyFigures {
        try #require(
            comparison.figures.first { $0.function == function && $0.policy == policy })
    }

    @Test func comparesEachPolicyWithTheReference() throws {
        let comparison = PolicyComparison(
            functions: functions,
            replays: [
                replay("none", [100, 20], [400, 100]), replay("tmo", [100, 20], [380, 100]),
                replay("farmem", [104, 30], [100, 50]),
            ], seed: 1)
        #expect(comparison.figures.count == 9)
        #expect(try figure(comparison, "bert", "none").saved == nil)
        let own = try figure(comparison, "bert", "farmem")
        #expect(abs(try #require(own.saved).mean - 0.75) < 1e-9)
        #expect(abs(try #require(own.p95Change).mean - 0.04) < 1e-9)
        #expect(own.majorFaults == 40)
        let all = try figure(comparison, "all", "farmem")
        #expect(abs(try #require(all.saved).mean - 0.7) < 1e-9)
        #expect(abs(try #require(try figure(comparison, "all", "tmo").saved).mean - 0.04) < 1e-9)
    }

    @Test func leavesOutAFunctionOfWhichARequestFailed() throws {
        let comparison = PolicyComparison(
            functions: functions,
            replays: [
                replay("none", [100, 20], [400, 100]),
                replay("farmem", [100, 20], [100, 50], failing: 0),
            ], seed: 1)
        let broken = try figure(comparison, "bert", "farmem")
        #expect(broken.saved == nil && broken.p95Change == nil)
        #expect(broken.requests.failed == 1)
        let all = try figure(comparison, "all", "farmem")
        #expect(abs(try #require(all.saved).mean - 0.5) < 1e-9)
    }

    @Test func repetitionsAreComparedWithTheirOwnReference() throws {
        let comparison = PolicyComparison(
            functions: functions,
            replays: [
                replay("none", [100, 20], [400, 100]),
                replay("farmem", [100, 20], [200, 100]),
                replay("none", repetition: 1, [100, 20], [800, 100]),
                replay("farmem", repetition: 1, [100, 20], [200, 100]),
            ], seed: 1)
        let saved = try #require(try figure(comparison, "bert", "farmem").saved)
        #expect(abs(saved.mean - 0.625) < 1e-9)
        #expect(abs(saved.low - 0.5) < 1e-9 && abs(saved.high - 0.75) < 1e-9)
    }

    @Test func bootstrapHoldsTheMeanAndIsRepeatable() throws {
        let values = [1.0, 2, 3, 4, 10]
        let first = try #require(BootstrapMean(values, seed: 3))
        #expect(first == BootstrapMean(values, seed: 3))
        #expect(first.mean == 4)
        #expect(first.low < 4 && first.high > 4 && first.low >= 1 && first.high <= 10)
        #expect(BootstrapMean([], seed: 1) == nil)
        let one = try #require(BootstrapMean([5], seed: 1))
        #expect(one.low == 5 && one.high == 5)
    }

    @Test func aNameWithAWordStandsForItsFunction() {
        #expect(ReferenceAnswers.base(of: "bert-low") == "bert")
        #expect(ReferenceAnswers.base(of: "bert") == "bert")
    }

    @Test func timelineKeepsWhatIsUnknownUnknown() throws {
        var timeline = MemoryTimeline()
        var point = TimelinePoint(milliseconds: 1000)
        var holding = TimelinePoint.Holding()
        holding.local = 5
        holding.containers = 1
        point.functions["bert"] = holding
        timeline.points = [point]
        let json = timeline.json(functions: functions)
        #expect(json["local_bytes"]?[0]?.integer == 5)
        #expect(json["functions"]?["web-low"]?["local_bytes"]?[0]?.integer == 0)
        #expect(json["swapped_out_pages"]?[0]?.isNull == true)
        let counts = parseSwapCounts("nr_free 3\npswpin 7\npswpout 9\n")
        #expect(counts.out == 9 && counts.in == 7)
    }
}
