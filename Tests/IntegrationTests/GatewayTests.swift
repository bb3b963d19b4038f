import FarMemory
import Glibc
import HTTPEndpoint
import JSONText
import LinuxSystem
import TestSupport
import Testing

/// Real containers by runc, the real gateway, the real functions.
@Suite(
    .serialized, .enabled(if: Capability.runc.isUsable, "\(Capability.runc.reason)"),
    .enabled(if: TestProcess.hasBinary("fngateway"), "fngateway is not built; run: swift build"))
struct GatewayTests {
    /// The repository's functions.
    private static let functions: String = {
        let parts = #filePath.split(separator: "/").dropLast(3)
        return "/" + parts.joined(separator: "/") + "/functions"
    }()

    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func start(
        functions: String = GatewayTests.functions, keepAlive: String = "60s", more: [String] = []
    ) throws -> (TestProcess, HTTPClient) {
        let socket = directory.file("gateway.sock")
        let process = try TestProcess(
            "fngateway",
            [
                "run", "--listen", "unix:\(socket)", "--functions", functions, "--state-dir",
                directory.file("state"), "--cgroup-parent", "/farmem-test-\(getpid())",
                "--offloadd", "none", "--keep-alive", keepAlive, "--log-level", "debug",
            ] + more, ready: true)
        try process.waitReady(seconds: 20)
        return (process, HTTPClient(target: .unix(path: socket)))
    }

    private func call(
        _ client: HTTPClient, _ function: String, _ body: String
    ) throws -> HTTPResponse {
        try client.request(
            "POST", "/function/\(function)", body: Array(body.utf8), timeout: .seconds(60))
    }

    private func containers(_ client: HTTPClient) throws -> [JSONValue] {
        let response = try client.request("GET", "/v1/status", timeout: .seconds(5))
        return try JSONValue.parse(response.body)["containers"]?.array ?? []
    }

    /// Ends the gateway and expects that nothing of it is left.
    private func expectCleanEnd(_ process: TestProcess) throws {
        #expect(try process.terminate(seconds: 30) == .exited(0), "\(process.standardError)")
        #expect(!fileExists(directory.file("state")))
        let mounts = try readSmallText("/proc/self/mounts", limit: 16 << 20)
        #expect(!mounts.contains(directory.path))
        for controller in try directoryEntries("/sys/fs/cgroup") {
            #expect(!fileExists("/sys/fs/cgroup/\(controller)/farmem-test-\(getpid())"))
        }
    }

    /// A function that does what it is told: to test what happens when it misbehaves.
    private func makeMisbehavingFunction(_ more: String = "") throws -> String {
        let base = directory.file("functions")
        try makeDirectories("\(base)/agent")
        try replaceFile(
            "\(base)/agent/agent.py", with: try readSmallText("\(Self.functions)/agent/agent.py"))
        for path in [directory.path, base, "\(base)/agent"] {
            #expect(unsafe chmod(path, 0o755) == 0)
        }
        try makeFunction("odd", below: base, more)
        return base
    }

    private func makeFunction(_ name: String, below base: String, _ more: String = "") throws {
        try makeDirectories("\(base)/\(name)")
        try replaceFile(
            "\(base)/\(name)/function.py",
            with: """
                import os, time
                def handler(ctx):
                    what = ctx.input.get("do")
                    if what == "crash":
                        os._exit(3)
                    if what == "hang":
                        time.sleep(3600)
                    if what == "raise":
                        raise ValueError("told to")
                    if what == "sleep":
                        time.sleep(1)
                    return {"count": ctx.request_count}

                """)
        try writeManifest(name, below: base, more)
        // The container's user reads them.
        #expect(unsafe chmod("\(base)/\(name)", 0o755) == 0)
    }

    private func writeManifest(
        _ name: String, below base: String, memory: Int = 128, _ more: String = ""
    ) throws {
        try replaceFile(
            "\(base)/\(name)/manifest.json",
            with: """
                {"name": "\(name)", "entry": "function.py", "memory_mib": \(memory), "cpu_millis": 500,\(more)
                 "init_timeout_ms": 20000, "run_timeout_ms": 2000}
                """)
    }

