import CommandLineKit
import FarMemory
import Gateway
import Glibc
import HTTPEndpoint
import LinuxSystem
import Telemetry

let runCommand = Command(
    name: "run", summary: "serve functions until told to stop",
    discussion: """
        Each function is a directory with a manifest.json below --functions; the in-container agent is in the \
        directory agent beside them. SIGHUP reads the manifests again: functions come, change and go, requests that run are \
        not cut short. Needs root and runc.
        """,
    options: [
        Option(
            "listen", .endpoint, default: "tcp://127.0.0.1:8080",
            help: "Serve requests here; not for untrusted networks."),
        Option(
            "functions", .string, required: true, placeholder: "DIR",
            help: "Directory of the functions and their agent."),
        Option(
            "offloadd", .string, placeholder: "ENDPOINT",
            help:
                "Where lifecycle events go (default unix:/run/farmem/offloadd.sock); none: nowhere."
        ),
        Option(
            "keep-alive", .duration, default: "10m", help: "Remove idle containers after this time."
        ),
        Option(
            "containers-max", .integer(1...256), default: "8",
            help: "Containers of one function at a time."),
        Option(
            "waiters-max", .integer(0...4096), default: "64",
            help: "Requests of one function that wait for a container; more get 503."),
        Option("wait-timeout", .duration, default: "30s", help: "How long a request waits so."),
        Option(
            "cgroup-parent", .string, default: "/farmem", placeholder: "PATH",
            help: "Control group of the containers."),
        Option(
            "state-dir", .string, placeholder: "DIR",
            help: "Containers' files and lock (default /run/farmem/gateway)."),
    ] + Option.daemon,
    examples: [
        (
            "fngateway run --functions functions --keep-alive 10m",
            "Serve this repository's functions."
        )
    ],
    run: run)

private func run(_ invocation: Invocation) throws -> ExitStatus {
    ignoreBrokenPipes()
    let signals = try SignalEvents([SIGTERM, SIGINT, SIGHUP])
    guard runsAsRoot() else {
        throw CommandFailure(.permission, "runc needs root; run with sudo")
    }
    let logger = Logger(level: LogLevel(word: invocation.string("log-level")) ?? .info)
    let state = invocation.stringIfSet("state-dir") ?? "\(runtimeDirectory())/gateway"
    let functions = absolutePath(invocation.string("functions"))
    try makeDirectories(state, mode: 0o700)
    let lock = try FileDescriptor.open("\(state)/lock", O_RDWR | O_CREAT, mode: 0o600)
    guard try lock.lock() else {
        throw CommandFailure(
            .tryAgain, "another gateway uses \(state); stop it or give --state-dir")
    }
    let gateway = try makeGateway(invocation, state: state, functions: functions, logger: logger)
    var options = HTTPServerOptions()
    options.threads = .perConnection
    options.connectionsMax = 512
    options.idleTimeout = .seconds(120)
    let server: HTTPServer
    do {
        server = try HTTPServer(listen: invocation.endpoint("listen"), options: options) {
            gateway.handle($0)
        }
    } catch {
        gateway.stop()
        throw error
    }
    logger.info("gateway_ready", ["listen": server.endpoint])
    let readiness = invocation.readiness()
    readiness.announceReady()
    waiting: while true {
        switch signals.next() {
        case nil: _ = try waitReady(signals.descriptor.rawValue, .readable, timeout: -1)
        case SIGHUP?: reload(gateway, functions, logger)
        case .some: break waiting
        }
    }
    readiness.announceStopping()
    logger.info("gateway_stopping")
    server.stop()
    gateway.stop()
    _ = unsafe unlink("\(state)/lock")
    _ = unsafe rmdir(state)
    _ = consume lock
    return .done
}

/// Reads the manifests again. An error in one of them changes nothing.
private func reload(_ gateway: FunctionGateway, _ functions: String, _ logger: Logger) {
    do throws(ManifestError) {
        let manifests = try FunctionManifest.loadAll(below: functions)
        let changes = gateway.reload(manifests)
        logger.info(
            "reloaded",
            [
                "functions": manifests.count, "added": changes.added.joined(separator: " "),
                "changed": changes.changed.joined(separator: " "),
                "removed": changes.removed.joined(separator: " "),
            ])
    } catch {
        logger.error("reload_failed", ["error": error.description])
    }
}

private func makeGateway(
    _ invocation: Invocation, state: String, functions: String, logger: Logger
) throws -> FunctionGateway {
    let agent = "\(functions)/agent"
    guard fileExists("\(agent)/agent.py") else {
        throw CommandFailure(
            .usage,
            "\(agent)/agent.py does not exist; give --functions the directory functions of the source"
        )
    }
    let parent = invocation.string("cgroup-parent")
    guard parent.hasPrefix("/"), parent.count > 1, !parent.contains("..") else {
        throw UsageError("--cgroup-parent '\(parent)': give a path like /farmem")
    }
    var settings = FunctionGateway.Settings(agentDirectory: agent)
    settings.limits.keepAlive = invocation.duration("keep-alive")
    settings.limits.containersPerFunction = invocation.integer("containers-max")
    settings.limits.waitersPerFunction = invocation.integer("waiters-max")
    settings.limits.waitTimeout = invocation.duration("wait-timeout")
    settings.controlGroupParent = parent
    settings.controller = try controller(invocation)
    do {
        return try FunctionGateway(
            manifests: try FunctionManifest.loadAll(below: functions),
            runtime: try RuncRuntime(directory: state, controlGroupParent: parent),
            settings: settings, logger: logger)
    } catch let error as ManifestError {
        throw CommandFailure(.usage, error.description)
    } catch let error as RuntimeError {
        throw CommandFailure(.systemError, error.description)
    }
}

private func controller(_ invocation: Invocation) throws -> Endpoint? {
    guard let text = invocation.stringIfSet("offloadd") else {
        return .unix(path: "\(runtimeDirectory())/offloadd.sock")
    }
    if text == "none" { return nil }
    do throws(UnitError) {
        return try Units.endpoint(text)
    } catch {
        throw UsageError("--offloadd: \(error)")
    }
}

func absolutePath(_ path: String) -> String {
    guard let real = unsafe realpath(path, nil) else { return path }
    defer { unsafe free(real) }
    return unsafe String(cString: real)
}
