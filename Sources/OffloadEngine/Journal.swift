package import Containers
import Glibc
package import LinuxSystem
import Synchronization

/// One change of a kernel knob that is to be undone.
package struct KnobChange: Equatable, Sendable {
    /// Path of the group below the memory controller's mount, and the inode that it had.
    package var group: String
    package var inode: UInt64
    package var file: String
    package var old: String
    package var new: String

    package init(group: String, inode: UInt64, file: String, old: String, new: String) {
        self.group = group
        self.inode = inode
        self.file = file
        self.old = old
        self.new = new
    }
}

/// What became of a change that a former run left behind.
package enum Restoration: Equatable, Sendable {
    case restored(KnobChange)
    /// The group is gone, or another of the same name is there.
    case groupGone(KnobChange)
    /// Someone else has changed the knob since: theirs now.
    case changedSince(KnobChange, now: String)
    case failed(KnobChange, SystemError)
}

/// A file that says which knobs are changed right now, on disk before the knob is. Lines are
/// "begin ID INODE FILE OLD NEW GROUP" and "end ID". One thread.
package final class KnobJournal: Sendable {
    private let path: String
    private let file: FileDescriptor
    private let next = Mutex<(number: UInt64, open: Int, bytes: Int)>((1, 0, 0))

    /// Past this size the file is emptied when nothing is open.
    private static let bytesMax = 64 << 10

    /// Opens the journal of a directory; `restore` first.
    package init(path: String) throws(SystemError) {
        self.path = path
        file = try FileDescriptor.open(path, O_RDWR | O_CREAT | O_APPEND, mode: 0o600)
    }

    /// Writes down a change and waits for the disk. Only then may the knob be changed.
    package func begin(_ change: KnobChange) throws(SystemError) -> UInt64 {
        let number = next.withLock { state in
            defer { state.number += 1 }
            state.open += 1
            return state.number
        }
        let line =
            "begin \(number) \(change.inode) \(change.file) \(change.old) \(change.new) \(change.group)\n"
        try append(line)
        return number
    }

    /// The knob is as it was before.
    package func end(_ number: UInt64) throws(SystemError) {
        try append("end \(number)\n")
        let mayEmpty = next.withLock { state in
            state.open -= 1
            return state.open == 0 && state.bytes > Self.bytesMax
        }
        if mayEmpty {
            try file.truncate(to: 0)
            next.withLock { $0.bytes = 0 }
        }
    }

    private func append(_ line: String) throws(SystemError) {
        try file.writeAll(line)
        next.withLock { $0.bytes += line.utf8.count }
        let raw = file.rawValue
        try check("fdatasync \(path)") { fdatasync(raw) }
    }

    /// Changes that were begun and not ended, oldest first. A torn last line never reached its knob.
    package static func openChanges(in text: String) -> [KnobChange] {
        var open: [(number: Substring, change: KnobChange)] = []
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        lines.removeLast()
        for line in lines {
            let words = line.split(separator: " ", maxSplits: 6)
            if words.count == 7, words[0] == "begin", let inode = UInt64(words[2]) {
                let change = KnobChange(
                    group: String(words[6]), inode: inode, file: String(words[3]),
                    old: String(words[4]), new: String(words[5]))
                open.append((words[1], change))
            } else if words.count == 2, words[0] == "end" {
                open.removeAll { $0.number == words[1] }
            }
        }
        return open.map { $0.change }
    }

    /// Undoes what a former run left changed, and empties the journal.
    package static func restore(
        path: String, groups: ControlGroups
    ) throws(SystemError) -> [Restoration] {
        guard fileExists(path) else { return [] }
        let changes = openChanges(in: try readSmallText(path, limit: 16 << 20))
        let outcomes = changes.reversed().map { undo($0, groups) }
        let failed = outcomes.contains { if case .failed = $0 { true } else { false } }
        // What could not be undone stays written down for the next start.
        if !failed { try FileDescriptor.open(path, O_WRONLY | O_TRUNC).truncate(to: 0) }
        return outcomes
    }

    private static func undo(_ change: KnobChange, _ groups: ControlGroups) -> Restoration {
        guard let group = try? groups.open(change.group), group.inode == change.inode else {
            return .groupGone(change)
        }
        do throws(SystemError) {
            let now = String(try group.text(change.file).split(separator: "\n").first ?? "")
            if now == change.old { return .restored(change) }
            guard now == change.new else { return .changedSince(change, now: now) }
            try group.write(change.file, change.old)
            return .restored(change)
        } catch {
            return .failed(change, error)
        }
    }
}
