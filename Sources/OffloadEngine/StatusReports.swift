import FarMemory
package import JSONText
import OffloadPolicy

extension EngineStatus {
    /// GET /v1/status. `schema` grows when a field changes its meaning.
    package var json: JSONValue {
        let local = containers.reduce(UInt64(0)) { $0 + ($1.measure?.local.bytes ?? 0) }
        let far = containers.reduce(UInt64(0)) { $0 + ($1.measure?.far?.bytes ?? 0) }
        return [
            "schema": 1,
            "engine": JSONValue(engine.kind.rawValue),
            "engine_reason": JSONValue(engine.reason),
            "policy": JSONValue(policy.rawValue),
            "cgroup": JSONValue(controlGroups),
            "dry_run": JSONValue(isDryRun),
            "started_at_unix_ms": JSONValue(startedAt / 1_000_000),
            "paused_by": JSONValue(pausedBy?.rawValue),
            "pressure_permille": optional(pressurePermille),
            "maintenance": JSONValue(inMaintenance),
            "pull_backs_left": JSONValue(pullBacksLeft),
            "far_connected": farIsConnected.map { JSONValue($0) } ?? .null,
            "far_latency_us": farLatency.map { JSONValue($0.microseconds) } ?? .null,
            "far_free_bytes": optional(farFree?.bytes),
            "far_total_bytes": optional(farTotal?.bytes),
            "containers": JSONValue(containers.count),
            "local_bytes": JSONValue(local),
            "far_bytes": JSONValue(far),
            "written_bytes": JSONValue(ByteCount(pages: counters.written).bytes),
            "released_bytes": JSONValue(ByteCount(pages: counters.released).bytes),
            "recalled_bytes": JSONValue(ByteCount(pages: counters.recalled).bytes),
            "file_dropped_bytes": JSONValue(counters.fileDropped.bytes),
            "events": JSONValue(counters.events),
            "events_dropped": JSONValue(counters.eventsDropped),
            "events_of_unknown_containers": JSONValue(counters.eventsOfUnknown),
            "knobs_restored_at_start": JSONValue(counters.restored),
        ]
    }

    /// GET /v1/containers.
    package var containersJSON: JSONValue {
        ["schema": 1, "containers": .array(containers.map(\.json))]
    }
}

extension ContainerStatus {
    package var json: JSONValue {
        [
            "id": JSONValue(name),
            "function": JSONValue(function),
            "cgroup": JSONValue(group),
            "state": JSONValue(phase.rawValue),
            "last_rule": JSONValue(rule.rawValue),
            "requests": JSONValue(requests),
            "local_bytes": optional(measure?.local.bytes),
            "anon_bytes": optional(measure?.anonymous.bytes),
            "file_bytes": optional(measure?.file?.bytes),
            "far_bytes": optional(measure?.far?.bytes),
            "runtime_pucket_bytes": JSONValue(runtime.bytes),
            "init_pucket_bytes": JSONValue(initialization.bytes),
            "waiting_bytes": JSONValue(waiting.bytes),
            "hot_bytes": JSONValue(hot.bytes),
            "segments": segmentsJSON,
            "window_open": JSONValue(windowIsOpen),
            "semi_warm_delay_ms": JSONValue(semiWarmDelay.milliseconds),
            "refaults": optional(measure?.refaults),
            "written_bytes": JSONValue(ByteCount(pages: ledger.written).bytes),
            "released_bytes": JSONValue(ByteCount(pages: ledger.released).bytes),
            "recalled_bytes": JSONValue(ByteCount(pages: ledger.recalled).bytes),
            "hot_touches": JSONValue(ledger.hot.pages),
            "file_dropped_bytes": JSONValue(ledger.fileDropped.bytes),
            "saved_byte_seconds": JSONValue(ledger.savedByteSeconds),
            "stall_us": measure?.stall.map { JSONValue($0.microseconds) } ?? .null,
            "generation_merges": JSONValue(ledger.generationMerges),
            "generation_errors": JSONValue(ledger.generationErrors),
        ]
    }
}

extension ContainerStatus {
    /// Null until the first census.
    private var segmentsJSON: JSONValue {
        guard let sizes = measure?.segments else { return .null }
        func segment(_ size: SegmentSize) -> JSONValue {
            ["local_bytes": optional(size.local?.bytes), "far_bytes": optional(size.far?.bytes)]
        }
        let local = [sizes.runtime, sizes.initialization, sizes.execution].map(\.local)
        let known = local.contains(nil) ? nil : local.reduce(UInt64(0)) { $0 + ($1?.bytes ?? 0) }
        let anonymous = measure?.anonymous.bytes ?? 0
        return [
            "runtime": segment(sizes.runtime), "init": segment(sizes.initialization),
            "execution": segment(sizes.execution), "hot_bytes": optional(sizes.hot?.bytes),
            "waiting_bytes": optional(sizes.waiting?.bytes),
            "shared_bytes": optional(known.map { anonymous - min(anonymous, $0) }),
            "age_ms": JSONValue(max(0, (reportedAt - sizes.measuredAt).milliseconds)),
        ]
    }
}

extension DecisionRecord {
    package var json: JSONValue {
        [
            "seq": JSONValue(sequence),
            "time_unix_ms": JSONValue(time / 1_000_000),
            "container": JSONValue(container),
            "function": JSONValue(function),
            "rule": JSONValue(rule.rawValue),
            "action": JSONValue(action),
            "reason": JSONValue(reason),
            "written_bytes": JSONValue(written.bytes),
            "released_bytes": JSONValue(ByteCount(pages: released).bytes),
            "hot_pages": JSONValue(hot.pages),
            "recalled_bytes": JSONValue(ByteCount(pages: recalled).bytes),
            "refaults": optional(refaults),
            "halted": JSONValue(wasHalted),
            "duration_us": JSONValue(duration.microseconds),
        ]
    }
}

/// Unknown is null, never zero.
private func optional(_ value: UInt64?) -> JSONValue { value.map { JSONValue($0) } ?? .null }
