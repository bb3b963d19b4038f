package import FarMemory

// The record of a run: what the policy was told, and what it decided, one line each, so that the same code can be asked again elsewhere
// and must answer the same. docs/operations.md describes the lines. Words are separated by spaces; a name is written with
// %XX for bytes that are no letter, digit or one of -_./: ; fields that are absent are unknown.
//
//   farmem-policy-record 1
//   settings policy=farmem ...
//   event TIME CONTAINER WORD FIELD=VALUE...
//   tick TIME FIELD=VALUE...
//   maintenance TIME on|off
//   decision CONTAINER ACTION RULE FIELD=VALUE...      one per decision, behind what caused it

/// One line of a record.
package enum PolicyRecordLine: Equatable, Sendable {
    case event(ContainerEvent, ContainerHandle, at: Nanoseconds)
    case tick(HostMeasure, at: Nanoseconds)
    case maintenance(Bool, at: Nanoseconds)
    /// Container, action with its figures, and rule: what must be the same when it is replayed. Not the wording of the reason.
    case decision(ContainerHandle, String, String)

    package init(_ decision: Decision) {
        self = .decision(decision.container, actionText(decision.action), decision.rule.rawValue)
    }

    package var text: String {
        switch self {
        case .event(let event, let id, let at):
            "event \(at.nanoseconds) \(id.number) \(eventText(event))"
        case .tick(let host, let at): "tick \(at.nanoseconds)\(hostText(host))"
        case .maintenance(let isOn, let at):
            "maintenance \(at.nanoseconds) \(isOn ? "on" : "off")"
        case .decision(let id, let action, let rule): "decision \(id.number) \(action) \(rule)"
        }
    }

    /// Nil when the line is none of these.
    package init?(_ text: String) {
        var words = RecordWords(text)
        switch words.next() {
        case "event":
            guard let at = words.nextNumber(Int64.self), let id = words.nextNumber(UInt64.self),
                let event = parseEvent(&words)
            else { return nil }
            self = .event(event, ContainerHandle(id), at: Nanoseconds(at))
        case "tick":
            guard let at = words.nextNumber(Int64.self), let host = parseHost(&words) else {
                return nil
            }
            self = .tick(host, at: Nanoseconds(at))
        case "maintenance":
            guard let at = words.nextNumber(Int64.self), let word = words.next(),
                word == "on" || word == "off"
            else { return nil }
            self = .maintenance(word == "on", at: Nanoseconds(at))
        case "decision":
            guard let id = words.nextNumber(UInt64.self), let action = words.next(),
                let rule = words.next()
            else { return nil }
            self = .decision(ContainerHandle(id), action, rule)
        default: return nil
        }
    }
}

/// The words of a line, and its fields.
struct RecordWords {
    private var words: ArraySlice<Substring>

    init(_ text: String) { words = text.split(separator: " ")[...] }

    mutating func next() -> String? { words.popFirst().map { String($0) } }

    mutating func nextNumber<Number: FixedWidthInteger>(_ kind: Number.Type) -> Number? {
        next().flatMap { Number($0) }
    }

    /// All that is left, as NAME=VALUE; nil when something else is there.
    mutating func fields() -> [String: String]? {
        var fields: [String: String] = [:]
        while let word = words.popFirst() {
            guard let equals = word.firstIndex(of: "=") else { return nil }
            fields[String(word[..<equals])] = String(word[word.index(after: equals)...])
        }
        return fields
    }
}

// MARK: Events

private func field(_ name: String, _ value: UInt64?) -> String {
    value.map { " \(name)=\($0)" } ?? ""
}
private func field(_ name: String, _ value: Nanoseconds?) -> String {
    value.map { " \(name)=\($0.nanoseconds)" } ?? ""
}

private func eventText(_ event: ContainerEvent) -> String {
    switch event {
    case .started(let function): "started function=\(escapedName(function))"
    case .configured(let own):
        "configured" + field("offload", own.offloads.map { $0 ? 1 : 0 })
            + field("window", own.requestWindow.map { UInt64($0) })
            + field("delay", own.semiWarmDelay) + field("floor", own.floor?.bytes)
    case .runtimeReady: "runtime-ready"
    case .initDone(let end): "init-done" + field("recycled", end)
    case .requestStarted: "request-started"
    case .requestEnded(let end, let latency):
        "request-ended" + field("recycled", end) + field("latency", latency)
    case .stopped: "stopped"
    case .measured(let measure): "measured" + measureText(measure)
    case .reported(let report):
        "reported action=\(actionText(report.action)) written=\(report.written.bytes)"
            + " released=\(report.released.pages) hot=\(report.hot.pages)"
            + field("reserved", report.reserved > .zero ? report.reserved.bytes : nil)
            + field("swept", report.sweptOut > .zero ? report.sweptOut.bytes : nil)
            + (report.wasHalted ? " halted=1" : "") + (report.isExhausted ? " exhausted=1" : "")
            + (report.measure.map(measureText) ?? "")
    }
}

private func measureText(_ measure: ContainerMeasure) -> String {
    " local=\(measure.local.bytes) anon=\(measure.anonymous.bytes)"
        + field("far", measure.far?.bytes) + field("file", measure.file?.bytes)
        + field("refaults", measure.refaults) + field("pressure", measure.pressureMillionths)
        + field("stall", measure.stall)
}

