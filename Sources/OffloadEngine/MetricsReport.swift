import FarMemory
import OffloadPolicy

extension EngineStatus {
    /// GET /metrics in the Prometheus text format. What is unknown is left out.
    package var metrics: String {
        var text = ""
        func family(_ name: String, _ kind: String, _ help: String) {
            text += "# HELP farmem_offload_\(name) \(help)\n# TYPE farmem_offload_\(name) \(kind)\n"
        }
        func sample(_ name: String, _ labels: String, _ value: UInt64?) {
            guard let value else { return }
            text += "farmem_offload_\(name)\(labels) \(value)\n"
        }
        func single(_ name: String, _ kind: String, _ help: String, _ value: UInt64?) {
            family(name, kind, help)
            sample(name, "", value)
        }
        family("engine", "gauge", "1 for the engine that is in use.")
        for kind in EngineKind.allCases {
            sample("engine", "{engine=\"\(kind.rawValue)\"}", engine.kind == kind ? 1 : 0)
        }
        single("containers", "gauge", "Containers known.", UInt64(containers.count))
        single("paused", "gauge", "1 while a guard pauses all offloading.", pausedBy == nil ? 0 : 1)
        single("far_free_bytes", "gauge", "Swap space that is free.", farFree?.bytes)
        single(
            "written_bytes_total", "counter", "Bytes written out for far memory.",
            ByteCount(pages: counters.written).bytes)
        single(
            "released_bytes_total", "counter", "Bytes that left local memory.",
            ByteCount(pages: counters.released).bytes)
        single(
            "recalled_bytes_total", "counter", "Bytes that were prefetched.",
            ByteCount(pages: counters.recalled).bytes)
        single(
            "file_dropped_bytes_total", "counter", "File cache dropped beside offloaded pages.",
            counters.fileDropped.bytes)
        single(
            "hot_pages_total", "counter", "Pages that an open window found in use.",
            counters.hot.pages)
        single("events_total", "counter", "Lifecycle events taken.", counters.events)
        single(
            "events_dropped_total", "counter", "Lifecycle events refused: too many waited.",
            counters.eventsDropped)
        single(
            "actions_dropped_total", "counter", "Page actions dropped: too many waited.",
            counters.actionsDropped)
        family("decisions_total", "counter", "Decisions by rule.")
        for rule in Rule.allCases {
            sample("decisions_total", "{rule=\"\(rule.rawValue)\"}", counters.byRule[rule] ?? 0)
        }
        family("container_local_bytes", "gauge", "Local memory of a container.")
        for item in containers {
            sample("container_local_bytes", labels(item), item.measure?.local.bytes)
        }
        family("container_far_bytes", "gauge", "Far memory of a container.")
        for item in containers {
            sample("container_far_bytes", labels(item), item.measure?.far?.bytes)
        }
        family("container_file_bytes", "gauge", "File cache of a container.")
        for item in containers {
            sample("container_file_bytes", labels(item), item.measure?.file?.bytes)
        }
        segments()
        family(
            "container_saved_byte_seconds_total", "counter",
            "Bytes that were far times the seconds for which they were.")
        for item in containers {
            sample(
                "container_saved_byte_seconds_total", labels(item), item.ledger.savedByteSeconds)
        }
        family(
            "container_stall_microseconds_total", "counter",
            "Time in which a task of the container waited for memory.")
        for item in containers {
            sample(
                "container_stall_microseconds_total", labels(item),
                item.measure?.stall.map { UInt64(max(0, $0.microseconds)) })
        }
        family("container_refaults_total", "counter", "Pages read back by a container.")
        for item in containers {
            sample("container_refaults_total", labels(item), item.measure?.refaults)
        }
        return text
        func segments() {
            let parts: [(String, (SegmentSizes) -> SegmentSize)] = [
                ("runtime", { $0.runtime }), ("init", { $0.initialization }),
                ("execution", { $0.execution }),
            ]
            for (place, value) in [
                ("local", { (size: SegmentSize) in size.local }), ("far", { $0.far }),
            ] {
                family(
                    "container_segment_\(place)_bytes", "gauge",
                    "Anonymous memory of a segment, \(place), as of the last census.")
                for item in containers {
                    guard let sizes = item.measure?.segments else { continue }
                    for (name, part) in parts {
                        sample(
                            "container_segment_\(place)_bytes", labels(item, segment: name),
                            value(part(sizes))?.bytes)
                    }
                }
            }
            family("container_hot_bytes", "gauge", "Pages that the last window found in use.")
            for item in containers {
                sample("container_hot_bytes", labels(item), item.measure?.segments?.hot?.bytes)
            }
        }
    }

    private func labels(_ container: ContainerStatus, segment: String) -> String {
        "\(labels(container).dropLast()),segment=\"\(segment)\"}"
    }

    private func labels(_ container: ContainerStatus) -> String {
        "{container=\"\(escaped(container.name))\",function=\"\(escaped(container.function))\"}"
    }

    private func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": result += "\\\\"
            case "\"": result += "\\\""
            case "\n": result += "\\n"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
