import CommandLineKit

/// One way of running the controller: a policy under a name, with the settings that make it what it is.
struct PolicyVariant: Equatable, Sendable {
    /// In reports.
    var name: String
    /// Of `offloadd run --policy`; `none` runs no controller and no far memory at all.
    var policy: String
    /// More words for `offloadd run`.
    var options: [String] = []

    static let policies = ["none", "tmo", "damon", "idle-shrink", "faasmem", "farmem"]
    static let reference = PolicyVariant(name: "none", policy: "none")
    static let own = PolicyVariant(name: "farmem", policy: "farmem")

    /// The words that choose it. The default policy is not named, so that they do for a controller that has no other.
    var arguments: [String] { (policy == "farmem" ? [] : ["--policy", policy]) + options }

    /// Reads `--policies LIST`, `--variant 'NAME=POLICY [WORD=VALUE]...'` and `--offload-option [POLICY:]WORD=VALUE`. The reference comes first,
    /// named or not; the others stay in order.
    static func parse(
        policies: String, variants: [String], options: [String], withReference: Bool
    ) throws(UsageError) -> [PolicyVariant] {
        var known: [PolicyVariant] = []
        for text in variants { known.append(try parseVariant(text)) }
        var chosen = withReference ? [PolicyVariant.reference] : []
        for name in policies.split(separator: ",").map(String.init) where name != "none" {
            let variant: PolicyVariant
            if let found = known.first(where: { $0.name == name }) {
                variant = found
            } else if Self.policies.contains(name) {
                variant = PolicyVariant(name: name, policy: name)
            } else {
                throw UsageError(
                    "--policies: '\(name)' is none of \(Self.policies.joined(separator: ", ")), and no --variant names it"
                )
            }
            guard !chosen.contains(where: { $0.name == name }) else {
                throw UsageError("--policies: '\(name)' twice")
            }
            chosen.append(variant)
        }
        for variant in known where !chosen.contains(where: { $0.name == variant.name }) {
            throw UsageError("--variant: '\(variant.name)' is not in --policies")
        }
        guard !chosen.isEmpty else { throw UsageError("--policies: names none to replay") }
        for option in options { try add(option, to: &chosen) }
        return chosen
    }

    private static func parseVariant(_ text: String) throws(UsageError) -> PolicyVariant {
        let words = text.split(separator: " ").map(String.init)
        let head = (words.first ?? "").split(separator: "=").map(String.init)
        guard head.count == 2, policies.contains(head[1]), head[1] != "none" else {
            throw UsageError(
                "--variant: '\(text)' is not NAME=POLICY WORD=VALUE..., as in 'no-pucket=farmem init-pucket=false'"
            )
        }
        guard !policies.contains(head[0]) else {
            throw UsageError("--variant: '\(head[0])' is a policy's own name")
        }
        var variant = PolicyVariant(name: head[0], policy: head[1])
        for word in words.dropFirst() { variant.options += try parseOption(word) }
        return variant
    }

    /// `WORD=VALUE` as offloadd takes it. Flags there are words with true or false.
    private static func parseOption(_ text: String) throws(UsageError) -> [String] {
        let bare = text.hasPrefix("--") ? String(text.dropFirst(2)) : text
        guard let equals = bare.firstIndex(of: "="), equals != bare.startIndex else {
            throw UsageError("'\(text)' is not WORD=VALUE, as in drain-percent=20")
        }
        return ["--\(bare)"]
    }

    private static func add(
        _ text: String, to chosen: inout [PolicyVariant]
    ) throws(UsageError) {
        var option = text
        var target: String?
        if let colon = text.firstIndex(of: ":"),
            text[..<colon].firstIndex(of: "=") == nil
        {
            target = String(text[..<colon])
            option = String(text[text.index(after: colon)...])
        }
        let words = try parseOption(option)
        if let target, !chosen.contains(where: { $0.name == target }) {
            throw UsageError("--offload-option: '\(target)' is not in --policies")
        }
        for at in chosen.indices
        where chosen[at].policy != "none" && (target == nil || chosen[at].name == target) {
            chosen[at].options += words
        }
    }
}
