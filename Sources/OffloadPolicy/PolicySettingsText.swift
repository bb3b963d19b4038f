import FarMemory

// The settings as one line of a record: every knob by name, so that a record can be replayed by whoever has it alone. A knob that is
// missing here would make replays differ: PolicyRecordTests changes each of them.

extension PolicySettings {
    /// "policy=farmem runtime-pucket=1 ..."
    package var recordText: String {
        recordFields.map { "\($0.name)=\($0.get(self))" }.joined(separator: " ")
    }

    /// Nil with the name of a word that is no knob, or no value of it.
    package static func parse(record text: String) -> (settings: PolicySettings?, fault: String?) {
        var settings = PolicySettings()
        var words = RecordWords(text)
        while let word = words.next() {
            let parts = word.split(
                separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, let known = recordFields.first(where: { $0.name == parts[0] }),
                known.set(&settings, String(parts[1]))
            else { return (nil, word) }
        }
        return (settings, nil)
    }
}

private struct RecordField: Sendable {
    let name: String
    let get: @Sendable (PolicySettings) -> String
    let set: @Sendable (inout PolicySettings, String) -> Bool
}

private typealias Knob<Value> = WritableKeyPath<PolicySettings, Value> & Sendable

private func number<Value: FixedWidthInteger & Sendable>(
    _ name: String, _ knob: any Knob<Value>
) -> RecordField {
    RecordField(
        name: name, get: { "\($0[keyPath: knob])" },
        set: { settings, text in
            guard let value = Value(text) else { return false }
            settings[keyPath: knob] = value
            return true
        })
}

private func flag(_ name: String, _ knob: any Knob<Bool>) -> RecordField {
    RecordField(
        name: name, get: { $0[keyPath: knob] ? "1" : "0" },
        set: { settings, text in
            guard text == "0" || text == "1" else { return false }
            settings[keyPath: knob] = text == "1"
            return true
        })
}

private func time(_ name: String, _ knob: any Knob<Nanoseconds>) -> RecordField {
    RecordField(
        name: name, get: { "\($0[keyPath: knob].nanoseconds)" },
        set: { settings, text in
            guard let value = Int64(text) else { return false }
            settings[keyPath: knob] = Nanoseconds(value)
            return true
        })
}

private func optionalTime(_ name: String, _ knob: any Knob<Nanoseconds?>) -> RecordField {
    RecordField(
        name: name, get: { $0[keyPath: knob].map { "\($0.nanoseconds)" } ?? "-" },
        set: { settings, text in
            guard text == "-" || Int64(text) != nil else { return false }
            settings[keyPath: knob] = Int64(text).map { Nanoseconds($0) }
            return true
        })
}

private func size(_ name: String, _ knob: any Knob<ByteCount>) -> RecordField {
    RecordField(
        name: name, get: { "\($0[keyPath: knob].bytes)" },
        set: { settings, text in
            guard let value = UInt64(text) else { return false }
            settings[keyPath: knob] = ByteCount(value)
            return true
        })
}

private func pages(_ name: String, _ knob: any Knob<PageCount>) -> RecordField {
    RecordField(
        name: name, get: { "\($0[keyPath: knob].pages)" },
        set: { settings, text in
            guard let value = UInt64(text) else { return false }
            settings[keyPath: knob] = PageCount(value)
            return true
        })
}

/// NAME:VALUE,NAME:VALUE in the order of the names.
private func perFunction<Value: Sendable>(
    _ name: String, _ knob: any Knob<[String: Value]>,
    _ text: @escaping @Sendable (Value) -> String,
    _ parse: @escaping @Sendable (String) -> Value?
) -> RecordField {
    RecordField(
        name: name,
        get: { settings in
            settings[keyPath: knob].sorted { $0.key < $1.key }
                .map { "\(escapedName($0.key)):\(text($0.value))" }.joined(separator: ",")
        },
        set: { settings, line in
            var all: [String: Value] = [:]
            for entry in line.split(separator: ",") {
                guard let colon = entry.lastIndex(of: ":"),
                    let value = parse(String(entry[entry.index(after: colon)...]))
                else { return false }
                all[plainName(String(entry[..<colon]))] = value
            }
            settings[keyPath: knob] = all
            return true
        })
}

private func choice<Value: RawRepresentable<String> & Sendable>(
    _ name: String, _ knob: any Knob<Value>
) -> RecordField {
    RecordField(
        name: name, get: { $0[keyPath: knob].rawValue },
        set: { settings, text in
            guard let value = Value(rawValue: text) else { return false }
            settings[keyPath: knob] = value
            return true
        })
}

private let drainRateField = RecordField(
    name: "drain",
    get: { settings in
        switch settings.drainRate {
        case .percentPerSecond(let percent): "percent:\(percent)"
        case .bytesPerSecond(let rate): "bytes:\(rate.bytes)"
        }
    },
    set: { settings, text in
        let parts = text.split(separator: ":")
        guard parts.count == 2, let value = UInt64(parts[1]) else { return false }
        switch parts[0] {
        case "percent": settings.drainRate = .percentPerSecond(value)
        case "bytes": settings.drainRate = .bytesPerSecond(ByteCount(value))
        default: return false
        }
        return true
    })

private let windowField = RecordField(
    name: "request-window", get: { "\($0.requestWindow ?? 0)" },
    set: { settings, text in
        guard let value = UInt32(text) else { return false }
        settings.requestWindow = value == 0 ? nil : value
        return true
    })

/// Zero is none.
private let latencyField = RecordField(
    name: "latency-permille", get: { "\($0.latencyPermille ?? 0)" },
    set: { settings, text in
        guard let value = UInt64(text) else { return false }
        settings.latencyPermille = value == 0 ? nil : value
        return true
    })

private let recordFields: [RecordField] = [
    choice("policy", \.kind), flag("runtime-pucket", \.offloadsRuntime),
    flag("init-pucket", \.offloadsInitialization), flag("semi-warm", \.drainsIdle),
    choice("prefetch", \.prefetch), time("prefetch-after", \.recallAfter),
    flag("shared-pages", \.reclaimsShared), windowField,
    perFunction("request-windows", \.requestWindows, { "\($0)" }, { UInt32($0) }),
    choice("window-law", \.windowLaw), pages("release-min", \.releaseMinimum),
    time("rollback-interval", \.rollbackInterval),
    time("rollback-interval-max", \.rollbackIntervalMaximum),
    number("rollback-permille", \.rollbackPermille),
    number("rollback-slice-permille", \.rollbackSlicePermille),
    number("reuse-permille", \.reusePermille), number("wake-permille", \.wakePermille),
    time("semi-warm-prior", \.semiWarmPrior),
    time("semi-warm-patience", \.semiWarmPatience),
    number("reuse-samples", \.reuseSamplesMinimum),
    number("reuse-samples-enough", \.reuseSamplesEnough),
    optionalTime("semi-warm-delay", \.semiWarmDelay),
    perFunction(
        "semi-warm-delays", \.semiWarmDelays, { "\($0.nanoseconds)" },
        { Int64($0).map { Nanoseconds($0) } }),
    time("semi-warm-min", \.semiWarmMinimum), drainRateField, time("drain-step", \.drainStep),
    size("floor", \.floor), time("recycle-guard", \.recycleGuard),
    time("recycle-margin", \.recycleMargin), flag("budget", \.usesBudget),
    size("bandwidth", \.bandwidth), size("burst", \.burst),
    optionalTime("request-patience", \.requestPatience),
    number("pressure-permille", \.pressurePermille), time("pressure-pause", \.pressurePause),
    number("refault-permille", \.refaultPermille), latencyField,
    optionalTime("far-latency-max", \.farLatencyMaximum), size("far-reserve", \.farReserve),
    time("tmo-interval", \.senpai.interval), number("tmo-ratio", \.senpai.ratioMillionths),
    number("tmo-pressure", \.senpai.pressureMillionths),
    pages("tmo-min", \.senpai.requestMinimum), time("damon-age", \.coldRegions.age),
    size("damon-size", \.coldRegions.sizeMinimum),
]
