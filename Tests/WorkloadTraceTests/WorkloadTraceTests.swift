import FarMemory
import Glibc
import LinuxSystem
import TestSupport
import Testing
import WorkloadTrace

@Suite struct WorkloadTraceTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func write(_ name: String, _ text: String) throws -> String {
        try replaceFile(directory.file(name), with: text)
        return directory.file(name)
    }

    private let hour = TraceWindow(length: .seconds(3600), seed: 7)

    private func minutes(_ counts: [Int: Int]) -> String {
        (1...1440).map { "\(counts[$0] ?? 0)" }.joined(separator: ",")
    }

    private var header: String {
        "HashOwner,HashApp,HashFunction,Trigger,"
            + (1...1440).map { "\($0)" }.joined(separator: ",")
    }

    @Test func readsInvocationsPerMinuteWithTheirSiblings() throws {
        let path = try write(
            "invocations_per_function_md.anon.d01.csv",
            "\(header)\no,a1,f1,timer,\(minutes([1: 2, 3: 1, 90: 9]))\r\no,a2,f2,http,\(minutes([60: 4]))\n"
                + "o,a3,f3,http,\(minutes([61: 4]))\n")
        _ = try write(
            "function_durations_percentiles.anon.d01.csv",
            "HashOwner,HashApp,HashFunction,Average,Count\no,a2,f2,250.5,4\no,a9,f9,1,1\n")
        _ = try write(
            "app_memory_percentiles.anon.d01.csv",
            "HashOwner,HashApp,SampleCount,AverageAllocatedMb,AverageAllocatedMb_pct1\no,a1,5,100,90\n"
        )
        // Another day's files do not belong to it.
        _ = try write(
            "function_durations_percentiles.anon.d02.csv",
            "HashOwner,HashApp,HashFunction,Average,Count\no,a1,f1,9999,4\n")
        for source in [path, directory.path] {
            let trace = try WorkloadTrace.load(source, window: hour)
            #expect(trace.functions.map(\.name) == ["a1/f1", "a2/f2"])
            let first = try #require(trace.functions.first)
            #expect(first.arrivals.count == 3)
            #expect(first.arrivals[1] < .seconds(60))
            #expect(first.arrivals[2] >= .seconds(120) && first.arrivals[2] < .seconds(180))
            #expect(first.duration == nil)
            #expect(first.memory == .mib(100))
            #expect(trace.functions[1].arrivals.allSatisfy { $0 >= .seconds(3540) })
            #expect(trace.functions[1].duration == .microseconds(250_500))
        }
    }

    @Test func readsAPartOfADay() throws {
        let path = try write("i.csv", "\(header)\no,a,f,timer,\(minutes([1: 5, 61: 1, 62: 2]))\n")
        let window = TraceWindow(start: .seconds(3600), length: .seconds(60), seed: 1)
        let trace = try WorkloadTrace.load(path, window: window)
        #expect(trace.functions.first?.arrivals.count == 1)
        #expect(try #require(trace.functions.first?.arrivals.first) < .seconds(60))
    }

    @Test func readsInvocationsOneByOne() throws {
        let path = try write(
            "t.txt",
            "app,func,end_timestamp,duration\na,f,10.5,0.5\na,g,11,2\na,f,20,1.5\na,f,9999,1\n")
        let trace = try WorkloadTrace.load(path, window: hour)
        #expect(trace.functions.map(\.name) == ["a/f", "a/g"])
        #expect(trace.functions[0].arrivals == [.seconds(10), .milliseconds(18_500)])
        #expect(trace.functions[0].duration == .seconds(1))
        #expect(trace.functions[1].duration == .seconds(2))
    }

    @Test(arguments: [
        ("app,func,end_timestamp,duration\na,f,1,1\na,f,x,1\n", ":3: "),
        ("app,func,end_timestamp,duration\na,f,1\n", ":2: "),
        ("app,func,end_timestamp,duration\na,f,-1,1\n", ":2: "),
        ("app,func,end_timestamp,duration\na,f,inf,1\n", ":2: "),
        ("HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,t,1,2\no,a,f,t,1\n", ":3: "),
        ("HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,t,1,2.5\n", ":2: minute 2"),
    ])
    func namesTheMalformedLine(_ text: String, _ place: String) throws {
        let path = try write("bad.csv", text)
        let error = #expect(throws: TraceError.self) {
            try WorkloadTrace.load(path, window: hour)
        }
        #expect(
            try #require(error).description.hasPrefix(path + place), "\(error?.description ?? "")")
    }

    @Test func refusesWhatHoldsNoInvocations() throws {
        let durations = try write(
            "durations.csv", "HashOwner,HashApp,HashFunction,Average,Count\no,a,f,5,100\n")
        for path in [durations, directory.path] {
            let error = #expect(throws: TraceError.self) {
                try WorkloadTrace.load(path, window: hour)
            }
            #expect(try #require(error).description.contains("invocations file of the same day"))
        }
        let empty = try write("empty.csv", "")
        #expect(throws: TraceError.unusable(empty, "is empty")) {
            try WorkloadTrace.load(empty, window: hour)
        }
        #expect(throws: TraceError.self) {
            try WorkloadTrace.load(directory.file("missing"), window: hour)
        }
        let other = try write("other.csv", "a,b,c\n1,2,3\n")
        #expect(throws: TraceError.self) { try WorkloadTrace.load(other, window: hour) }
    }

    @Test func memoryAloneGivesApplicationsWithGeneratedArrivals() throws {
        let header =
            "HashOwner,HashApp,SampleCount,AverageAllocatedMb,AverageAllocatedMb_pct1\n"
        let lines = (1...100).map { "o,app\($0),5,\($0),1\n" }.joined()
        let file = try write("memory.csv", header + lines)
        for path in [file, directory.path] {
            let trace = try WorkloadTrace.load(path, window: hour)
            #expect(!trace.functions.isEmpty && trace.functions.count <= hour.functionsMax)
            for function in trace.functions {
                #expect(!function.arrivals.isEmpty)
                #expect(function.name == "app\((function.memory ?? .zero).bytes >> 20)")
            }
            #expect(trace.notes.first?.contains("generated") == true)
            #expect(try WorkloadTrace.load(path, window: hour) == trace)
        }
        let bad = try write("bad.csv", header + "o,app,5,many,1\n")
        #expect(throws: TraceError.self) { try WorkloadTrace.load(bad, window: hour) }
    }

    @Test func boundsTheLengthOfALine() throws {
        let long = try write(
            "long.csv", "app,func,end_timestamp,duration\n" + String(repeating: "x", count: 1 << 20)
        )
        #expect(throws: TraceError.self) { try WorkloadTrace.load(long, window: hour) }
    }

    @Test func samplesTheSameFunctionsForTheSameSeed() throws {
        var text = "\(header)\n"
        for index in 0..<50 { text += "o,a\(index),f,t,\(minutes([1 + index % 60: 1 + index]))\n" }
        let path = try write("many.csv", text)
        func sample(_ seed: UInt64) throws -> WorkloadTrace {
            try WorkloadTrace.load(
                path,
                window: TraceWindow(
                    length: .seconds(3600), functionsMax: 10, invocationsMax: 200, seed: seed))
        }
        let first = try sample(1)
        #expect(first == (try sample(1)))
        #expect(first.functions.map(\.name) != (try sample(2)).functions.map(\.name))
        #expect(first.functions.count <= 10)
        #expect(first.invocationCount <= 200)
        #expect(first.notes.contains { $0.contains("of 50 functions") })
    }

    @Test func generatesTheSameTraceFromTheSameSeed() {
        let length = Nanoseconds.seconds(3600)
        let trace = WorkloadTrace.generated(seed: 3, functions: 12, length: length)
        #expect(trace == .generated(seed: 3, functions: 12, length: length))
        #expect(trace != .generated(seed: 4, functions: 12, length: length))
        #expect(trace.invocationCount > 50)
        for function in trace.functions {
            #expect(function.arrivals == function.arrivals.sorted())
            #expect(function.arrivals.allSatisfy { $0 >= .zero && $0 < length })
            #expect(function.duration.map { $0 >= .milliseconds(10) && $0 <= .seconds(2) } == true)
        }
    }

    @Test func compressesTimeAndSpreadsFunctionsByDuration() {
        let functions = (0..<6).map {
            TraceFunction(
                name: "f\($0)", arrivals: [.seconds(Int64($0) * 10)],
                duration: .milliseconds(Int64(100 * ($0 + 1))))
        }
        let schedule = RequestSchedule(
            trace: WorkloadTrace(source: "test", functions: functions), functions: ["s", "m", "l"],
            seedsPerFunction: 4, speedup: 10, seed: 1)
        #expect(schedule.sources == [2, 2, 2])
        #expect(schedule.requests.map(\.function) == [0, 0, 1, 1, 2, 2])
        #expect(schedule.requests.map(\.due) == (0..<6).map { Nanoseconds.seconds(Int64($0)) })
        #expect(schedule.requests.allSatisfy { (1...4).contains($0.seed) })
    }

    private func schedule(_ text: String) throws -> RequestSchedule {
        try .load(
            try write("s.csv", text), seedsPerFunction: 8, speedup: 10, length: .seconds(100),
            seed: 4)
    }

    @Test func readsAScheduleAsItIs() throws {
        let schedule = try schedule(
            "seconds,function,seed\n20.5,bert-low,3\n0,web\n20,web,8\n")
        #expect(schedule.functions == ["bert-low", "web"])
        #expect(schedule.requests.map(\.due) == [.zero, .seconds(2), .milliseconds(2050)])
        #expect(schedule.requests.map(\.function) == [1, 1, 0])
        #expect(schedule.requests[1].seed == 8 && schedule.requests[2].seed == 3)
        let less = schedule.without(["web"])
        #expect(less.functions == ["bert-low"] && less.requests.map(\.function) == [0])
    }

    @Test(arguments: [
        ("seconds,function\n1,a\nx,b\n", 3), ("seconds,function\n1\n", 2),
        ("seconds,function\n100,a\n", 2), ("seconds,function,seed\n1,a,9\n", 2),
        ("seconds,function\n-1,a\n", 2), ("seconds,function\n1,\n", 2),
    ])
    func namesTheMalformedLineOfASchedule(_ text: String, _ number: Int) throws {
        do {
            _ = try schedule(text)
            Issue.record("taken: \(text)")
        } catch let TraceError.malformed(_, line, _) {
            #expect(line == number)
        }
    }

    @Test func refusesAScheduleWithoutItsHeading() {
        #expect(throws: TraceError.self) { try schedule("1,a\n") }
    }
}
