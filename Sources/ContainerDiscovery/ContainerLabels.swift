import CommandLineKit
import FarMemory
package import OffloadPolicy

/// Labels and annotations that are ours begin with this.
package let labelPrefix = "farmem."

/// Which labels name the function that a container runs, in order; with the names that platforms give.
package let functionLabels = [
    "farmem.function",
    // Knative, OpenFaaS on Kubernetes, faasd.
    "serving.knative.dev/service", "faas_function", "com.openfaas.function",
    "com.docker.compose.service",
]

/// Which tell how the container is called inside its pod, as CRI-O and cri-dockerd, and as containerd write it: in
/// OpenFaaS that is the function, in Knative it is always the same, but there a variable names the service.
package let containerNameLabels = [
    "io.kubernetes.container.name", "io.kubernetes.cri.container-name",
]

/// And which variables of its processes: Knative's.
package let functionVariables = ["K_SERVICE"]

/// What the labels of a container say to the controller.
package struct ContainerLabels: Equatable, Sendable {
    package var settings = ContainerSettings()
    package var function: String?
    /// One line for each label that is not understood. Then the container is left alone: who wrote a label wanted
    /// something, and doing nothing is what harms least.
    package var problems: [String] = []

    /// What one label sets.
    private struct Key: Sendable {
        var name: String
        var kind: ValueKind
        var apply: @Sendable (OptionValue, inout ContainerLabels) -> Void
    }

    private static let keys: [Key] = [
        Key(name: "offload", kind: .flag) { value, labels in
            if case .flag(let offloads) = value { labels.settings.offloads = offloads }
        },
        Key(name: "function", kind: .string) { value, labels in
            if case .string(let name) = value { labels.function = name }
        },
        Key(name: "request-window", kind: .integer(0...1000)) { value, labels in
            if case .integer(let window) = value {
                labels.settings.requestWindow = UInt32(window)
            }
        },
        Key(name: "semi-warm-delay", kind: .duration) { value, labels in
            if case .duration(let delay) = value { labels.settings.semiWarmDelay = delay }
        },
        Key(name: "floor", kind: .size) { value, labels in
            if case .size(let floor) = value { labels.settings.floor = floor }
        },
    ]

    /// Reads labels or annotations, and variables.
    package init(_ labels: [String: String], environment: [String: String] = [:]) {
        for name in labels.keys.sorted() where name.hasPrefix(labelPrefix) {
            take(String(name.dropFirst(labelPrefix.count)), labels[name] ?? "")
        }
        if function == nil {
            let names =
                functionLabels.map { labels[$0] } + functionVariables.map { environment[$0] }
                + containerNameLabels.map { labels[$0] }
            function = names.lazy.compactMap { $0 }.first { isPrintable($0, 1...128) }
        }
        if !problems.isEmpty { settings.offloads = false }
    }

    private mutating func take(_ name: String, _ text: String) {
        guard let key = Self.keys.first(where: { $0.name == name }) else {
            let names = Self.keys.map(\.name)
            let hint =
                nearestName(to: name, among: names).map { "did you mean \(labelPrefix)\($0)?" }
                ?? "labels are \(names.map { labelPrefix + $0 }.joined(separator: ", "))"
            problems.append("unknown label \(labelPrefix)\(name.prefix(64)); \(hint)")
            return
        }
        guard name != "function" || isPrintable(text, 1...128) else {
            problems.append("label \(labelPrefix)function must be 1 to 128 bytes without blanks")
            return
        }
        do throws(UnitError) {
            key.apply(try key.kind.parse(text), &self)
        } catch {
            problems.append("label \(labelPrefix)\(name): \(error.message)")
        }
    }
}

/// Containers of one function share what is learned: a name without a trailing number.
package func functionName(ofContainer name: String) -> String {
    guard let dash = name.lastIndex(where: { $0 == "-" || $0 == "_" }), dash != name.startIndex
    else { return name }
    let tail = name[name.index(after: dash)...]
    return !tail.isEmpty && tail.allSatisfy(\.isNumber) ? String(name[..<dash]) : name
}
