import FarMemory
import Glibc
import LinuxSystem

/// What a file of the published traces holds, told by its header.
enum TraceFileKind: Equatable {
    /// 2019: HashOwner,HashApp,HashFunction,Trigger,1,...,1440.
    case invocationsPerMinute
    /// 2019: HashOwner,HashApp,HashFunction,Average,Count,...: milliseconds.
    case durations
    /// 2019: HashOwner,HashApp[,HashFunction],SampleCount,AverageAllocatedMb,...
    case memory
    /// 2021: app,func,end_timestamp,duration: seconds.
    case invocations

    static func detect(_ header: ArraySlice<UInt8>) -> TraceFileKind? {
        let names = fields(header).prefix(5).map(text)
        if names == ["app", "func", "end_timestamp", "duration"] { return .invocations }
        guard names.count == 5, names[0] == "HashOwner", names[1] == "HashApp" else { return nil }
        if names[2] == "HashFunction", names[3] == "Trigger", names[4] == "1" {
            return .invocationsPerMinute
        }
        if names[2] == "HashFunction", names[3] == "Average", names[4] == "Count" {
            return .durations
        }
        return names.contains("AverageAllocatedMb") ? .memory : nil
    }
}

extension WorkloadTrace {
    /// Loads a part of an Azure Functions trace. `path` is a file with invocations (the 2019 files of durations and memory of the
    /// same day are looked for beside it) or a directory with such files, of which the first day is taken. A file of memory
    /// alone, or a directory with nothing else, gives the applications; their arrivals are generated then, and a note says so.
    package static func load(_ path: String, window: TraceWindow) throws(TraceError)
        -> WorkloadTrace
    {
        let path = try invocationsFile(path)
        switch try kind(of: path) {
        case .invocations: return try loadInvocations(path, window: window)
        case .invocationsPerMinute: return try loadPerMinute(path, window: window)
        case .durations:
            throw .unusable(
                path, "holds durations, no invocations; give the invocations file of the same day")
        case .memory: return try loadMemoryAlone(path, window: window)
        case nil: throw .unusable(path, unknownHeader)
        }
    }

    /// The file itself, or the one of a directory that `choose` takes.
    static func invocationsFile(_ path: String) throws(TraceError) -> String {
        var names: [String]?
        do throws(SystemError) {
            names = try directoryEntries(path)
        } catch {
            guard error.code == ENOTDIR else { throw .unreadable(path, error.reason) }
        }
        guard let names else { return path }
        return try choose(names, in: path)
    }

    private static let unknownHeader =
        "is no Azure Functions trace: its first line is none of the published headers"

    /// The kind of a file, nil when its header is none of the published ones.
    static func kind(of path: String) throws(TraceError) -> TraceFileKind? {
        var reader = try LineReader(path)
        guard let header = try reader.next() else { throw .unusable(path, "is empty") }
        return TraceFileKind.detect(header)
    }

    /// The first file with invocations in a directory, by name; one of memory when there is nothing else.
    private static func choose(
        _ names: [String], in directory: String
    ) throws(TraceError) -> String {
        var durations = false
        var memory: String?
        for name in names where name.hasSuffix(".csv") || name.hasSuffix(".txt") {
            let path = "\(directory)/\(name)"
            switch try kind(of: path) {
            case .invocations, .invocationsPerMinute: return path
            case .durations: durations = true
            case .memory: memory = memory ?? path
            case nil: continue
            }
        }
        if let memory, !durations { return memory }
        throw .unusable(
            directory,
            durations
                ? "holds durations, but no invocations; add the invocations file of the same day"
                : "holds no file of an Azure Functions trace (CSV)")
    }

    /// The file of another kind for the same day: the one whose name has the same day mark (`d01`), or the only one.
    static func sibling(of path: String, kind wanted: TraceFileKind) throws(TraceError) -> String? {
        let slash = path.lastIndex(of: "/")
        let directory = slash.map { String(path[..<$0]) } ?? "."
        let own = slash.map { String(path[path.index(after: $0)...]) } ?? path
        var found: [String] = []
        for name in (try? directoryEntries(directory)) ?? []
        where name != own && name.hasSuffix(".csv") && dayMark(name) == dayMark(own) {
            if try kind(of: "\(directory)/\(name)") == wanted {
                found.append("\(directory)/\(name)")
            }
        }
        return found.count == 1 ? found.first : nil
    }

    /// `d01` of `durations.anon.d01.csv`.
    private static func dayMark(_ name: String) -> String? {
        name.split(separator: ".").map(String.init).last {
            $0.first == "d" && $0.count == 3 && $0.dropFirst().allSatisfy(\.isNumber)
        }
    }
}
