import Testing

@testable import Containers

private let id = "a54cd8127981f8f0ddbc66fe0efa447599738dd5b9feb35be471150104e67616"
private let uid = "1b2e8d9c-5d0b-4e57-9d5e-0a1b2c3d4e5f"
private let slice = "1b2e8d9c_5d0b_4e57_9d5e_0a1b2c3d4e5f"

@Suite struct ContainerNamesTests {
    struct Layout: Sendable, CustomStringConvertible {
        var path: String
        var runtime: String
        var pod: String?
        /// What the path has below the container's own group.
        var inside = ""
        var id = ContainerNamesTests.id
        var description: String { path }
    }

    private static let id = "a54cd8127981f8f0ddbc66fe0efa447599738dd5b9feb35be471150104e67616"
    private static let outer = String(repeating: "0f", count: 32)

    /// As the runtimes of these names lay their groups out, by cgroup driver and version.
    static let layouts: [Layout] = [
        Layout(path: "/docker/\(id)", runtime: "docker"),
        Layout(path: "/system.slice/docker-\(id).scope", runtime: "docker"),
        Layout(
            path: "/system.slice/docker-\(id).scope/init.scope", runtime: "docker",
            inside: "/init.scope"),
        Layout(path: "/moby/\(id)", runtime: "docker"),
        Layout(path: "/libpod_parent/libpod-\(id)", runtime: "podman"),
        Layout(path: "/machine.slice/libpod-\(id).scope", runtime: "podman"),
        Layout(
            path: "/machine.slice/libpod-\(id).scope/container", runtime: "podman",
            inside: "/container"),
        Layout(
            path: "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-\(id).scope",
            runtime: "podman"),
        Layout(path: "/default/\(id)", runtime: "containerd"),
        Layout(path: "/k8s.io/\(id)", runtime: "containerd"),
        Layout(path: "/system.slice/nerdctl-\(id).scope", runtime: "containerd"),
        Layout(path: "/openfaas-fn/figlet", runtime: "containerd", id: "figlet"),
        Layout(path: "/kubepods/burstable/pod\(uid)/\(id)", runtime: "cri", pod: uid),
        Layout(path: "/kubepods/pod\(uid)/\(id)", runtime: "cri", pod: uid),
        Layout(path: "/kubepods/besteffort/pod\(uid)/crio-\(id)", runtime: "cri-o", pod: uid),
        Layout(
            path: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod\(slice).slice"
                + "/cri-containerd-\(id).scope", runtime: "containerd", pod: uid),
        Layout(
            path: "/kubepods.slice/kubepods-pod\(slice).slice/crio-\(id).scope", runtime: "cri-o",
            pod: uid),
        Layout(
            path: "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod\(slice).slice"
                + "/docker-\(id).scope", runtime: "docker", pod: uid),
        Layout(
            path: "/system.slice/containerd.service/kubepods-burstable-pod\(slice).slice"
                + ":cri-containerd:\(id)", runtime: "containerd", pod: uid),
        // A cluster in a container (kind): the innermost counts.
        Layout(
            path: "/docker/\(outer)/kubelet/kubepods/burstable/pod\(uid)/\(id)", runtime: "cri",
            pod: uid),
    ]

    @Test(arguments: layouts) func everyLayoutIsKnown(layout: Layout) {
        let identity = containerIdentity(ofGroup: layout.path)
        #expect(identity?.runtime == layout.runtime)
        #expect(identity?.id == layout.id)
        #expect(identity?.podUID == layout.pod)
        #expect(identity?.group == String(layout.path.dropLast(layout.inside.count)))
    }

    @Test(arguments: [
        "/", "", "/docker", "/docker/buildkit", "/system.slice/docker.service",
        "/system.slice/docker-123.scope", "/machine.slice/libpod-conmon-\(id).scope",
        "/libpod_parent/conmon", "/kubepods/burstable/pod\(uid)",
        "/kubepods.slice/kubepods-burstable.slice", "/kubepods/burstable/podx/\(id)",
        "/kubepods/pod\(uid)/crio-conmon-\(id)", "/elsewhere/\(id)", "/docker/\(id.uppercased())",
        "/openfaas-fn", "/user.slice/user-0.slice/session-1.scope", "/a:b:c", "//:/::/",
    ])
    func otherGroupsAreNoContainers(path: String) {
        #expect(containerIdentity(ofGroup: path) == nil)
    }

    @Test func everyRuleHasALayoutThatNeedsIt() {
        for rule in ContainerNameRule.all {
            let fits = Self.layouts.contains { layout in
                let components = layout.path.split(separator: "/")
                return components.indices.contains { index in
                    rule.id(
                        in: components[index], below: index > 0 ? components[index - 1] : nil)
                        != nil && layout.runtime == rule.runtime
                }
            }
            #expect(fits, "no layout for \(rule)")
        }
    }
}
