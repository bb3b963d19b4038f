import Synchronization

/// The metrics of one program, rendered in the Prometheus text format.
///
/// Names are `farmem_<part>_<what>_<unit>`, with `_total` for counters. Registering the same name again with other
/// labels adds to the family; the same name and labels twice, another type or a malformed name is a bug and traps.
package final class MetricRegistry: Sendable {
    package typealias Labels = KeyValuePairs<String, String>

    /// A label set and its value, for metrics that are collected when they are asked for.
    package struct Sample: Sendable {
        package let labels: [(name: String, value: String)]
        package let value: Double

        package init(_ labels: Labels = [:], _ value: Double) {
            self.labels = labels.map { ($0.key, $0.value) }
            self.value = value
        }
    }

    private enum Source: Sendable {
        case counter(Counter)
        case sharded(ShardedCounter)
        case gauge(Gauge)
        case histogram(Histogram, scale: Double)
        case collected(@Sendable () -> [Sample])
    }

    private struct Family: Sendable {
        let type: String
        let help: String
        var members: [(labels: [(name: String, value: String)], source: Source)] = []
    }

    private struct State: Sendable {
        var names: [String] = []
        var families: [String: Family] = [:]
    }

    private let state = Mutex(State())

    package init() {}

    package func counter(_ name: String, help: String, labels: Labels = [:]) -> Counter {
        let counter = Counter()
        register(name, "counter", help, labels, .counter(counter))
        return counter
    }

    /// For counts on a hot path with several threads.
    package func shardedCounter(
        _ name: String, help: String, labels: Labels = [:]
    ) -> ShardedCounter {
        let counter = ShardedCounter()
        register(name, "counter", help, labels, .sharded(counter))
        return counter
    }

    package func gauge(_ name: String, help: String, labels: Labels = [:]) -> Gauge {
        let gauge = Gauge()
        register(name, "gauge", help, labels, .gauge(gauge))
        return gauge
    }

    /// Record nanoseconds; rendered in seconds, so the name ends in `_seconds`.
    package func latencies(_ name: String, help: String, labels: Labels = [:]) -> Histogram {
        let histogram = Histogram()
        register(name, "histogram", help, labels, .histogram(histogram, scale: 1e-9))
        return histogram
    }

    /// Record bytes or counts; rendered as they are.
    package func sizes(_ name: String, help: String, labels: Labels = [:]) -> Histogram {
        let histogram = Histogram()
        register(name, "histogram", help, labels, .histogram(histogram, scale: 1))
        return histogram
    }

    /// A gauge whose samples are computed at each rendering, on the rendering thread.
    package func collectGauge(
        _ name: String, help: String, _ samples: @escaping @Sendable () -> [Sample]
    ) {
        register(name, "gauge", help, [:], .collected(samples))
    }

    /// A counter kept elsewhere, read at each rendering.
    package func collectCounter(
        _ name: String, help: String, _ samples: @escaping @Sendable () -> [Sample]
    ) {
        register(name, "counter", help, [:], .collected(samples))
    }

    private func register(
        _ name: String, _ type: String, _ help: String, _ labels: Labels, _ source: Source
    ) {
        precondition(isMetricName(name), "'\(name)' is not a metric name")
        precondition(
            (type == "counter") == name.hasSuffix("_total"), "counters and only they end in _total")
        let list = labels.map { (name: $0.key, value: $0.value) }
        for label in list { precondition(isLabelName(label.name), "label '\(label.name)'") }
        state.withLock { state in
            if state.families[name] == nil {
                state.names.append(name)
                state.families[name] = Family(type: type, help: help)
            }
            let family = state.families[name]
            precondition(family?.type == type, "\(name) is registered as another type")
            let isNew =
                family?.members.allSatisfy { labelText($0.labels) != labelText(list) } ?? true
            precondition(isNew, "\(name)\(labelText(list)) is registered twice")
            state.families[name]?.members.append((list, source))
        }
    }

    /// All metrics as text (`Content-Type: text/plain; version=0.0.4`).
    package func render() -> String {
        // Collectors run outside the lock: they may be slow, and may look at other locks.
        let state = state.withLock { $0 }
        var text = ""
        for name in state.names {
            guard let family = state.families[name] else { continue }
            text += "# HELP \(name) \(escape(family.help, quotes: false))\n"
            text += "# TYPE \(name) \(family.type)\n"
            for member in family.members { render(name, member.labels, member.source, to: &text) }
        }
        return text
    }

    private func render(
        _ name: String, _ labels: [(name: String, value: String)], _ source: Source,
        to text: inout String
    ) {
        switch source {
        case .counter(let counter): text += "\(name)\(labelText(labels)) \(counter.value)\n"
        case .sharded(let counter): text += "\(name)\(labelText(labels)) \(counter.value)\n"
        case .gauge(let gauge): text += "\(name)\(labelText(labels)) \(gauge.value)\n"
        case .collected(let samples):
            for sample in samples() {
                text += "\(name)\(labelText(sample.labels)) \(numberText(sample.value))\n"
            }
        case .histogram(let histogram, let scale):
            render(name, labels, histogram.snapshot(), scale: scale, to: &text)
        }
    }

    /// Buckets at every second power of two from 2^10 (about a microsecond) to 2^36 (about a minute).
    private func render(
        _ name: String, _ labels: [(name: String, value: String)], _ snapshot: HistogramSnapshot,
        scale: Double, to text: inout String
    ) {
        for exponent in stride(from: 10, through: 36, by: 2) {
            let bound = numberText(Double(UInt64(1) << UInt64(exponent)) * scale)
            let bucket = labelText(labels + [("le", bound)])
            text += "\(name)_bucket\(bucket) \(snapshot.count(below: exponent))\n"
        }
        let count = snapshot.count
        text += "\(name)_bucket\(labelText(labels + [("le", "+Inf")])) \(count)\n"
        text += "\(name)_sum\(labelText(labels)) \(numberText(Double(snapshot.sum) * scale))\n"
        text += "\(name)_count\(labelText(labels)) \(count)\n"
    }
}

private func isMetricName(_ name: String) -> Bool {
    guard let first = name.utf8.first, !(0x30...0x39).contains(first) else { return false }
    return name.utf8.allSatisfy {
        (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == UInt8(ascii: "_")
    }
}

private func isLabelName(_ name: String) -> Bool {
    isMetricName(name) && !name.hasPrefix("__") && name != "le"
}

private func labelText(_ labels: [(name: String, value: String)]) -> String {
    guard !labels.isEmpty else { return "" }
    let pairs = labels.map { "\($0.name)=\"\(escape($0.value, quotes: true))\"" }
    return "{" + pairs.joined(separator: ",") + "}"
}

private func escape(_ text: String, quotes: Bool) -> String {
    var escaped = ""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\\": escaped += "\\\\"
        case "\n": escaped += "\\n"
        case "\"" where quotes: escaped += "\\\""
        default: escaped.unicodeScalars.append(scalar)
        }
    }
    return escaped
}

private func numberText(_ value: Double) -> String {
    if let whole = Int64(exactly: value) { return "\(whole)" }
    if value.isNaN { return "NaN" }
    return value.isInfinite ? (value < 0 ? "-Inf" : "+Inf") : "\(value)"
}
