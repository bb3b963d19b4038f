import FarMemory
import LinuxSystem
import TestSupport
import Testing

@testable import WorkloadTrace

@Suite struct WholeTraceTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func write(_ name: String, _ text: String) throws -> String {
        try replaceFile(directory.file(name), with: text)
        return directory.file(name)
    }

    private static let header2021 = "app,func,end_timestamp,duration\n"

    @Test func readsCallsOneByOneByTheirStarts() throws {
        let path = try write(
            "t.csv", Self.header2021 + "a,f,10.5,0.5\r\na,g,11,2\na,f,20.25,1.5\nb,f,1e1,1e-3")
        let trace = try WholeTrace.load(path)
        #expect(trace.functions.map(\.name) == ["a/f", "a/g", "b/f"])
        #expect(trace.functions.map(\.calls) == [2, 1, 1])
        #expect(trace.functions[0].duration == .seconds(1))
        guard case .single(let arrivals) = trace.calls else {
            Issue.record("not one by one")
            return
        }
        #expect(
            arrivals.map(\.start) == [
                .seconds(9), .milliseconds(9999), .seconds(10), .milliseconds(18_750),
            ])
        #expect(arrivals.map(\.function) == [1, 2, 0, 0])
        #expect(trace.length == .milliseconds(20_250))
        #expect(trace.callCount == 4)
    }

    @Test(arguments: [
        ("a,f,1,1\na,f,x,1\n", 3, "must be seconds"), ("a,f,1\n", 2, "not 4 columns"),
        ("a,f,1,1,1\n", 2, "not 4 columns"), ("a,f,-1,1\n", 2, "must be seconds"),
        ("a\n", 2, "fewer than 4"), ("a,f,nan,1\n", 2, "must be seconds"),
        ("a,f,1.2.3,1\n", 2, "must be seconds"), ("a,f,,1\n", 2, "must be seconds"),
        ("a,f,.,1\n", 2, "must be seconds"), ("a,f,99999999999,1\n", 2, "must be seconds"),
    ])
    func namesTheMalformedLineOrCountsIt(_ lines: String, _ number: Int, _ why: String) throws {
        let path = try write("bad.csv", Self.header2021 + lines + "z,z,5,1\n")
        let error = #expect(throws: TraceError.self) { try WholeTrace.load(path) }
        let text = try #require(error).description
        #expect(text.hasPrefix("\(path):\(number): ") && text.contains(why), "\(text)")
        var limits = WholeTraceLimits()
        limits.skipsMalformed = true
        let trace = try WholeTrace.load(path, limits: limits)
        #expect(trace.skipped == 1)
        #expect(trace.firstSkipped == error)
        #expect(trace.functions.last?.name == "z/z")
    }

    @Test func whatIsTooLargeIsRefused() throws {
        let path = try write("t.csv", Self.header2021 + "a,f,1,1\na,g,2,1\n")
        var limits = WholeTraceLimits()
        limits.callsMax = 1
        #expect(throws: TraceError.unusable(path, "has more than 1 invocations")) {
            try WholeTrace.load(path, limits: limits)
        }
        limits = WholeTraceLimits()
        limits.functionsMax = 1
        #expect(throws: TraceError.unusable(path, "has more than 1 functions")) {
            try WholeTrace.load(path, limits: limits)
        }
        let long = try write("long.csv", Self.header2021 + String(repeating: "x", count: 300_000))
        #expect(throws: TraceError.self) { try WholeTrace.load(long) }
    }

    @Test func readsCallsPerMinuteWithTheirSiblings() throws {
        let path = try write(
            "invocations_per_function_md.anon.d01.csv",
            "HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,a,f,http,1,0,7\no,a,g,timer,0,0,2\no,b,h,http,0,0,0\n"
        )
        _ = try write(
            "function_durations_percentiles.anon.d01.csv",
            "HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum,percentile_Average_0,percentile_Average_1,percentile_Average_25,percentile_Average_50,percentile_Average_75,percentile_Average_99,percentile_Average_100\no,a,f,100,8,1,900,1,2,50,90,120,800,900\n"
        )
        _ = try write(
            "app_memory_percentiles.anon.d01.csv",
            "HashOwner,HashApp,SampleCount,AverageAllocatedMb,AverageAllocatedMb_pct1,AverageAllocatedMb_pct5,AverageAllocatedMb_pct25,AverageAllocatedMb_pct50,AverageAllocatedMb_pct75,AverageAllocatedMb_pct95,AverageAllocatedMb_pct99,AverageAllocatedMb_pct100\no,a,9,120,100,102,114,123,127,136,143,152\n"
        )
        let trace = try WholeTrace.load(directory.path)
        #expect(trace.functions.map(\.name) == ["a/f", "a/g", "b/h"])
        #expect(trace.functions.map(\.calls) == [8, 2, 0])
        #expect(trace.functions[0].duration == .milliseconds(100))
        #expect(trace.functions[0].durations?.value(at: 0.5) == 90)
        #expect(trace.functions[0].durations?.value(at: 0.375) == 70)
        #expect(trace.functions[1].durations == nil)
        #expect(trace.functions[0].memory == .mib(120) && trace.functions[1].memory == .mib(120))
        #expect(trace.functions[2].memory == nil)
        guard case .perMinute(let counts) = trace.calls else {
            Issue.record("not per minute")
            return
        }
        #expect(counts.starts == [0, 1, 1, 3])
        #expect(
            counts.entries == [
                .init(function: 0, calls: 1), .init(function: 0, calls: 7),
                .init(function: 1, calls: 2),
            ])
        #expect(trace.length == .seconds(180))
        _ = path
    }

    @Test(arguments: [
        ("o,a,f,http,1,2\n", "6 columns where"), ("o,a,f,http,1,2,3,4\n", "more columns"),
        ("o,a,f,http,1,2,x\n", "minute 3 is not"), ("o,a\n", "fewer columns"),
        ("o,a,f,http,1,2,99999999999\n", "minute 3"),
        ("o,y,y,http,1,2,3\n", "for the second time"),
    ])
    func aMalformedMinuteLeavesNothingBehind(_ line: String, _ why: String) throws {
        let path = try write(
            "i.csv",
            "HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,y,y,http,5,0,0\n\(line)o,z,z,http,1,1,1\n"
        )
        let error = #expect(throws: TraceError.self) { try WholeTrace.load(path) }
        let text = try #require(error).description
        #expect(text.hasPrefix("\(path):3: ") && text.contains(why), "\(text)")
        var limits = WholeTraceLimits()
        limits.skipsMalformed = true
        let trace = try WholeTrace.load(path, limits: limits)
        #expect(trace.skipped == 1 && trace.callCount == 8)
        #expect(trace.functions.map(\.name) == ["y/y", "z/z"])
    }

    @Test func theGeneratorOf2021WritesThePublishedFormat() throws {
        let path = directory.file("2021.csv")
        let generator = TraceGenerator(seed: 3, functions: 53, days: 2, calls: 30_000)
        let written = try generator.write2021(to: path)
        let trace = try WholeTrace.load(path)
        #expect(trace.callCount == written.calls && trace.bytesRead == written.bytes)
        #expect(abs(written.calls - 30_000) < 6_000, "\(written.calls)")
        #expect(trace.functions.count <= 53)
        #expect(abs(trace.length.seconds - 2 * 86_400) < 1200)
        guard case .single(let arrivals) = trace.calls else {
            Issue.record("not one by one")
            return
        }
        #expect(zip(arrivals, arrivals.dropFirst()).allSatisfy { $0.start <= $1.start })
        // The other loader reads the same.
        let window = TraceWindow(length: .seconds(2 * 86_400), functionsMax: 100, seed: 1)
        let part = try WorkloadTrace.load(path, window: window)
        #expect(part.invocationCount == trace.callCount)
        let again = directory.file("again.csv")
        _ = try generator.write2021(to: again)
        #expect(try readSmallFile(path, limit: 1 << 24) == readSmallFile(again, limit: 1 << 24))
    }

    @Test func theGeneratorOf2019WritesThePublishedFiles() throws {
        let generator = TraceGenerator(seed: 4, functions: 300)
        let written = try generator.write2019(to: directory.path)
        let trace = try WholeTrace.load(directory.path)
        #expect(trace.functions.count == 300)
        #expect(trace.callCount == written.calls && trace.bytesRead == written.bytes)
        #expect(trace.notes.isEmpty)
        #expect(trace.functions.allSatisfy { $0.durations != nil && $0.memories != nil })
        let rare = trace.functions.filter { $0.calls <= 24 }.count
        #expect((80...190).contains(rare), "\(rare) of 300 are called once an hour or less")
        let window = TraceWindow(length: .seconds(3600), functionsMax: 400, seed: 1)
        #expect(try WorkloadTrace.load(directory.path, window: window).invocationCount > 0)
    }

    /// Excerpts of the data sets, where there are any: `FARMEM_TRACES` names their directory.
    @Test(
        .enabled(
            if: environment("FARMEM_TRACES") != nil,
            "needs excerpts of the data sets: FARMEM_TRACES"))
    func readsExcerptsOfTheDataSets() throws {
        let root = try #require(environment("FARMEM_TRACES"))
        let short = try WholeTrace.load("\(root)/azure2021-sample")
        #expect(short.callCount == 199 && short.functions.count == 31)
        let day = try WholeTrace.load("\(root)/azure2019-sample")
        #expect(day.functions.count == 4 && day.notes.isEmpty)
        #expect(day.functions.allSatisfy { $0.durations != nil && $0.memory != nil })
    }
}
