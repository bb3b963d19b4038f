import FarMemory
import LinuxSystem
import OffloadPolicy
import Testing

@testable import ContainerDiscovery

/// A captured answer.
func runtimeFixture(_ name: String) throws -> [UInt8] {
    let tests = #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
    return try readSmallFile("/\(tests)/Fixtures/runtimes/\(name)")
}

private let podmanID = "a54cd8127981f8f0ddbc66fe0efa447599738dd5b9feb35be471150104e67616"

@Suite struct RuntimeAnswersTests {
    @Test func podmansAnswersAreUnderstood() throws {
        #expect(try parseContainerList(runtimeFixture("podman-4.3-list.json")) == [podmanID])
        let container = try parseInspection(runtimeFixture("podman-4.3-inspect.json"))
        #expect(container.id == podmanID)
        #expect(container.name == "web-1")
        #expect(container.labels == ["farmem.floor": "4MiB", "farmem.function": "web"])
        #expect(container.pid == 18973)
        #expect(container.startedAt == "2026-11-21T21:08:04.998663606Z")
        let (annotations, environment) = try parseBundle(runtimeFixture("podman-4.3-bundle.json"))
        #expect(annotations["io.container.manager"] == "libpod")
        #expect(environment.isEmpty)
    }

    @Test func podmansEventsAreUnderstood() throws {
        var lines = EventLines()
        let events = try lines.take(runtimeFixture("podman-4.3-events.jsonl")).compactMap {
            try parseRuntimeEvent($0)
        }
        #expect(
            events.map(\.action) == [
                "create", "init", "start", "kill", "die", "cleanup", "remove", "pause", "unpause",
            ])
        #expect(events.filter(\.isRelevant).map(\.action) == ["start", "die", "remove"])
        #expect(events[2].time == 1_795_295_285)
    }

    /// As Docker's API reference has it: exec events carry their command, images have events too.
    @Test func dockersEventsAreUnderstood() throws {
        func event(_ text: String) throws -> RuntimeEvent? {
            try parseRuntimeEvent(Array(text.utf8))
        }
        let id = String(repeating: "ab", count: 32)
        let exec = try event(
            #"{"Type":"container","Action":"exec_start: /bin/sh","Actor":{"ID":"\#(id)"}}"#)
        #expect(exec?.action == "exec_start" && exec?.isRelevant == false)
        let die = try event(#"{"status":"die","id":"\#(id)","from":"x","time":7}"#)
        #expect(die == RuntimeEvent(action: "die", id: id, time: 7))
        #expect(try event(#"{"Type":"image","Action":"pull","Actor":{"ID":"a:b/c"}}"#) == nil)
        #expect(try event(#"{"Type":"container"}"#) == nil)
    }

    @Test(arguments: [
        "", "{", "[]", "null", #"{"Id":"a/../b","State":{"Running":true}}"#, #"{"Id":"a"}"#,
        #"{"Id":"a","Name":"","State":{"Running":true}}"#,
        #"{"Id":"a","Name":"/x y","State":{"Running":true}}"#,
        #"{"Id":"a","Name":"/x","State":{"Running":true,"Pid":-4}}"#,
        #"{"Id":"a","Name":"/x","State":{"Running":true,"Pid":99999999999}}"#,
    ])
    func aWrongInspectionIsRefused(text: String) {
        #expect(throws: AnswerError.self) { try parseInspection(Array(text.utf8)) }
    }

    @Test func aContainerWithoutAProcessDoesNotRun() throws {
        for state in [#"{"Running":true,"Pid":0}"#, #"{"Running":false,"Pid":77}"#] {
            let text = #"{"Id":"a","Name":"/x","State":\#(state)}"#
            #expect(try parseInspection(Array(text.utf8)).pid == nil)
        }
    }

    @Test(arguments: ["", "{}", #"[{"Names":["/x"]}]"#, #"[{"Id":"a b"}]"#, "[1]"])
    func aWrongListIsRefused(text: String) {
        #expect(throws: AnswerError.self) { try parseContainerList(Array(text.utf8)) }
    }

    @Test func aListWithMoreThanTheBoundIsRefused() throws {
        func list(_ count: Int) -> [UInt8] {
            Array("[\(Array(repeating: #"{"Id":"a"}"#, count: count).joined(separator: ","))]".utf8)
        }
        #expect(try parseContainerList(list(AnswerLimits.containers)).count == 4096)
        #expect(throws: AnswerError.self) {
            try parseContainerList(list(AnswerLimits.containers + 1))
        }
    }

    @Test func ofCRIOThePodsOwnAnnotationsCountBehindTheContainers() throws {
        let bundle = #"""
            {"annotations":{"farmem.floor":"1MiB",
             "io.kubernetes.cri-o.Annotations":"{\"farmem.floor\":\"2MiB\",\"farmem.offload\":\"false\"}",
             "io.kubernetes.cri-o.Labels":"{\"serving.knative.dev/service\":\"hello\"}"},
             "process":{"env":["PATH=/","K_SERVICE=other"]}}
            """#
        let (annotations, environment) = try parseBundle(Array(bundle.utf8))
        let labels = ContainerLabels(annotations, environment: environment)
        #expect(labels.settings.floor == .mib(1))
        #expect(labels.settings.offloads == false)
        #expect(labels.function == "hello")
    }
}

@Suite struct EventLinesTests {
    @Test func linesAreWholeHoweverThePiecesFall() {
        let text = Array("one\n\n  \r\ntwo\nthree\nrest".utf8)
        for size in 1...text.count {
            var lines = EventLines()
            var found: [String] = []
            for start in stride(from: 0, to: text.count, by: size) {
                found += lines.take(Array(text[start..<min(start + size, text.count)]))
                    .map { String(decoding: $0, as: UTF8.self) }
            }
            #expect(found == ["one", "two", "three"])
        }
    }

    @Test func aLineThatIsTooLongIsDroppedAndTheNextIsNot() {
        var lines = EventLines(bytesMax: 8)
        #expect(lines.take(Array("123456789abcdef".utf8)).isEmpty)
        #expect(lines.take(Array("more\n12345678\n".utf8)) == [Array("12345678".utf8)])
        #expect(lines.dropped == 1)
    }
}

@Suite struct ContainerLabelsTests {
    @Test func allOfThemAreRead() {
        let labels = ContainerLabels([
            "farmem.offload": "true", "farmem.function": "resize", "farmem.request-window": "8",
            "farmem.semi-warm-delay": "90s", "farmem.floor": "16MiB", "other": "x",
        ])
        var settings = ContainerSettings()
        settings.offloads = true
        settings.requestWindow = 8
        settings.semiWarmDelay = .seconds(90)
        settings.floor = .mib(16)
        #expect(labels.settings == settings)
        #expect(labels.function == "resize")
        #expect(labels.problems.isEmpty)
    }

    @Test(arguments: [
        ("farmem.offlaod", "false", "did you mean farmem.offload?"),
        ("farmem.zzzzzzzzz", "1", "labels are farmem.offload"),
        ("farmem.offload", "no", "neither true nor false"),
        ("farmem.floor", "16", "has no unit"),
        ("farmem.request-window", "-1", "-1"),
        ("farmem.function", "a b", "without blanks"),
        ("farmem.semi-warm-delay", "", "label farmem.semi-warm-delay"),
    ])
    func aContainerWithAWrongLabelIsLeftAlone(name: String, text: String, hint: String) {
        let labels = ContainerLabels([name: text])
        #expect(labels.settings.offloads == false)
        #expect(labels.problems.contains { $0.contains(hint) }, "\(labels.problems)")
    }

    @Test func aLabelThatIsNoTextIsAWrongOne() throws {
        let text =
            #"{"Id":"a","Name":"/x","State":{"Running":true,"Pid":9},"#
            + #""Config":{"Labels":{"farmem.offload":false}}}"#
        let labels = ContainerLabels(try parseInspection(Array(text.utf8)).labels)
        #expect(labels.settings.offloads == false)
        #expect(!labels.problems.isEmpty)
    }

    @Test func platformsNameTheFunctionWhereNoLabelOfOursDoes() {
        #expect(ContainerLabels(["faas_function": "figlet"]).function == "figlet")
        let both = ["faas_function": "figlet", "farmem.function": "mine"]
        #expect(ContainerLabels(both).function == "mine")
        #expect(ContainerLabels([:], environment: ["K_SERVICE": "hello"]).function == "hello")
        #expect(ContainerLabels([:]).function == nil)
        #expect(functionName(ofContainer: "web-12") == "web")
        #expect(functionName(ofContainer: "web") == "web")
        #expect(functionName(ofContainer: "a-b") == "a-b")
        #expect(functionName(ofContainer: "-1") == "-1")
    }
}

@Suite struct ContainerGroupTests {
    @Test func theGroupIsTheContainersOwn() {
        let id = podmanID
        #expect(containerGroup("/docker/\(id)", id: id) == "/docker/\(id)")
        #expect(
            containerGroup("/machine.slice/libpod-\(id).scope/container", id: id)
                == "/machine.slice/libpod-\(id).scope")
        #expect(containerGroup("/my/parent/\(id)/init", id: id) == "/my/parent/\(id)")
    }

    @Test(arguments: ["/", "/system.slice/docker.service", "/../../docker/x", "", "docker/x"])
    func aGroupThatIsNotItsOwnIsNone(path: String) {
        #expect(containerGroup(path, id: podmanID) == nil)
        #expect(containerGroup(path + "/../\(podmanID)", id: podmanID) == nil)
        #expect(containerGroup("/a/b", id: "b") == nil, "a short id is no proof")
    }
}
