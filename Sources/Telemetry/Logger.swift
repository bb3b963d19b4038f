import Glibc
import Synchronization

/// How much a log line matters; `info` is what an operator wants to see of a healthy daemon.
package enum LogLevel: Int, Sendable, Comparable, CaseIterable {
    case error, warn, info, debug

    /// The word in `--log-level` and in the lines; nil when there is no such level.
    package init?(word: String) {
        guard let level = Self.allCases.first(where: { $0.word == word }) else { return nil }
        self = level
    }

    package var word: String {
        switch self {
        case .error: "error"
        case .warn: "warn"
        case .info: "info"
        case .debug: "debug"
        }
    }

    package static func < (a: LogLevel, b: LogLevel) -> Bool { a.rawValue < b.rawValue }
}

/// Writes events as logfmt lines: `ts=2025-11-21T11:30:00.123Z level=info event=lease_created lease=web size=1GiB`.
///
/// Events are nouns of a fixed list, fields are `key: value`. Any thread. Never waits: when the reader of the log does
/// not keep up, lines are lost and counted. An event that repeats more often than `burst` times per `interval` is
/// suppressed, and the next line that gets through tells how many were. Not for the data path: it allocates.
package final class Logger: Sendable {
    private struct Window {
        var start: Int64
        var written = 0
        var suppressed = 0
    }

    package let level: LogLevel
    private let descriptor: Int32
    private let burst: Int
    private let interval: Int64
    private let clock: @Sendable () -> (monotonic: Int64, wall: Int64)
    private let windows = Mutex<[String: Window]>([:])
    private let lost = Atomic<UInt64>(0)

    /// Distinct events whose rate is followed; a fixed list of event names stays far below it.
    private static let windowsMax = 512

    /// `descriptor` is borrowed. `clock` gives nanoseconds of the monotonic clock and since 1970; tests inject one.
    package init(
        level: LogLevel = .info, descriptor: Int32 = STDERR_FILENO, burst: Int = 20,
        intervalNanoseconds interval: Int64 = 10_000_000_000,
        clock: @escaping @Sendable () -> (monotonic: Int64, wall: Int64) = systemClocks
    ) {
        self.level = level
        self.descriptor = descriptor
        self.burst = burst
        self.interval = interval
        self.clock = clock
    }

    /// Lines that the reader of the log did not take in time, since the start.
    package var linesLost: UInt64 { lost.load(ordering: .relaxed) }

    package func error(_ event: String, _ fields: KeyValuePairs<String, any LogValue> = [:]) {
        log(.error, event, fields)
    }
    package func warn(_ event: String, _ fields: KeyValuePairs<String, any LogValue> = [:]) {
        log(.warn, event, fields)
    }
    package func info(_ event: String, _ fields: KeyValuePairs<String, any LogValue> = [:]) {
        log(.info, event, fields)
    }
    package func debug(_ event: String, _ fields: KeyValuePairs<String, any LogValue> = [:]) {
        log(.debug, event, fields)
    }

    package func log(
        _ level: LogLevel, _ event: String, _ fields: KeyValuePairs<String, any LogValue>
    ) {
        guard level <= self.level else { return }
        let now = clock()
        guard let suppressed = admit(event, now: now.monotonic) else { return }
        var line = "ts=\(timestamp(now.wall)) level=\(level.word) event=\(logfmtValue(event))"
        for (key, value) in fields { line += " \(key)=\(logfmtValue(value.logText))" }
        if suppressed > 0 { line += " suppressed=\(suppressed)" }
        let lostBefore = lost.load(ordering: .relaxed)
        if lostBefore > 0 { line += " lines_lost=\(lostBefore)" }
        write(line + "\n")
    }

    /// nil: over the limit, dropped. Else how many lines of this event were dropped before it.
    private func admit(_ event: String, now: Int64) -> Int? {
        windows.withLock { windows in
            var window = windows[event] ?? Window(start: now)
            if now - window.start >= interval {
                let suppressed = window.suppressed
                if windows.count > Self.windowsMax { windows.removeAll() }
                windows[event] = Window(start: now, written: 1)
                return suppressed
            }
            let isAdmitted = window.written < burst
            if isAdmitted { window.written += 1 } else { window.suppressed += 1 }
            windows[event] = window
            return isAdmitted ? 0 : nil
        }
    }

    /// One write of at most PIPE_BUF bytes, so that lines of several processes do not mix; never blocks on a pipe, for a
    /// pipe that polls writable has PIPE_BUF bytes of room.
    private func write(_ line: String) {
        var bytes = Array(line.utf8)
        if bytes.count > 4096 { bytes = bytes[..<4092] + Array("...\n".utf8) }
        var poller = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        guard unsafe poll(&poller, 1, 0) == 1, poller.revents & Int16(POLLOUT) != 0,
            // SAFETY: the array lives through the call and has the length given.
            unsafe Glibc.write(descriptor, bytes, bytes.count) == bytes.count
        else {
            lost.wrappingAdd(1, ordering: .relaxed)
            return
        }
    }
}

/// The clocks of the machine, in nanoseconds.
package func systemClocks() -> (monotonic: Int64, wall: Int64) {
    func now(_ clock: clockid_t) -> Int64 {
        var time = timespec()
        _ = unsafe clock_gettime(clock, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
    return (now(CLOCK_MONOTONIC), now(CLOCK_REALTIME))
}

/// `2025-11-21T11:30:00.123Z` from nanoseconds since 1970. The calendar is computed, so nothing depends on a time zone.
package func timestamp(_ nanoseconds: Int64) -> String {
    let milliseconds = nanoseconds / 1_000_000
    let seconds = milliseconds / 1000
    let (days, second) = (seconds / 86_400, seconds % 86_400)
    // Days to a civil date in the proleptic Gregorian calendar, years starting in March.
    let shifted = days + 719_468
    let era = shifted / 146_097
    let dayOfEra = shifted % 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
    let fraction = milliseconds % 1000
    let padding = fraction < 10 ? "00" : fraction < 100 ? "0" : ""
    return "\(year)-\(two(month))-\(two(day))T\(two(second / 3600)):\(two(second / 60 % 60)):"
        + "\(two(second % 60)).\(padding)\(fraction)Z"
}

/// What a log field can hold.
package protocol LogValue {
    /// Its text, not yet quoted.
    var logText: String { get }
}

extension LogValue where Self: CustomStringConvertible {
    package var logText: String { description }
}

extension String: LogValue { package var logText: String { self } }
extension Substring: LogValue {}
extension StaticString: LogValue {}
extension Bool: LogValue {}
extension Double: LogValue {}
extension Int: LogValue {}
extension Int32: LogValue {}
extension Int64: LogValue {}
extension UInt16: LogValue {}
extension UInt32: LogValue {}
extension UInt64: LogValue {}

/// A value as logfmt wants it: quoted when it holds anything but visible ASCII without quotes, '=' and backslashes.
func logfmtValue(_ text: String) -> String {
    let isPlain = text.utf8.allSatisfy {
        $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "=")
            && $0 != UInt8(ascii: "\\")
    }
    if isPlain, !text.isEmpty { return text }
    var quoted = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": quoted += "\\\""
        case "\\": quoted += "\\\\"
        case "\n": quoted += "\\n"
        case "\t": quoted += "\\t"
        case let control where control.properties.generalCategory == .control: quoted += "?"
        default: quoted.unicodeScalars.append(scalar)
        }
    }
    return quoted + "\""
}