    @Test(.timeLimit(.minutes(2))) func everyFunctionAnswersTheSameToTheSameRequest() throws {
        let (process, client) = try start()
        let functions = [
            "web", "graph", "json", "image", "float", "matmul", "linpack", "chameleon", "pyaes",
            "gzip", "bert",
        ]
        for function in functions {
            let first = try call(client, function, #"{"seed": 1}"#)
            #expect(first.status == 200, "\(function): \(first.text)")
            #expect(first.header("X-Farmem-Cold") == "1")
            let other = try call(client, function, #"{"seed": 2}"#)
            #expect(other.header("X-Farmem-Cold") == "0")
            #expect(other.body != first.body, "\(function)")
            let again = try call(client, function, #"{"seed": 1}"#)
            #expect(again.body == first.body, "\(function)")
            #expect(again.header("X-Farmem-Container") == first.header("X-Farmem-Container"))
        }
        #expect(try containers(client).count == functions.count)
        #expect(try call(client, "none", "{}").status == 404)
        let metrics = try client.request("GET", "/metrics", timeout: .seconds(5)).text
        #expect(metrics.contains(#"farmem_gateway_requests_total{function="web"} 3"#))
        try expectCleanEnd(process)
    }

    @Test(.timeLimit(.minutes(2))) func describesWhatEachStageUses() throws {
        let environment = ["FARMEM_RUNTIME_DIR": directory.path]
        let arguments = ["describe", "--functions", Self.functions, "--requests", "3"]
        let result = try TestProcess.run(
            "fngateway", arguments + ["--only", "web,matmul", "--json"], environment: environment,
            seconds: 60)
        try #require(result.end == .exited(0), "\(result.error)")
        let report = try JSONValue.parse(result.output)
        let found = report["functions"]?.array ?? []
        #expect(found.compactMap { $0["function"]?.string } == ["web", "matmul"])
        func mebibytes(_ index: Int, _ key: String) -> Double {
            (found[index][key]?.double ?? -1) / 1_048_576
        }
        // 50 pages of 1.5 MiB in the one; matrices of 8 MB that come and go in the other.
        #expect((75..<100).contains(mebibytes(0, "init_bytes")), "\(result.output)")
        #expect((1..<30).contains(mebibytes(0, "touched_bytes")), "\(result.output)")
        #expect((0..<30).contains(mebibytes(1, "init_bytes")), "\(result.output)")
        #expect((15..<100).contains(mebibytes(1, "execution_bytes")), "\(result.output)")
        for index in 0..<2 {
            #expect((5..<40).contains(mebibytes(index, "runtime_bytes")), "\(result.output)")
            #expect(found[index]["request_ms"]?.array?.count == 2)
        }
        #expect(try directoryEntries(directory.path).isEmpty)
        let wrong = try TestProcess.run(
            "fngateway", arguments + ["--only", "nothing"], environment: environment, seconds: 60)
        #expect(wrong.end == .exited(64), "\(wrong.error)")
        #expect(wrong.error.contains("'nothing'"))
    }

    @Test(.timeLimit(.minutes(2))) func aFunctionThatFailsIsReplaced() throws {
        let (process, client) = try start(functions: try makeMisbehavingFunction())
        let first = try call(client, "odd", "{}")
        #expect(first.status == 200, "\(first.text)")
        // An exception is the request's failure: the container lives on.
        #expect(try call(client, "odd", #"{"do": "raise"}"#).status == 500)
        let next = try call(client, "odd", "{}")
        #expect(next.text == #"{"count":3}"#)
        for (what, status) in [("crash", 502), ("hang", 504)] {
            let broken = try call(client, "odd", "{\"do\": \"\(what)\"}")
            #expect(broken.status == status, "\(what): \(broken.text)")
            let replaced = try call(client, "odd", "{}")
            #expect(replaced.status == 200, "\(what): \(replaced.text)")
            #expect(replaced.header("X-Farmem-Cold") == "1")
            #expect(replaced.text == #"{"count":1}"#)
        }
        try expectCleanEnd(process)
    }

    @Test(.timeLimit(.minutes(2))) func aContainerStaysOnItsProcessorsAndNodes() throws {
        let (process, client) = try start(
            functions: try makeMisbehavingFunction(#""cpus": "0", "memory_nodes": "0","#))
        let answer = try call(client, "odd", "{}")
        #expect(answer.status == 200, "\(answer.text)")
        let pid = try #require(try containers(client).first?["pid"]?.integer)
        let status = try readSmallText("/proc/\(pid)/status").split(separator: "\n")
        #expect(status.contains("Cpus_allowed_list:\t0"), "\(status)")
        #expect(status.contains("Mems_allowed_list:\t0"), "\(status)")
        try expectCleanEnd(process)
    }

    @Test(.timeLimit(.minutes(2))) func aContainerThatEndsWhileIdleCostsNoRequest() throws {
        let (process, client) = try start(functions: try makeMisbehavingFunction())
        #expect(try call(client, "odd", "{}").status == 200)
        let pid = try #require(try containers(client).first?["pid"]?.integer)
        let victim = try ProcessHandle(pid: Int32(pid))
        try victim.signal(SIGKILL)
        let isGone = try victim.waitForEnd(timeout: 5_000_000_000)
        #expect(isGone)
        let next = try call(client, "odd", "{}")
        #expect(next.status == 200)
        #expect(next.header("X-Farmem-Cold") == "1")
        try expectCleanEnd(process)
    }

    @Test(.timeLimit(.minutes(2))) func manifestsAreReadAgain() throws {
        let base = try makeMisbehavingFunction()
        let (process, client) = try start(functions: base)
        func reload(_ word: String = "event=reloaded ") throws {
            func said() -> Int {
                process.standardError.split(separator: "\n").count { $0.contains(word) }
            }
            let before = said()
            try process.signal(SIGHUP)
            #expect(waits { said() > before }, "\(word): \(process.standardError)")
        }
        func isCold(_ function: String) throws -> Bool {
            let answer = try call(client, function, "{}")
            #expect(answer.status == 200, "\(answer.text)")
            return answer.header("X-Farmem-Cold") == "1"
        }
        #expect(try isCold("odd"))

        let statuses = Statuses()
        let endpoint = client.target
        let busy = try WorkerThread("caller") {
            let response = try? HTTPClient(target: endpoint).request(
                "POST", "/function/odd", body: Array(#"{"do": "sleep"}"#.utf8),
                timeout: .seconds(30))
            statuses.add(response?.status ?? 0)
        }
        #expect(waits { (try? containers(client).first?["state"]?.string) == "busy" })
        try writeManifest("odd", below: base, memory: 96)
        try reload()
        busy.join()
        #expect(statuses.all == [200], "a request that runs is not cut short")
        #expect(try isCold("odd"), "its container was of the manifest before")
        #expect(try !isCold("odd"))

        try replaceFile("\(base)/odd/manifest.json", with: "{}")
        try reload("event=reload_failed")
        #expect(try !isCold("odd"), "an error changes nothing")

        try writeManifest("odd", below: base, memory: 96)
        try makeFunction("even", below: base)
        try reload()
        #expect(try isCold("even"))
        #expect(try !isCold("odd"), "its manifest is what it was")

        #expect(unsafe unlink("\(base)/even/manifest.json") == 0)
        try reload()
        #expect(try call(client, "even", "{}").status == 404)
        #expect(waits { (try? containers(client).count) == 1 }, "even's container goes")
        try writeManifest("even", below: base)
        try reload()
        #expect(try isCold("even"))
        let metrics = try client.request("GET", "/metrics", timeout: .seconds(5)).text
        #expect(metrics.contains(#"farmem_gateway_requests_total{function="even"} 2"#))
        try expectCleanEnd(process)
    }

    private func waits(_ isTrue: () -> Bool) -> Bool {
        let deadline = monotonicNow() + 20_000_000_000
        while !isTrue() {
            if monotonicNow() > deadline { return false }
            sleepNanoseconds(20_000_000)
        }
        return true
    }

    @Test(.timeLimit(.minutes(2))) func idleContainersAreRecycled() throws {
        let (process, client) = try start(
            functions: try makeMisbehavingFunction(), keepAlive: "1s")
        #expect(try call(client, "odd", "{}").status == 200)
        #expect(try containers(client).count == 1)
        let deadline = monotonicNow() + 10_000_000_000
        while try !containers(client).isEmpty, monotonicNow() < deadline {
            sleepNanoseconds(50_000_000)
        }
        #expect(try containers(client).isEmpty)
        try expectCleanEnd(process)
    }

    @Test(.timeLimit(.minutes(2))) func moreRequestsThanContainersWaitOrAreRefused() throws {
        let (process, client) = try start(
            functions: try makeMisbehavingFunction(),
            more: ["--containers-max", "1", "--waiters-max", "1"])
        #expect(try call(client, "odd", "{}").status == 200)
        let statuses = Statuses()
        let endpoint = client.target
        let threads = try (0..<3).map { _ in
            try WorkerThread("caller") {
                let client = HTTPClient(target: endpoint)
                let response = try? client.request(
                    "POST", "/function/odd", body: Array(#"{"do": "sleep"}"#.utf8),
                    timeout: .seconds(30))
                statuses.add(response?.status ?? 0)
            }
        }
        for thread in threads { thread.join() }
        #expect(statuses.all == [200, 200, 503])
        try expectCleanEnd(process)
    }

    @Test(.timeLimit(.minutes(2))) func whatAKilledGatewayLeftIsRemovedAtTheNextStart() throws {
        let functions = try makeMisbehavingFunction()
        let (killed, client) = try start(functions: functions)
        #expect(try call(client, "odd", "{}").status == 200)
        let pid = try #require(try containers(client).first?["pid"]?.integer)
        let left = try ProcessHandle(pid: Int32(pid))
        try killed.kill()
        let survives = !left.hasEnded
        #expect(survives)
        let (process, _) = try start(functions: functions)
        let isGone = try left.waitForEnd(timeout: 5_000_000_000)
        #expect(isGone)
        #expect(process.standardError.contains("event=leftover_removed"))
        try expectCleanEnd(process)
    }

    @Test(.timeLimit(.minutes(1))) func twoGatewaysDoNotShareAStateDirectory() throws {
        let (process, _) = try start()
        let second = try TestProcess.run(
            "fngateway",
            [
                "run", "--listen", "unix:\(directory.file("other.sock"))", "--functions",
                Self.functions, "--state-dir", directory.file("state"),
            ])
        #expect(second.end == .exited(75), "\(second.error)")
        try expectCleanEnd(process)
    }
}
