package import JSONText

/// What was held at one moment of a phase.
package struct TimelinePoint: Equatable, Sendable {
    package struct Holding: Equatable, Sendable {
        package var local: UInt64 = 0
        package var far: UInt64 = 0
        package var containers = 0
        package var idle = 0
        package init() {}
    }

    /// Since the sampling began.
    package var milliseconds: Int64
    package var functions: [String: Holding] = [:]
    /// Pages that the host wrote to and read from swap since boot.
    package var swappedOut: UInt64?
    package var swappedIn: UInt64?

    package init(milliseconds: Int64) { self.milliseconds = milliseconds }
}

/// Memory over time, at fixed intervals. A moment that could not be sampled is missing, not zero.
package struct MemoryTimeline: Equatable, Sendable {
    package var points: [TimelinePoint] = []
    /// When sampling began, in milliseconds since 1970.
    package var startedAtUnix: Int64 = 0

    package init() {}

    /// Columns, so that a long timeline stays small.
    package func json(functions: [String]) -> JSONValue {
        func column(_ value: (TimelinePoint) -> JSONValue) -> JSONValue {
            .array(points.map(value))
        }
        func total(_ part: @escaping (TimelinePoint.Holding) -> UInt64) -> JSONValue {
            column { point in JSONValue(point.functions.values.reduce(0) { $0 + part($1) }) }
        }
        let byFunction = functions.map { name in
            JSONValue.Member(
                name,
                [
                    "local_bytes": column { JSONValue($0.functions[name]?.local ?? 0) },
                    "far_bytes": column { JSONValue($0.functions[name]?.far ?? 0) },
                    "containers": column { JSONValue($0.functions[name]?.containers ?? 0) },
                    "idle": column { JSONValue($0.functions[name]?.idle ?? 0) },
                ])
        }
        return [
            "started_at_unix_ms": JSONValue(startedAtUnix),
            "ms": column { JSONValue($0.milliseconds) },
            "local_bytes": total(\.local), "far_bytes": total(\.far),
            "containers": total { UInt64($0.containers) },
            "swapped_out_pages": column { $0.swappedOut.map { JSONValue($0) } ?? .null },
            "swapped_in_pages": column { $0.swappedIn.map { JSONValue($0) } ?? .null },
            "functions": .object(byFunction),
        ]
    }
}
