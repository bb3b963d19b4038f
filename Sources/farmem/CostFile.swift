import CommandLineKit
import FarMemory
import JSONText
import LinuxSystem
import WorkloadSimulation

// A cost model as a file, and how one is made of measured runs: the reports of `fngateway describe --json` (sizes and times of functions), of
// `farmem bench swap --json` (what a page costs) and of `farmem bench wake-up --json FILE` (what a request to a drained container pays). What
// was not measured stays as it ships, and the origin says so.

/// Reads and writes the files of --costs and --calibrate.
enum CostFile {
    private static let bytesMax = 4 << 20

    static func read(_ path: String) throws -> CostModel {
        let file = try document(path)
        func fail(_ why: String) -> CommandFailure {
            CommandFailure(.usage, "\(path): \(why); write one with farmem simulate --calibrate")
        }
        guard file["schema"]?.integer == 1, file["report"]?.string == "simulation-costs",
            let profiles = file["functions"]?.array, !profiles.isEmpty, profiles.count <= 1000
        else { throw fail("is no cost file of schema 1") }
        func time(_ value: JSONValue?, _ key: String) throws -> Nanoseconds {
            guard let nanoseconds = value?[key]?.integer,
                (0...3_600_000_000_000).contains(nanoseconds)
            else { throw fail("'\(key)' must be nanoseconds") }
            return Nanoseconds(nanoseconds)
        }
        func size(_ value: JSONValue, _ key: String) throws -> ByteCount {
            guard let bytes = value[key]?.integer, (0...(1 << 44)).contains(bytes) else {
                throw fail("'\(key)' must be bytes")
            }
            return ByteCount(UInt64(bytes))
        }
        func share(_ value: JSONValue, _ key: String, _ whole: Int64) throws -> UInt64 {
            guard let part = value[key]?.integer, (0...whole).contains(part) else {
                throw fail("'\(key)' must be 0 to \(whole)")
            }
            return UInt64(part)
        }
        return CostModel(
            origin: file["origin"]?.string ?? path,
            majorFault: try time(file, "major_fault_ns"),
            minorFault: try time(file, "minor_fault_ns"),
            prefetch: try time(file, "prefetch_ns"), wakeUp: try time(file, "wake_up_ns"),
            profiles: try profiles.map { profile in
                guard let name = profile["function"]?.string, !name.isEmpty else {
                    throw fail("a function without a name")
                }
                return FunctionProfile(
                    name: name, quota: try size(profile, "quota_bytes"),
                    runtime: try size(profile, "runtime_bytes"),
                    initialization: try size(profile, "init_bytes"),
                    execution: try size(profile, "execution_bytes"),
                    runtimeHotPermille: try share(profile, "runtime_hot_permille", 1000),
                    initializationHotPermille: try share(profile, "init_hot_permille", 1000),
                    strayMillionths: try share(profile, "stray_millionths", 1_000_000),
                    shared: try size(profile, "shared_bytes"),
                    runtimeTime: try time(profile, "runtime_ns"),
                    initializationTime: try time(profile, "init_ns"),
                    requestTime: try time(profile, "request_ns"))
            })
    }

    static func json(_ costs: CostModel) -> JSONValue {
        [
            "schema": 1, "report": "simulation-costs", "origin": JSONValue(costs.origin),
            "major_fault_ns": JSONValue(costs.majorFault.nanoseconds),
            "minor_fault_ns": JSONValue(costs.minorFault.nanoseconds),
            "prefetch_ns": JSONValue(costs.prefetch.nanoseconds),
            "wake_up_ns": JSONValue(costs.wakeUp.nanoseconds),
            "functions": .array(
                costs.profiles.map { profile in
                    [
                        "function": JSONValue(profile.name),
                        "quota_bytes": JSONValue(profile.quota.bytes),
                        "runtime_bytes": JSONValue(profile.runtime.bytes),
                        "init_bytes": JSONValue(profile.initialization.bytes),
                        "execution_bytes": JSONValue(profile.execution.bytes),
                        "runtime_hot_permille": JSONValue(profile.runtimeHotPermille),
                        "init_hot_permille": JSONValue(profile.initializationHotPermille),
                        "stray_millionths": JSONValue(profile.strayMillionths),
                        "shared_bytes": JSONValue(profile.shared.bytes),
                        "runtime_ns": JSONValue(profile.runtimeTime.nanoseconds),
                        "init_ns": JSONValue(profile.initializationTime.nanoseconds),
                        "request_ns": JSONValue(profile.requestTime.nanoseconds),
                    ]
                }),
        ]
    }

