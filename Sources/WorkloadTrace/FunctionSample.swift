import FarMemory

/// A seeded sample of a trace's functions, drawn while they stream by (reservoir sampling), so that a file of any size is read in
/// bounded memory.
struct FunctionSample {
    private let window: TraceWindow
    private var random: SeededRandom
    private var kept: [TraceFunction] = []
    private var seen = 0
    private var tooBusy = 0

    init(window: TraceWindow) {
        self.window = window
        random = SeededRandom(seed: window.seed)
    }

    /// Offers a function with `total` invocations; `arrivals` makes them, only when it is kept.
    mutating func offer(
        name: String, total: Int, arrivals: (inout SeededRandom) -> [Nanoseconds]
    ) {
        guard total <= window.invocationsMax else {
            tooBusy += 1
            return
        }
        seen += 1
        // One draw per function, kept or not, and one stream per function: the sample depends on the seed and the order only.
        let place = random.below(seen)
        var own = random.split()
        if kept.count < window.functionsMax {
            kept.append(TraceFunction(name: name, arrivals: arrivals(&own)))
        } else if place < window.functionsMax {
            kept[place] = TraceFunction(name: name, arrivals: arrivals(&own))
        }
    }

    /// The sample as a trace, the busiest left out until the rest fits.
    func trace(source: String) -> WorkloadTrace {
        var functions = kept.filter { !$0.arrivals.isEmpty }
        var notes: [String] = []
        if seen > kept.count {
            notes.append("\(kept.count) of \(seen) functions, a sample of seed \(window.seed)")
        }
        var total = functions.reduce(0) { $0 + $1.arrivals.count }
        var dropped = tooBusy
        while total > window.invocationsMax,
            let busiest = functions.indices.max(by: {
                functions[$0].arrivals.count < functions[$1].arrivals.count
            })
        {
            total -= functions[busiest].arrivals.count
            functions.remove(at: busiest)
            dropped += 1
        }
        if dropped > 0 {
            notes.append(
                "\(dropped) functions left out: more than \(window.invocationsMax) invocations in this part"
            )
        }
        return WorkloadTrace(source: source, functions: functions, notes: notes)
    }
}
