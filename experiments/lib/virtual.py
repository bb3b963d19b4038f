"""Runs in the lab in virtual time, and what is made of them: the paper's durations in minutes, on a real kernel, without any latency.

Idle time passes at once there, work takes the real time of one emulated processor. So memory over time, page counts and what the policy did are as they would
be; how long a request took says nothing, and is dropped before a result is kept.
"""

import functools
import os
import pathlib
import platform
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Experiments whose `run` knows --virtual.
EXPERIMENTS = ["diverse-benchmarks", "ablation"]
NO_LATENCIES = "virtual time: latencies are not reported"

# Idle time costs what wakes up in it: the controller looks at idle containers twice a second here (100 ms is its default), and memory is sampled every two seconds.
TICK = "500ms"
SAMPLE_INTERVAL = "2s"
TIMELINE = "10s"
# The guest's memory, and of it what far memory may be: its pool is in the guest, too.
SIZES = {"virtual": ("8G", "3GiB"), "virtual-smoke": ("1G", "384MiB")}

# What is kept of farmem's report; what is not named here may be a latency.
REPORT_KEYS = ["schema", "benchmark", "is_well", "seed", "speedup", "duration_ms", "warm_up_ms", "keep_alive_ms", "repetitions", "memory_limit_bytes", "trace",
               "functions", "failed_functions"]
PHASE_KEYS = ["policy", "is", "options", "repetition", "problem", "samples_missed", "memory", "timeline"]
REQUEST_KEYS = ["function", "due_ms", "cold", "warm_up", "outcome", "reason", "major_faults"]
DECISION_KEYS = ["seq", "time_unix_ms", "container", "function", "rule", "action", "reason", "written_bytes", "released_bytes", "hot_pages", "recalled_bytes",
                 "refaults", "halted"]


def options(mode):
    return [f"tick={TICK}"] if mode in SIZES else []


def settings(mode):
    """What a configuration has besides in virtual time."""
    if mode not in SIZES:
        return {}
    memory, far = SIZES[mode]
    return {"guest_memory": memory, "far_size": far, "timeline": TIMELINE, "sample_interval": SAMPLE_INTERVAL}


def lab():
    return os.environ.get("FARMEM_LAB") or str(ROOT / "tools" / "lab")


@functools.cache
def kernel():
    """Which kernel of the lab: its sources, patches, configuration and compiler. Builds it when it is not there."""
    done = subprocess.run([lab(), "uml", "--build-only"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"experiments: the lab has no kernel: tools/lab uml --build-only ended with {done.returncode}")
    return "/".join(pathlib.Path(done.stdout.strip()).parts[-2:])


def command(words, memory, exchange, seconds, variables):
    """`words` in a guest that writes to `exchange` only."""
    given = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    return [lab(), "uml", "--time-travel", "--memory", memory, "--timeout", str(seconds), "--exchange", str(exchange), *given, "--", *words]


def host():
    """The report's machine is the guest; this one did the work."""
    return {"processors": os.cpu_count(), "kernel": platform.release()}


def only(mapping, keys):
    return {key: mapping[key] for key in keys if key in mapping}


def without_latencies(report):
    """The report of `farmem bench functions` with nothing in it that is measured in time."""
    kept = only(report, REPORT_KEYS)
    kept["phases"] = []
    for phase in report["phases"]:
        own = only(phase, PHASE_KEYS)
        own["requests"] = [only(request, REQUEST_KEYS) for request in phase.get("requests", [])]
        own["decisions"] = [only(decision, DECISION_KEYS) for decision in phase.get("decisions", [])]
        kept["phases"].append(own)
    return kept
