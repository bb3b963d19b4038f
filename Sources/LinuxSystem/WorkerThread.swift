import CLinuxShims
import Glibc
import Synchronization

/// A raw thread with a name. The data plane runs on these: no cooperative pool, no Dispatch.
package final class WorkerThread: Sendable {
    private let handle: pthread_t
    private let joined = Atomic<Bool>(false)

    private final class Start: Sendable {
        let name: String
        let body: @Sendable () -> Void
        init(_ name: String, _ body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// Starts a thread. `name` is cut to the 15 bytes that the kernel keeps.
    package init(_ name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
        let start = unsafe Unmanaged.passRetained(Start(String(name.prefix(15)), body))
        var thread = pthread_t()
        // SAFETY: the retained box is taken over by the thread, or released below when none started.
        let code = unsafe pthread_create(
            &thread, nil,
            { raw in
                guard let raw = unsafe raw else { return nil }
                let start = unsafe Unmanaged<Start>.fromOpaque(raw).takeRetainedValue()
                unsafe fm_thread_set_name(start.name)
                start.body()
                return nil
            }, start.toOpaque())
        guard code == 0 else {
            unsafe start.release()
            throw SystemError(call: "pthread_create", code: code)
        }
        handle = thread
    }

    /// Waits for the thread's end. Once, from any other thread.
    package func join() {
        precondition(!joined.exchange(true, ordering: .acquiringAndReleasing), "joined twice")
        pthread_join(handle, nil)
    }

    deinit {
        // Nobody will ask for its end: let the system take it back then.
        if !joined.load(ordering: .acquiring) { pthread_detach(handle) }
    }
}

/// Sets how far the calling thread alone steps back for others when processors are short: 0 as everyone, 19 the farthest (nice(2)).
package func setThreadNiceness(_ nice: Int32) throws(SystemError) {
    try check("setpriority") { fm_thread_set_nice(nice) }
}

/// Pins the calling thread to one processor.
package func pinThread(to cpu: Int32) throws(SystemError) {
    try check("sched_setaffinity") { fm_thread_set_cpu(cpu) }
}

/// One round of a spin loop.
@inline(__always) package func cpuRelax() { fm_cpu_relax() }
