/// What happens to a container next.
struct SimulatedEvent {
    enum Kind: UInt8 {
        case runtimeReady, initDone, requestEnd, recycle, cold
        /// A tick that serves the container. After everything else of the same moment.
        case wake
    }
    /// Nanoseconds from the start of the trace.
    var time: Int64
    var sequence: UInt32
    var container: Int32
    /// The container's life: an event of an earlier one is stale.
    var life: UInt32
    var kind: Kind

    @inline(__always)
    static func < (a: SimulatedEvent, b: SimulatedEvent) -> Bool {
        if a.time != b.time { return a.time < b.time }
        let isWake = a.kind == .wake
        if isWake != (b.kind == .wake) { return !isWake }
        return a.sequence &- b.sequence > UInt32.max / 2
    }
}

/// Events in the order of time; those of one moment in the order in which they were put in, wake-ups last.
struct EventQueue {
    private var heap: [SimulatedEvent] = []
    private var sequence: UInt32 = 0

    var next: SimulatedEvent? { heap.first }
    var isEmpty: Bool { heap.isEmpty }

    mutating func put(
        _ kind: SimulatedEvent.Kind, at time: Int64, container: Int, life: UInt32
    ) {
        let event = SimulatedEvent(
            time: time, sequence: sequence, container: Int32(container), life: life, kind: kind)
        sequence &+= 1
        var place = heap.count
        heap.append(event)
        while place > 0 {
            let parent = (place - 1) >> 1
            guard event < heap[parent] else { break }
            heap[place] = heap[parent]
            place = parent
        }
        heap[place] = event
    }

    mutating func take() -> SimulatedEvent? {
        guard let first = heap.first, let last = heap.popLast() else { return nil }
        guard !heap.isEmpty else { return first }
        var place = 0
        let count = heap.count
        while true {
            var child = 2 * place + 1
            guard child < count else { break }
            if child + 1 < count, heap[child + 1] < heap[child] { child += 1 }
            guard heap[child] < last else { break }
            heap[place] = heap[child]
            place = child
        }
        heap[place] = last
        return first
    }
}
