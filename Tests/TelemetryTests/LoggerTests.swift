import Glibc
import Synchronization
import Telemetry
import Testing

/// A pipe to read a logger's lines from.
final class LogPipe: Sendable {
    let readEnd: Int32
    let writeEnd: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        _ = unsafe pipe(&ends)
        readEnd = ends[0]
        writeEnd = ends[1]
        _ = fcntl(readEnd, F_SETFL, O_NONBLOCK)
    }

    deinit {
        close(readEnd)
        close(writeEnd)
    }

    func lines() -> [String] {
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = unsafe read(readEnd, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
            .split(separator: "\n").map(String.init)
    }
}

final class TestClock: Sendable {
    let now = Atomic<Int64>(0)
    func read() -> (monotonic: Int64, wall: Int64) {
        let value = now.load(ordering: .relaxed)
        return (value, 1_763_724_600_123_000_000 + value)
    }
}

@Suite struct LoggerTests {
    let pipe = LogPipe()
    let clock = TestClock()

    func logger(_ level: LogLevel = .info, burst: Int = 2) -> Logger {
        let clock = clock
        return Logger(
            level: level, descriptor: pipe.writeEnd, burst: burst,
            intervalNanoseconds: 1_000_000_000, clock: { clock.read() })
    }

    @Test func aLineIsLogfmt() {
        logger().info(
            "lease_created", ["lease": "a b", "bytes": 4096, "why": "x=\"y\"\n", "empty": ""])
        #expect(
            pipe.lines() == [
                "ts=2025-11-21T11:30:00.123Z level=info event=lease_created lease=\"a b\" bytes=4096 "
                    + "why=\"x=\\\"y\\\"\\n\" empty=\"\""
            ])
    }

    @Test func levelsFilter() {
        let logger = logger(.warn)
        logger.info("a")
        logger.debug("b")
        logger.warn("c")
        logger.error("d")
        #expect(pipe.lines().count == 2)
        #expect(LogLevel(word: "info") == .info)
        #expect(LogLevel(word: "INFO") == nil)
    }

    @Test func repeatsAreSuppressedAndCounted() {
        let logger = logger()
        for _ in 0..<10 { logger.info("noise") }
        logger.info("other")
        #expect(pipe.lines().count == 3)
        clock.now.store(1_000_000_000, ordering: .relaxed)
        logger.info("noise")
        let lines = pipe.lines()
        #expect(lines.count == 1)
        #expect(lines.first?.hasSuffix("event=noise suppressed=8") == true)
    }

    @Test func aReaderThatStopsLosesLinesButNeverBlocks() {
        let logger = logger(burst: 10_000)
        for _ in 0..<2000 { logger.info("flood", ["text": String(repeating: "x", count: 200)]) }
        #expect(logger.linesLost > 0)
        let written = pipe.lines().count
        #expect(UInt64(written) + logger.linesLost == 2000)
        logger.info("after")
        #expect(pipe.lines().last?.contains("lines_lost=\(logger.linesLost)") == true)
    }

    @Test func longLinesAreCut() {
        logger().info("long", ["text": String(repeating: "x", count: 10_000)])
        let line = pipe.lines().first ?? ""
        #expect(line.utf8.count == 4095)
        #expect(line.hasSuffix("..."))
    }

    @Test(arguments: [
        (0, "1970-01-01T00:00:00.000Z"), (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_825_600_000, "2000-02-29T12:00:00.000Z"),
        (1_735_689_600_005, "2025-01-01T00:00:00.005Z"),
        (4_107_542_400_050, "2100-03-01T00:00:00.050Z"),
    ])
    func timestamps(milliseconds: Int64, text: String) {
        #expect(timestamp(milliseconds * 1_000_000) == text)
    }
}
