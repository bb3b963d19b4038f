import CommandLineKit
import FarMemory
import JSONText
import LinuxSystem
import Measurement
import OffloadPolicy
import WorkloadSimulation
import WorkloadTrace

/// `--compare oracle`: the delay that is learned against the percentile of the very trace.
struct OracleStudy {
    let trace: WholeTrace
    private let reference: SimulationResult
    private var rows: [(name: String, result: SimulationResult)] = []

    /// At most this share of the oracle's saved memory may be missing.
    private static let shortfallMax = 0.1
    /// FaaSMem's artifact never starts sooner.
    private static let artifactMinimum = Nanoseconds.seconds(59)

    init(_ trace: WholeTrace, _ learned: SimulationSettings, progress: (String) -> Void) {
        self.trace = trace
        var none = learned
        none.name = "none"
        none.policy = nil
        none.collectsReuse = true
        var simulator = Simulator(trace, none)
        reference = simulator.run { progress("none: \(Int($0 * 100)) %") }
        let policy = learned.policy ?? PolicySettings()
        let oracle = ReuseOracle(reuse: reference.reuse, permille: policy.reusePermille)
        for (name, variant) in [
            ("learned", policy),
            ("oracle", oracle.informed(policy, minimum: policy.semiWarmMinimum)),
            ("oracle, 59s or more", oracle.informed(policy, minimum: Self.artifactMinimum)),
        ] {
            var settings = learned
            settings.name = name
            settings.policy = variant
            var simulator = Simulator(trace, settings)
            rows.append((name, simulator.run { progress("\(name): \(Int($0 * 100)) %") }))
        }
    }

    /// Saved memory of the learned delay over the oracle's.
    private var ratio: Double {
        rows[0].result.saved(against: reference)
            / max(1e-9, rows[1].result.saved(against: reference))
    }
    var isWithin: Bool { ratio >= 1 - Self.shortfallMax }

    private var verdict: String {
        "\(isWithin ? "PASS" : "MISSED"): the learned start saves \(fixed(ratio * 100, 1)) % of what the oracle percentile saves (at least 90)"
    }

    func text() -> String {
        var table = TextTable([
            .init("start of semi-warm"), .right("saved %"), .right("requests to semi-warm"),
            .right("cold starts"),
        ])
        for row in rows {
            table.append([
                row.name, fixed(row.result.saved(against: reference) * 100, 2),
                "\(row.result.semiWarmRequests)", "\(row.result.coldStarts)",
            ])
        }
        return
            "\(trace.source): \(trace.callCount) calls, \(trace.functions.count) functions\n\n"
            + table.rendered() + "\n\(verdict)\n"
    }

    func json() -> JSONValue {
        [
            "schema": 1, "report": "simulation-oracle", "trace": JSONValue(trace.source),
            "calls": JSONValue(trace.callCount), "machine": machineFacts(),
            "ratio": JSONValue(ratio), "verdict": JSONValue(verdict),
            "starts": .array(
                rows.map { row in
                    [
                        "start": JSONValue(row.name),
                        "saved_share": JSONValue(row.result.saved(against: reference)),
                        "semi_warm_requests": JSONValue(row.result.semiWarmRequests),
                        "cold_starts": JSONValue(row.result.coldStarts),
                    ]
                }),
        ]
    }
}

/// `--sweep keep-alive=...`: cold starts against memory.
struct KeepAliveSweep {
    let trace: WholeTrace
    private var rows: [(keepAlive: Nanoseconds, results: [SimulationResult])] = []

    /// The times of `keep-alive=1m,5m`.
    static func times(_ text: String) throws(UsageError) -> [Nanoseconds] {
        let parts = text.split(separator: "=", maxSplits: 1)
        guard parts.count == 2, parts[0] == "keep-alive" else {
            throw UsageError("--sweep: '\(text)' is not keep-alive=TIME,TIME,...")
        }
        var times: [Nanoseconds] = []
        for word in parts[1].split(separator: ",") {
            guard case .duration(let time)? = try? ValueKind.duration.parse(String(word)),
                time >= .seconds(1)
            else { throw UsageError("--sweep: '\(word)' is no time of 1s or more") }
            times.append(time)
        }
        guard !times.isEmpty, times.count <= 64 else {
            throw UsageError("--sweep: give 1 to 64 times")
        }
        return times
    }

    init(
        _ trace: WholeTrace, _ policies: [SimulationSettings], _ times: [Nanoseconds],
        progress: (String) -> Void
    ) {
        self.trace = trace
        for time in times {
            var results: [SimulationResult] = []
            for policy in policies {
                var settings = policy
                settings.keepAlive = time
                var simulator = Simulator(trace, settings)
                results.append(
                    simulator.run { progress("\(time) \(settings.name): \(Int($0 * 100)) %") })
            }
            rows.append((time, results))
        }
    }

    private func coldShare(_ result: SimulationResult) -> Double {
        Double(result.coldStarts) / Double(max(1, result.requests))
    }

    private func localMean(_ result: SimulationResult) -> Double {
        result.localByteSeconds / max(1, result.length.seconds)
    }

    func text() -> String {
        var table = TextTable([
            .right("keep-alive"), .init("policy"), .right("cold %"), .right("local GiB"),
            .right("far GiB"), .right("containers"),
        ])
        for row in rows {
            for result in row.results {
                table.append([
                    "\(row.keepAlive)", result.name, fixed(coldShare(result) * 100, 3),
                    fixed(localMean(result) / 1_073_741_824, 2),
                    fixed(
                        result.farByteSeconds / max(1, result.length.seconds) / 1_073_741_824, 2),
                    fixed(result.containers.summary(unit: 1).mean, 1),
                ])
            }
        }
        return table.rendered()
    }

    func json() -> JSONValue {
        let values = rows.flatMap { row in
            row.results.map { result -> JSONValue in
                [
                    "keep_alive_ms": JSONValue(row.keepAlive.milliseconds),
                    "policy": JSONValue(result.name), "cold_share": JSONValue(coldShare(result)),
                    "local_bytes_mean": JSONValue(localMean(result)),
                    "far_bytes_mean": JSONValue(
                        result.farByteSeconds / max(1, result.length.seconds)),
                    "containers_mean": JSONValue(result.containers.summary(unit: 1).mean),
                ]
            }
        }
        return [
            "schema": 1, "report": "simulation-keep-alive", "trace": JSONValue(trace.source),
            "calls": JSONValue(trace.callCount), "machine": machineFacts(),
            "points": .array(values),
        ]
    }
}
