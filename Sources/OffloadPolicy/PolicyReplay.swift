import FarMemory

/// Asks a policy again what a record says that it was asked, and compares what it decides now.
package struct PolicyReplay: Sendable {
    package static let title = "farmem-policy-record 1"

    /// A line that is none, or a decision that differs.
    package struct Fault: Equatable, Sendable {
        package let line: Int
        package let text: String
    }

    private var policy: PolicyMachine?
    private var settings: PolicySettings?
    private var expected: [PolicyRecordLine] = []
    private var line = 0
    private var askedAt = 0
    package private(set) var events = 0
    package private(set) var ticks = 0
    package private(set) var decisions = 0
    /// The first thing that is wrong; nothing is replayed behind it.
    package private(set) var fault: Fault?

    package init() {}

    /// Takes the next line. False when something is wrong.
    package mutating func take(_ text: String) -> Bool {
        guard fault == nil else { return false }
        line += 1
        switch line {
        case 1:
            if text != Self.title {
                fail("not a policy record: the first line is not '\(Self.title)'")
            }
        case 2: takeSettings(text)
        default: takeLine(text)
        }
        return fault == nil
    }

    /// Says that the record is over. A daemon that was killed may have left its last line in two.
    package mutating func end() -> Bool {
        guard fault == nil else { return false }
        if line < 2 { fail("the record ends before its settings") }
        if let first = expected.first {
            fail("decided '\(first.text)', and the record ends without it", at: askedAt)
        }
        return fault == nil
    }

    private mutating func takeSettings(_ text: String) {
        guard text.hasPrefix("settings ") else { return fail("no settings in line 2") }
        let (settings, unknown) = PolicySettings.parse(record: String(text.dropFirst(9)))
        guard let settings else { return fail("unknown setting '\(unknown ?? "")'") }
        self.settings = settings
    }

    private mutating func takeLine(_ text: String) {
        guard let parsed = PolicyRecordLine(text) else { return fail("cannot read '\(text)'") }
        if case .decision = parsed {
            decisions += 1
            guard let decided = expected.first else {
                return fail("the record has '\(text)', which was not decided now")
            }
            guard decided == parsed else {
                return fail("the record has '\(text)', decided now was '\(decided.text)'")
            }
            expected.removeFirst()
            return
        }
        if let first = expected.first {
            return fail("decided '\(first.text)', which the record does not have", at: askedAt)
        }
        ask(parsed)
    }

    private mutating func ask(_ line: PolicyRecordLine) {
        askedAt = self.line
        var decided: [Decision] = []
        let at: Nanoseconds
        switch line {
        case .event(_, _, let time), .tick(_, let time), .maintenance(_, let time): at = time
        case .decision: return
        }
        if policy == nil { policy = settings.map { PolicyMachine(settings: $0, at: at) } }
        switch line {
        case .event(let event, let id, _):
            events += 1
            policy?.handle(event, of: id, at: at, into: &decided)
        case .tick(let host, _):
            ticks += 1
            policy?.tick(host: host, at: at, into: &decided)
        case .maintenance(let isOn, _): policy?.setMaintenance(isOn, at: at, into: &decided)
        case .decision: break
        }
        expected = decided.map { PolicyRecordLine($0) }
    }

    private mutating func fail(_ text: String, at line: Int? = nil) {
        fault = Fault(line: line ?? self.line, text: text)
    }
}
