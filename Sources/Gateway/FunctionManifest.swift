package import FarMemory
import JSONText
import LinuxSystem

/// A function as its directory describes it in manifest.json.
package struct FunctionManifest: Equatable, Sendable {
    /// Lower-case letters, digits and dashes: it becomes part of container ids and control groups.
    package var name: String
    /// Directory with the function's files.
    package var directory: String
    /// The file with handler(ctx), in the directory.
    package var entry: String
    package var memory: ByteCount
    /// Weight among busy containers, in thousandths of one processor. Not a quota: a quota would measure
    /// the scheduler's throttling instead of the function.
    package var cpuMillis: Int
    /// Requests in a window of the offload policy.
    package var requestWindow: Int?
    /// Processors and NUMA nodes that it may use, as the kernel lists them: "0-3,6". Nil: all that the host lets it.
    package var processors: String?
    package var memoryNodes: String?
    package var initTimeout: Nanoseconds
    package var runTimeout: Nanoseconds
}

/// Why a manifest was refused: one line that names the file.
package struct ManifestError: Error, Equatable, CustomStringConvertible {
    package var description: String
    init(_ file: String, _ reason: String) { description = "\(file): \(reason)" }
}

extension FunctionManifest {
    private static let keys = [
        "name", "entry", "memory_mib", "cpu_millis", "request_window", "cpus", "memory_nodes",
        "init_timeout_ms", "run_timeout_ms",
    ]

    /// Reads `directory`/manifest.json.
    package static func load(directory: String) throws(ManifestError) -> FunctionManifest {
        let file = "\(directory)/manifest.json"
        let value: JSONValue
        do {
            value = try JSONValue.parse(try readSmallFile(file, limit: 64 << 10))
        } catch {
            throw ManifestError(file, "\(error)")
        }
        return try parse(value, directory: directory, file: file)
    }

    /// Reads the manifests of all functions below a directory, sorted by name. The agent's directory has none.
    package static func loadAll(below directory: String) throws(ManifestError) -> [FunctionManifest]
    {
        let names: [String]
        do {
            names = try directoryEntries(directory)
        } catch {
            throw ManifestError(directory, "\(error)")
        }
        var manifests: [FunctionManifest] = []
        for name in names where fileExists("\(directory)/\(name)/manifest.json") {
            let manifest = try load(directory: "\(directory)/\(name)")
            if let other = manifests.first(where: { $0.name == manifest.name }) {
                throw ManifestError(
                    "\(directory)/\(name)/manifest.json",
                    "\"name\": \(manifest.name) is the function in \(other.directory) already")
            }
            manifests.append(manifest)
        }
        guard !manifests.isEmpty else {
            throw ManifestError(directory, "holds no function; give a directory of functions")
        }
        return manifests
    }

    static func parse(
        _ value: JSONValue, directory: String, file: String
    ) throws(ManifestError) -> FunctionManifest {
        guard let members = value.members else { throw ManifestError(file, "not an object") }
        for member in members where !keys.contains(member.key) {
            throw ManifestError(file, "unknown key \"\(member.key)\"")
        }
        func number(_ key: String, _ range: ClosedRange<Int64>) throws(ManifestError) -> Int64 {
            guard let number = value[key]?.integer, range.contains(number) else {
                throw ManifestError(
                    file,
                    "\"\(key)\" must be a number from \(range.lowerBound) to \(range.upperBound)")
            }
            return number
        }
        guard let name = value["name"]?.string, isFunctionName(name) else {
            throw ManifestError(file, "\"name\" must be 1 to 32 of a-z, 0-9 and dashes")
        }
        guard let entry = value["entry"]?.string, !entry.isEmpty, !entry.contains("/") else {
            throw ManifestError(file, "\"entry\" must be a file beside the manifest")
        }
        guard fileExists("\(directory)/\(entry)") else {
            throw ManifestError(file, "\"entry\": there is no \(entry)")
        }
        func list(_ key: String) throws(ManifestError) -> String? {
            guard let member = value[key] else { return nil }
            guard let text = member.string, isNumberList(text) else {
                throw ManifestError(
                    file, "\"\(key)\" must be numbers and ranges with commas, as in \"0-3,6\"")
            }
            return text
        }
        let window =
            value["request_window"] == nil ? nil : Int(try number("request_window", 1...1000))
        return FunctionManifest(
            name: name, directory: directory, entry: entry,
            memory: .mib(UInt64(try number("memory_mib", 16...65_536))),
            cpuMillis: Int(try number("cpu_millis", 10...64_000)), requestWindow: window,
            processors: try list("cpus"), memoryNodes: try list("memory_nodes"),
            initTimeout: .milliseconds(try number("init_timeout_ms", 1...600_000)),
            runTimeout: .milliseconds(try number("run_timeout_ms", 1...600_000)))
    }
}

func isFunctionName(_ name: String) -> Bool {
    let isClean = name.utf8.allSatisfy {
        (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == UInt8(ascii: "-")
    }
    return isClean && (1...32).contains(name.utf8.count) && name.first != "-"
}

/// "0", "0-3,6": what the kernel's cpusets take. Whether the host has them the kernel says.
func isNumberList(_ text: String) -> Bool {
    guard (1...256).contains(text.utf8.count) else { return false }
    return text.split(separator: ",", omittingEmptySubsequences: false).allSatisfy { item in
        let ends = item.split(separator: "-", omittingEmptySubsequences: false)
        let numbers = ends.compactMap { end in
            end.utf8.allSatisfy { (0x30...0x39).contains($0) } ? UInt16(end) : nil
        }
        return (1...2).contains(ends.count) && numbers.count == ends.count
            && numbers[0] <= numbers[numbers.count - 1]
    }
}
