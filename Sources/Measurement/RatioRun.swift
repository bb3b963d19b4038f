import Containers
package import FarMemory
import Glibc
package import LinuxSystem

/// What a run of a program with a limit on its memory took.
package struct RatioRun: Sendable {
    package var end = ChildEnd.running
    /// It did not end in time and was killed.
    package var isLate = false
    /// Somebody asked to stop; it was killed.
    package var isInterrupted = false
    /// What it wrote to standard output.
    package var output: [UInt8] = []
    package var wall = Nanoseconds.zero
    package var user = Nanoseconds.zero
    package var system = Nanoseconds.zero
    package var majorFaults = 0
    /// Of the whole host, by swap, while it ran. Nil: the kernel does not count them.
    package var pagesIn: UInt64?
    package var pagesOut: UInt64?
    package var peak: ByteCount?
    /// How often the group had to be let above its limit for a moment, nothing being reclaimed in time.
    package var lifts = 0

    /// Whether it ended by itself and well.
    package var isDone: Bool { end == .exited(0) && !isLate && !isInterrupted }
}

/// Runs programs, each in a control group of its own with so much memory, pinned to processors. One thread: the times are those of this process's children.
package struct RatioRunner: Sendable {
    /// As for taskset: `0`, `0,2-3`; nil for all.
    package var processors: String?
    package var limit: LimitedGroup.Limit
    package var timeout: Nanoseconds
    /// For what programs write.
    package var directory: String
    /// Readable when somebody asks to stop.
    package var stop: Int32

    package static let outputBytesMax = 64 << 20

    package init(
        processors: String?, limit: LimitedGroup.Limit, timeout: Nanoseconds, directory: String,
        stop: Int32
    ) {
        self.processors = processors
        self.limit = limit
        self.timeout = timeout
        self.directory = directory
        self.stop = stop
    }

    /// Runs a program to its end; `memory` nil: without a limit. Nothing of it is left when this returns.
    package func run(_ command: [String], memory: ByteCount?) throws(SystemError) -> RatioRun {
        let group = try LimitedGroup()
        let outcome: Result<RatioRun, SystemError>
        do throws(SystemError) {
            if let memory {
                try group.set(limit, to: memory)
                try group.waitInsteadOfKilling()
            }
            var run = try runChild(command, memory: memory, in: group)
            run.peak = group.peak()
            outcome = .success(run)
        } catch {
            outcome = .failure(error)
        }
        guard group.killAll() else { throw SystemError(call: "end a workload", code: EBUSY) }
        try group.remove()
        return try outcome.get()
    }

    private func runChild(
        _ command: [String], memory: ByteCount?, in group: LimitedGroup
    ) throws(SystemError) -> RatioRun {
        let path = "\(directory)/output"
        let output = try FileDescriptor.open(path, O_RDWR | O_CREAT | O_TRUNC, mode: 0o600)
        let null = try FileDescriptor.open("/dev/null", O_RDONLY)
        var words = command
        if let processors { words = ["taskset", "-c", processors] + words }
        let before = Usage.now()
        let start = monotonicNow()
        // The shell joins the group before the program is there, so that all its memory counts.
        let child = try ChildProcess(
            "/bin/sh",
            ["sh", "-c", "echo 0 >\"$0\" && exec \"$@\"", group.processesFile] + words,
            descriptors: [(null.rawValue, 0), (output.rawValue, 1), (2, 2)], newSession: true,
            diesWithParent: true)
        var run = RatioRun()
        while run.end == .running {
            let left = start + timeout.nanoseconds - monotonicNow()
            run.isLate = run.isLate || left <= 0
            if !run.isInterrupted { run.isInterrupted = try waitReady(stop, .readable, timeout: 0) }
            if run.isLate || run.isInterrupted { _ = group.killAll() }
            // In short steps, to see a wish to stop or a group that waits. They delay nothing: the end ends the wait.
            run.end = try child.wait(timeout: max(1, min(20_000_000, left)))
            if let memory, run.end == .running, try group.liftIfWaiting(from: memory) {
                run.lifts += 1
            }
        }
        run.wall = Nanoseconds(monotonicNow() - start)
        let after = Usage.now()
        run.user = after.user - before.user
        run.system = after.system - before.system
        run.majorFaults = after.majorFaults - before.majorFaults
        run.pagesIn = Usage.difference(after.pagesIn, before.pagesIn)
        run.pagesOut = Usage.difference(after.pagesOut, before.pagesOut)
        run.output = try readSmallFile(path, limit: Self.outputBytesMax)
        return run
    }
}

/// Counters of this process's ended children and of the host's swap.
private struct Usage {
    var user: Nanoseconds
    var system: Nanoseconds
    var majorFaults: Int
    var pagesIn: UInt64?
    var pagesOut: UInt64?

    static func now() -> Usage {
        var usage = rusage()
        unsafe getrusage(__rusage_who_t(RUSAGE_CHILDREN.rawValue), &usage)
        func time(_ value: timeval) -> Nanoseconds {
            .seconds(Int64(value.tv_sec)) + .microseconds(Int64(value.tv_usec))
        }
        let counts = HostMemory.swapCounts()
        return Usage(
            user: time(usage.ru_utime), system: time(usage.ru_stime),
            majorFaults: usage.ru_majflt, pagesIn: counts.in,
            pagesOut: counts.out)
    }

    static func difference(_ after: UInt64?, _ before: UInt64?) -> UInt64? {
        guard let after, let before, after >= before else { return nil }
        return after - before
    }
}
