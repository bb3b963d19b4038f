// WorkloadSimulation: a trace, a pool of containers and the real OffloadPolicy in virtual time.
//
// Purpose: say what offloading would save and cost under a load of weeks, in seconds. The policy is the machine that offloadd
// runs, hears the same events, and decides the same; what a kernel would do with its decisions is a model (SimulatedContainer, CostModel).
// Thread model: values only, one thread. Invariants: the same trace, settings and seed give the same report; ticks are left out
// only where they change nothing (OffloadPolicy/SparseTicks.swift); memory is bounded by the trace's length and its containers.
// Must not import: Foundation, LinuxSystem.
