import CommandLineKit
import Measurement
import WorkloadTrace

/// One replay, or why there is none.
struct BenchPhase: Sendable {
    var variant: PolicyVariant
    var repetition: Int
    var result: PhaseResult?
    var problem: String?

    init(variant: PolicyVariant, repetition: Int) {
        self.variant = variant
        self.repetition = repetition
    }
}

/// All that was measured.
struct BenchOutcome: Sendable {
    /// Without the functions that failed beforehand.
    var schedule: RequestSchedule
    /// Why those were left out.
    var failedFunctions: [String: String]
    var phases: [BenchPhase] = []

    init(schedule: RequestSchedule, failedFunctions: [String: String]) {
        self.schedule = schedule
        self.failedFunctions = failedFunctions
    }

    /// The two-sided table's: none against our own.
    func comparison() throws -> FunctionComparison {
        guard phases.count == 2, let without = phases[0].result, let with = phases[1].result else {
            throw CommandFailure(.bug, "there are not two replays to compare")
        }
        return FunctionComparison(functions: schedule.functions, without: without, with: with)
    }
}