    /// The model that ships, with everything in its place that these reports measured. Wake-ups come last, whatever the order: they
    /// say what pages cost there.
    static func calibrated(from paths: [String]) throws -> CostModel {
        var costs = CostModel.standard
        var measured: [String] = []
        var wakeUps: [(path: String, paid: [PaidWakeUp])] = []
        for path in paths {
            let report = try document(path)
            if let functions = report["functions"]?.array,
                functions.contains(where: { $0["runtime_bytes"] != nil })
            {
                costs.profiles = try functions.map { try profile($0, path) }
                measured.append("sizes and times of functions from \(path)")
            } else if let fault = report["random_in_p50_us"]?.double,
                let prefetch = report["prefetch_in_pages_per_second"]?.double
            {
                guard fault > 0, prefetch > 0 else {
                    throw CommandFailure(.usage, "\(path): no page came back from swap there")
                }
                costs.majorFault = Nanoseconds(Int64(fault * 1000))
                costs.prefetch = Nanoseconds(Int64(1e9 / prefetch))
                measured.append("faults and prefetch from \(path)")
            } else if let list = report["wake_ups"]?.array {
                wakeUps.append((path, try paid(list, path)))
            } else {
                throw CommandFailure(
                    .usage,
                    "\(path): no report of fngateway describe --json, farmem bench swap --json or farmem bench wake-up --json"
                )
            }
        }
        for (path, paid) in wakeUps {
            costs.take(paid)
            measured.append("wake-ups from \(path)")
        }
        costs.origin = measured.joined(separator: "; ") + "; the rest: " + costs.origin
        return costs
    }

    /// The wake-ups of a report that brought pages back ahead of their use.
    private static func paid(_ list: [JSONValue], _ path: String) throws -> [PaidWakeUp] {
        var all: [PaidWakeUp] = []
        for item in list where item["prefetch"]?.string != "off" {
            guard let first = item["first_us"]?.integer, let warm = item["warm_us"]?.integer,
                let bytes = item["recalled_bytes"]?.integer, first >= 0, warm >= 0, bytes >= 0,
                first < 3_600_000_000, warm < 3_600_000_000
            else {
                throw CommandFailure(
                    .usage, "\(path): a wake-up without first_us, warm_us and recalled_bytes")
            }
            if bytes > 0 {
                all.append(
                    PaidWakeUp(
                        pages: Double(bytes) / Double(pageBytes),
                        nanoseconds: Double(first - warm) * 1000))
            }
        }
        guard !all.isEmpty else {
            throw CommandFailure(.usage, "\(path): no wake-up there brought pages back by prefetch")
        }
        return all
    }

    private static func profile(_ value: JSONValue, _ path: String) throws -> FunctionProfile {
        func number(_ key: String) throws -> Double {
            guard let number = value[key]?.double, number >= 0, number < 1e15 else {
                throw CommandFailure(.usage, "\(path): a function without '\(key)'")
            }
            return number
        }
        func size(_ key: String) throws -> ByteCount { ByteCount(UInt64(try number(key))) }
        func time(_ key: String) throws -> Nanoseconds {
            Nanoseconds(Int64(min(try number(key), 3_600_000) * 1e6))
        }
        return FunctionProfile(
            name: value["function"]?.string ?? "?", quota: try size("limit_bytes"),
            runtime: try size("runtime_bytes"), initialization: try size("init_bytes"),
            kept: try size("kept_bytes"), touched: try size("touched_bytes"),
            startTime: try time("start_ms"), initializationTime: try time("init_ms"),
            requestTime: try time("median_ms"))
    }

    private static func document(_ path: String) throws -> JSONValue {
        let text = try readSmallText(path, limit: bytesMax)
        do {
            return try JSONValue.parse(Array(text.utf8))
        } catch {
            throw CommandFailure(.usage, "\(path): \(error)")
        }
    }
}

/// What a request to a drained container paid beyond a warm one, and the pages that were brought back for it.
struct PaidWakeUp: Equatable {
    var pages: Double
    var nanoseconds: Double
}

extension CostModel {
    /// What a wake-up costs and each page of it: the line of least squares through all that were measured. Those of one size cannot tell
    /// the two apart, nor those that cost less the more pages they had: then a page costs what it did before.
    mutating func take(_ paid: [PaidWakeUp]) {
        let count = Double(paid.count)
        let pages = paid.reduce(0) { $0 + $1.pages } / count
        let price = paid.reduce(0) { $0 + $1.nanoseconds } / count
        let spread = paid.reduce(0) { $0 + ($1.pages - pages) * ($1.pages - pages) }
        let common = paid.reduce(0) { $0 + ($1.pages - pages) * ($1.nanoseconds - price) }
        if spread > pages * pages * count / 100, common > 0 {
            // Not more than all of it: a wake-up costs nothing less than nothing.
            prefetch = Nanoseconds(Int64(min(common / spread, max(price, 0) / pages)))
        }
        wakeUp = Nanoseconds(Int64(max(0, price - pages * Double(prefetch.nanoseconds))))
    }
}
