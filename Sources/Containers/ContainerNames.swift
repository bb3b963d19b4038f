// Which container a control group belongs to, by the names that container runtimes and kubelet give. The names are
// data: a runtime that names its groups otherwise needs a line in the table, not code.

import FarMemory

/// A container as its control group's path names it.
package struct ContainerIdentity: Equatable, Sendable {
    /// `docker`, `podman`, `containerd`, `cri-o`; `cri` where kubelet's layout does not say which.
    package var runtime: String
    package var id: String
    /// Of the pod, with dashes, under Kubernetes.
    package var podUID: String?
    /// The container's own group: groups that it makes inside are left off.
    package var group: String
}

/// One way to name a container's group: the text around its id, and what the group above must be.
package struct ContainerNameRule: Equatable, Sendable {
    package enum Parent: Equatable, Sendable {
        case any
        case named(String)
        /// kubelet's group of a pod.
        case pod
    }

    package var runtime: String
    /// The component is PREFIX id SUFFIX.
    package var prefix: String
    package var suffix: String
    package var parent: Parent
    /// Ids are 64 hexadecimal digits; where this holds, any word is one.
    package var takesAnyWord = false

    /// Every rule, the first that fits decides.
    package static let all: [ContainerNameRule] = [
        // systemd as cgroup driver: a scope for each container, in system.slice, machine.slice or the pod's slice.
        rule("docker", "docker-", ".scope"),
        rule("podman", "libpod-", ".scope"),
        rule("containerd", "cri-containerd-", ".scope"),
        rule("containerd", "nerdctl-", ".scope"),
        rule("cri-o", "crio-", ".scope"),
        // cgroupfs as cgroup driver: directories.
        rule("podman", "libpod-", ""),
        rule("cri-o", "crio-", ""),
        rule("docker", "", "", .named("docker")),
        rule("containerd", "", "", .named("k8s.io")),
        rule("containerd", "", "", .named("default")),
        rule("docker", "", "", .named("moby")),
        // faasd's namespace of functions: the id is the function's name.
        ContainerNameRule(
            runtime: "containerd", prefix: "", suffix: "", parent: .named("openfaas-fn"),
            takesAnyWord: true),
        rule("cri", "", "", .pod),
    ]

    private static func rule(
        _ runtime: String, _ prefix: String, _ suffix: String, _ parent: Parent = .any
    ) -> ContainerNameRule {
        ContainerNameRule(runtime: runtime, prefix: prefix, suffix: suffix, parent: parent)
    }

    /// The id in a component, if it is named by this rule.
    func id(in component: Substring, below parent: Substring?) -> Substring? {
        guard component.hasPrefix(prefix), component.hasSuffix(suffix),
            component.utf8.count > prefix.utf8.count + suffix.utf8.count
        else { return nil }
        let id = component.dropFirst(prefix.count).dropLast(suffix.count)
        guard takesAnyWord ? !id.contains(":") : isContainerID(id) else { return nil }
        switch self.parent {
        case .any: return id
        case .named(let name): return parent.map { $0 == name } == true ? id : nil
        case .pod: return parent.flatMap(podUID) == nil ? nil : id
        }
    }
}

/// The innermost container that a group's path (`/kubepods/burstable/podUID/ID`) belongs to; nil when it is none's.
/// `system.slice:cri-containerd:ID`, which containerd makes where systemd names go to cgroupfs, counts too.
package func containerIdentity(ofGroup path: String) -> ContainerIdentity? {
    let components = pathComponents(path)
    for index in components.indices.reversed() {
        let parent = index > 0 ? components[index - 1] : nil
        let parts = components[index].split(separator: ":", omittingEmptySubsequences: false)
        let group = "/" + components[...index].joined(separator: "/")
        if parts.count == 3, isContainerID(parts[2]) {
            return ContainerIdentity(
                runtime: parts[1] == "cri-containerd" ? "containerd" : String(parts[1]),
                id: String(parts[2]), podUID: podUID(parts[0]), group: group)
        }
        for rule in ContainerNameRule.all {
            guard let id = rule.id(in: components[index], below: parent) else { continue }
            return ContainerIdentity(
                runtime: rule.runtime, id: String(id), podUID: parent.flatMap(podUID),
                group: group)
        }
    }
    return nil
}

/// The uid in kubelet's name of a pod's group: `podUID`, or `kubepods-burstable-podU_I_D.slice`.
private func podUID(_ component: Substring) -> String? {
    var name = component
    if name.hasPrefix("kubepods"), name.hasSuffix(".slice") {
        guard let marker = lastRange(of: "-pod", in: name) else { return nil }
        name = name[marker...].dropLast(".slice".count)
    } else if name.hasPrefix("pod") {
        name = name.dropFirst("pod".count)
    } else {
        return nil
    }
    let uid = String(name.map { $0 == "_" ? "-" : $0 })
    let isUID =
        (32...36).contains(uid.utf8.count)
        && uid.utf8.allSatisfy { isHexadecimal($0) || $0 == UInt8(ascii: "-") }
    return isUID ? uid : nil
}

/// Where the text after the last `marker` begins.
private func lastRange(of marker: String, in text: Substring) -> Substring.Index? {
    var found: Substring.Index?
    var index = text.startIndex
    while index < text.endIndex {
        if text[index...].hasPrefix(marker) { found = text.index(index, offsetBy: marker.count) }
        index = text.index(after: index)
    }
    return found
}

/// Whether a text is a full container id.
package func isContainerID(_ text: some StringProtocol) -> Bool {
    text.utf8.count == 64 && text.utf8.allSatisfy(isHexadecimal)
}

private func isHexadecimal(_ byte: UInt8) -> Bool {
    (0x30...0x39).contains(byte) || (0x61...0x66).contains(byte)
}
