import FarMemory
import JSONText
import LinuxSystem
import TestSupport
import Testing

@testable import Gateway

@Suite struct FunctionManifestTests {
    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try replaceFile(directory.file("function.py"), with: "def handler(ctx): return {}\n")
    }

    private let valid = """
        {"name": "web", "entry": "function.py", "memory_mib": 354, "cpu_millis": 200,
         "request_window": 20, "init_timeout_ms": 60000, "run_timeout_ms": 30000}
        """

    private func load(_ text: String) throws -> FunctionManifest {
        try replaceFile(directory.file("manifest.json"), with: text)
        return try FunctionManifest.load(directory: directory.path)
    }

    @Test func readsAManifest() throws {
        let manifest = try load(valid)
        #expect(manifest.name == "web")
        #expect(manifest.memory == .mib(354))
        #expect(manifest.cpuMillis == 200)
        #expect(manifest.requestWindow == 20)
        #expect(manifest.runTimeout == .seconds(30))
    }

    @Test(arguments: [
        ("\"web\"", "\"../web\""), ("\"web\"", "\"\""), ("\"web\"", "\"-x\""),
        ("function.py", "missing.py"), ("function.py", "../function.py"),
        ("354", "0"), ("354", "\"354MiB\""), ("200", "-1"), ("\"cpu_millis\"", "\"cpu\""),
        ("20,", "0,"), ("}", ""), ("20,", "20, \"cpus\": 0,"), ("20,", "20, \"cpus\": \"\","),
        ("20,", "20, \"cpus\": \"3-1\","), ("20,", "20, \"memory_nodes\": \"0,\","),
        ("20,", "20, \"memory_nodes\": \"0-1-2\","),
    ])
    func namesTheFileOfABadManifest(_ from: String, _ to: String) throws {
        var text = valid
        let range = try #require(text.firstRange(of: from))
        text.replaceSubrange(range, with: to)
        let error = #expect(throws: ManifestError.self) { try load(text) }
        #expect(try #require(error).description.hasPrefix(directory.file("manifest.json")))
    }

    @Test func processorsAndNodesAreLists() throws {
        #expect(try load(valid).processors == nil)
        let own = valid.replacing("20,", with: #"20, "cpus": "0-3,6", "memory_nodes": "1","#)
        #expect(try load(own).processors == "0-3,6")
        #expect(try load(own).memoryNodes == "1")
    }

    @Test func refusesADirectoryWithoutFunctions() throws {
        #expect(throws: ManifestError.self) {
            try FunctionManifest.loadAll(below: directory.path)
        }
    }

    @Test func refusesTwoFunctionsOfOneName() throws {
        for name in ["a", "b"] {
            try makeDirectories(directory.file(name))
            try replaceFile(directory.file("\(name)/function.py"), with: "")
            try replaceFile(directory.file("\(name)/manifest.json"), with: valid)
        }
        let error = #expect(throws: ManifestError.self) {
            try FunctionManifest.loadAll(below: directory.path)
        }
        let text = try #require(error).description
        #expect(text.hasPrefix(directory.file("b/manifest.json")))
        #expect(text.contains("is the function in \(directory.file("a")) already"))
    }
}

@Suite struct RuncConfigurationTests {
    @Test func givesTheFunctionNothingButItsFiles() throws {
        let manifest = FunctionManifest(
            name: "web", directory: "/src/web", entry: "function.py", memory: .mib(64),
            cpuMillis: 500,
            requestWindow: nil, processors: "1", memoryNodes: nil, initTimeout: .seconds(1),
            runTimeout: .seconds(1))
        let spec = ContainerSpec(
            id: "web-1", manifest: manifest, agentDirectory: "/src/agent",
            controlGroup: "/farmem/web-1")
        let json = RuncConfiguration(
            spec: spec, rootDirectory: "/run/x/root", socketDirectory: "/run/x/run", user: 65_534
        ).json(etc: ["/etc/ld.so.cache"])
        #expect(json["linux"]?["cgroupsPath"]?.string == "/farmem/web-1")
        #expect(json["linux"]?["resources"]?["memory"]?["limit"]?.integer == 64 << 20)
        #expect(json["linux"]?["resources"]?["cpu"]?["shares"]?.integer == 512)
        #expect(json["linux"]?["resources"]?["cpu"]?["cpus"]?.string == "1")
        #expect(json["linux"]?["resources"]?["cpu"]?["mems"] == nil)
        #expect(json["root"]?["readonly"]?.bool == true)
        #expect(json["process"]?["user"]?["uid"]?.integer == 65_534)
        for set in ["bounding", "effective", "permitted"] {
            #expect(json["process"]?["capabilities"]?[set]?.array?.isEmpty == true)
        }
        // Of the host's directories only the socket's can be written to.
        let writable = (json["mounts"]?.array ?? []).filter {
            $0["type"]?.string == "bind"
                && $0["options"]?.array?.contains("ro") != true
        }
        #expect(writable.map { $0["source"]?.string } == ["/run/x/run"])
    }
}

@Suite struct LifecycleEventTests {
    @Test func rendersWhatTheControllerReads() {
        var event = LifecycleEvent(kind: .containerStarted, container: "web-1", function: "web")
        event.controlGroup = "/farmem/web-1"
        event.pid = 42
        #expect(
            event.json.rendered()
                == #"{"event":"container_started","container":"web-1","function":"web","cgroup":"/farmem/web-1","pid":42}"#
        )
        var end = LifecycleEvent(kind: .requestEnd, container: "web-1", function: "web")
        end.keepAlive = .seconds(60)
        end.latency = .milliseconds(3)
        #expect(end.json["keep_alive_ms"]?.integer == 60_000)
        #expect(end.json["latency_us"]?.integer == 3000)
    }
}