private func hostText(_ host: HostMeasure) -> String {
    field("pressure-permille", host.pressurePermille) + field("far-free", host.farFree?.bytes)
        + field("pressure", host.pressureMillionths) + field("far-latency", host.farLatency)
        + field("far-connected", host.farIsConnected.map { $0 ? UInt64(1) : 0 })
}

private struct Fields {
    let values: [String: String]
    func number(_ name: String) -> UInt64? { values[name].flatMap { UInt64($0) } }
    func time(_ name: String) -> Nanoseconds? {
        values[name].flatMap { Int64($0) }.map { Nanoseconds($0) }
    }
    func bytes(_ name: String) -> ByteCount? { number(name).map { ByteCount($0) } }
}

private func parseEvent(_ words: inout RecordWords) -> ContainerEvent? {
    guard let word = words.next(), let values = words.fields() else { return nil }
    let fields = Fields(values: values)
    switch word {
    case "started": return values["function"].map { .started(function: plainName($0)) }
    case "configured":
        var own = ContainerSettings()
        own.offloads = fields.number("offload").map { $0 != 0 }
        own.requestWindow = fields.number("window").map { UInt32(clamping: $0) }
        own.semiWarmDelay = fields.time("delay")
        own.floor = fields.bytes("floor")
        return .configured(own)
    case "runtime-ready": return .runtimeReady
    case "init-done": return .initDone(recycledAt: fields.time("recycled"))
    case "request-started": return .requestStarted
    case "request-ended":
        return .requestEnded(recycledAt: fields.time("recycled"), latency: fields.time("latency"))
    case "stopped": return .stopped
    case "measured": return parseMeasure(fields).map { .measured($0) }
    case "reported":
        guard let action = values["action"].flatMap(parseAction) else { return nil }
        var report = ActionReport(action: action)
        report.written = fields.bytes("written") ?? .zero
        report.reserved = fields.bytes("reserved") ?? .zero
        report.sweptOut = fields.bytes("swept") ?? .zero
        report.released = PageCount(fields.number("released") ?? 0)
        report.hot = PageCount(fields.number("hot") ?? 0)
        report.wasHalted = values["halted"] != nil
        report.isExhausted = values["exhausted"] != nil
        report.measure = parseMeasure(fields)
        return .reported(report)
    default: return nil
    }
}

private func parseMeasure(_ fields: Fields) -> ContainerMeasure? {
    guard let local = fields.bytes("local"), let anonymous = fields.bytes("anon") else {
        return nil
    }
    var measure = ContainerMeasure(
        local: local, far: fields.bytes("far"), anonymous: anonymous,
        refaults: fields.number("refaults"), file: fields.bytes("file"),
        stall: fields.time("stall"))
    measure.pressureMillionths = fields.number("pressure")
    return measure
}

private func parseHost(_ words: inout RecordWords) -> HostMeasure? {
    guard let values = words.fields() else { return nil }
    let fields = Fields(values: values)
    var host = HostMeasure(
        pressurePermille: fields.number("pressure-permille"), farFree: fields.bytes("far-free"),
        farIsConnected: fields.number("far-connected").map { $0 != 0 },
        farLatency: fields.time("far-latency"))
    host.pressureMillionths = fields.number("pressure")
    return host
}

// MARK: Actions

/// One word: the action with its figures.
private func actionText(_ action: Action) -> String {
    switch action {
    case .examine(_, let grant), .drain(let grant), .reclaim(let grant):
        "\(action.word):\(grant.bytes)"
    case .startColdPageout(let regions): "\(action.word):\(regions.age.nanoseconds)"
    case .snapshot, .release, .stopColdPageout, .halt, .recall, .pullBack, .forget: action.word
    }
}

private func parseAction(_ text: String) -> Action? {
    let parts = text.split(separator: ":", maxSplits: 1)
    let figure = parts.count == 2 ? UInt64(parts[1]) : nil
    let word = parts.first.map { String($0) } ?? ""
    let plain: [Action] =
        Pucket.allCases.map { .snapshot($0) }
        + [PageScope.runtime, .initialization, .all].map { .release($0) }
        + [.stopColdPageout, .halt, .recall, .pullBack, .forget]
    if let action = plain.first(where: { $0.word == word }) { return figure == nil ? action : nil }
    guard let figure else { return nil }
    let grant = ByteCount(figure)
    var regions = ColdRegions()
    regions.age = Nanoseconds(Int64(clamping: figure))
    let withFigure: [Action] =
        [PageScope.runtime, .initialization, .all].map { .examine($0, grant: grant) }
        + [.drain(grant: grant), .reclaim(grant), .startColdPageout(regions)]
    return withFigure.first { $0.word == word }
}

// MARK: Names

func escapedName(_ name: String) -> String {
    var text = ""
    for byte in name.utf8 {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x5F, 0x2E, 0x2F, 0x3A:
            text.unicodeScalars.append(Unicode.Scalar(byte))
        default:
            let digits = String(byte, radix: 16)
            text += "%" + (digits.utf8.count == 1 ? "0" : "") + digits
        }
    }
    return text
}

func plainName(_ text: String) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
        if byte == 0x25, rest.count >= 2,
            let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
        {
            bytes.append(value)
            rest = rest.dropFirst(2)
        } else {
            bytes.append(byte)
        }
    }
    return String(decoding: bytes, as: UTF8.self)
}
