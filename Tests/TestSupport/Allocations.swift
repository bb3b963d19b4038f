import CAllocationCounter

/// Heap allocations that `body` makes on this thread. Warm up first: the first call of anything allocates.
///
///     #expect(allocations { server.handle(request) } == 0)
package func allocations<E: Error>(in body: () throws(E) -> Void) throws(E) -> UInt64 {
    let before = fm_allocations_of_thread()
    try body()
    return fm_allocations_of_thread() - before
}

/// Heap allocations of the calling thread so far, for code that is called back on a thread of its own.
package func allocationsOfThread() -> UInt64 { fm_allocations_of_thread() }

/// Heap allocations of all threads of this process so far, for code that works on threads of its own. Other tests run
/// in parallel: such a suite must be `.serialized` and filtered to run alone, or compare in a process of its own.
package func allocationsOfProcess() -> UInt64 { fm_allocations_of_process() }

/// False under a sanitizer: every count is 0 then, and a test that wants more must be skipped.
package var allocationsAreCounted: Bool { fm_allocations_are_counted() != 0 }
