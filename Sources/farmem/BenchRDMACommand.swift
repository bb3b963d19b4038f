import CommandLineKit
import FabricRDMA
import FarMemory
import Glibc
import JSONText
import LinuxSystem
import PoolProtocol
import Telemetry

/// `farmem bench rdma`: what a page costs by raw verbs.
enum BenchRDMACommand {
    static let command = Command(
        name: "rdma", summary: "time raw RDMA READs and WRITEs of pages against a memserver",
        discussion: """
            Makes a lease, has all its slabs granted, and reads and writes its pages in random order by one queue, without any swap \
            path: the figure that swap over RDMA is measured against. The lease must not be there before, and goes when it is done. \
            Batched means one doorbell for several pages; one page per round trip is depth 1.
            """,
        options: [
            .json,
            Option("size", .size, default: "64MiB", help: "Size of the lease."),
            Option("pages", .integer(100...100_000_000), default: "20000", help: "In each series."),
            Option(
                "wait", .choice(["auto", "poll", "sleep"]), default: "auto",
                help: "How completions are waited for. auto: sleep where there is one processor."),
            Option("seed", .integer(0...Int64.max), default: "1", help: "Order of the pages."),
            Option(
                "auth-file", .string, placeholder: "FILE",
                help: "Keys, one name:hexkey per line (as psktool writes them)."),
            Option(
                "key", .string, placeholder: "NAME",
                help: "Which key of --auth-file to use; the first unless given."),
        ],
        positionals: [Positional("URL", help: "rdma://HOST[:PORT][/LEASE]")],
        run: run)

    private struct Row {
        let name: String
        let series: RDMAProbeSeries
        var result: RDMAProbeResult?
    }

    private static let run: @Sendable (Invocation) throws -> ExitStatus = { invocation in
        let probe: RDMAProbe
        let target = try target(invocation)
        do throws(RDMASessionError) {
            probe = try RDMAProbe(target, size: invocation.size("size"))
        } catch {
            throw failure(error)
        }
        var rows = rows(invocation)
        var wrong = 0
        do throws(RDMASessionError) {
            wrong = try probe.verify(pages: 256)
            for index in rows.indices { rows[index].result = try probe.run(rows[index].series) }
            try probe.close()
        } catch {
            throw failure(error)
        }
        printOut(invocation.flag("json") ? json(rows, wrong) : text(rows, wrong))
        return wrong == 0 ? .done : .checkFailed
    }

    private static func rows(_ invocation: Invocation) -> [Row] {
        let pages = invocation.integer("pages")
        let seed = UInt64(invocation.integer("seed"))
        let wait = invocation.string("wait")
        let sleeps =
            wait == "sleep" || (wait == "auto" && sysconf(Int32(_SC_NPROCESSORS_ONLN)) < 2)
        func row(
            _ name: String, _ operation: RDMAProbeSeries.Operation, _ depth: Int, _ chain: Int
        ) -> Row {
            Row(
                name: name,
                series: RDMAProbeSeries(
                    operation, depth: depth, chain: chain, pages: pages, sleeps: sleeps, seed: seed)
            )
        }
        return [
            row("read_one", .read, 1, 1), row("read_depth_32", .read, 32, 1),
            row("read_batched", .read, 64, 32), row("write_one", .write, 1, 1),
            row("write_depth_32", .write, 32, 1), row("write_batched", .write, 64, 32),
        ]
    }

    private static func target(_ invocation: Invocation) throws -> RDMATarget {
        let url: RDMAURL
        do throws(RDMAURLError) {
            url = try RDMAURL(invocation.positional("URL"))
        } catch {
            throw UsageError("\(error)")
        }
        var key: SharedKey?
        if let path = invocation.stringIfSet("auth-file") {
            let wanted = invocation.stringIfSet("key")
            let keys: [SharedKey]
            do {
                keys = try SharedKey.parse(readSmallText(path))
            } catch {
                throw CommandFailure(.badConfiguration, "--auth-file \(path): \(error)")
            }
            key = keys.first { wanted == nil || $0.name == wanted }
            guard key != nil else {
                throw UsageError("\(path) has no key\(wanted.map { " named '\($0)'" } ?? "")")
            }
        }
        return RDMATarget(
            host: url.host, port: url.port, lease: url.lease ?? "bench-\(getpid())", key: key)
    }

    private static func failure(_ error: RDMASessionError) -> CommandFailure {
        let status: ExitStatus =
            switch error {
            case .noDevice: .systemError
            case .keyNeeded, .refused(.unauthorized, _): .permission
            case .refused(.noSpace, _), .refused(.limit, _), .refused(.exists, _): .tryAgain
            case .refused(.badRequest, _): .usage
            default: .peerUnavailable
            }
        return CommandFailure(status, "\(error)")
    }

    /// How much batched WRITEs gain over one page per round trip.
    private static func gain(_ rows: [Row]) -> Double {
        func rate(_ name: String) -> Double {
            rows.first { $0.name == name }?.result?.pagesPerSecond ?? 0
        }
        let one = rate("write_one")
        return one > 0 ? rate("write_batched") / one : 0
    }

    private static func json(_ rows: [Row], _ wrong: Int) -> String {
        var series: [(String, JSONValue)] = []
        for row in rows {
            guard let result = row.result else { continue }
            let figures: JSONValue = [
                "depth": JSONValue(row.series.depth), "chain": JSONValue(row.series.chain),
                "pages": JSONValue(row.series.pages),
                "p50_us": JSONValue(Double(result.latency.percentile(0.5)) / 1000),
                "p99_us": JSONValue(Double(result.latency.percentile(0.99)) / 1000),
                "pages_per_second": JSONValue(result.pagesPerSecond),
            ]
            series.append((row.name, figures))
        }
        let value: JSONValue = [
            "schema": 1, "wrong_pages": JSONValue(wrong),
            "waits_by_sleeping": JSONValue(rows.first?.series.sleeps ?? false),
            "series": .object(series.map { .init($0.0, $0.1) }),
            "batched_writes_gain": JSONValue(gain(rows)),
        ]
        return value.rendered() + "\n"
    }

    private static func text(_ rows: [Row], _ wrong: Int) -> String {
        var table = TextTable([
            .init("SERIES"), .right("DEPTH"), .right("CHAIN"), .right("p50 us"), .right("p99 us"),
            .right("PAGES/S"),
        ])
        func microseconds(_ value: UInt64) -> String { "\(value / 1000).\(value / 100 % 10)" }
        for row in rows {
            guard let result = row.result else { continue }
            table.append([
                row.name, "\(row.series.depth)", "\(row.series.chain)",
                microseconds(result.latency.percentile(0.5)),
                microseconds(result.latency.percentile(0.99)), "\(Int(result.pagesPerSecond))",
            ])
        }
        let tenths = Int(gain(rows) * 10)
        return table.rendered()
            + "batched writes: \(tenths / 10).\(tenths % 10) times one page per round trip; \(wrong) wrong pages\n"
    }
}
