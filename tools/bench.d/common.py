"""What the parts of tools/bench share: facts of the machine, programs, verdicts."""

import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import sys


def machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return {"cpu": model, "cpus": os.cpu_count(), "memory_mib": memory // 1024, "kernel": platform.release(),
            "load_1m_at_start": os.getloadavg()[0]}


def version(command):
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip().split("\n")[0]
    except OSError:
        return ""


def commit():
    root = pathlib.Path(__file__).resolve().parents[2]
    return version(["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def binary_directory():
    return pathlib.Path(os.environ.get("FARMEM_BIN_DIR", ".build/release")).resolve()


def median(rounds):
    """The median of each figure over rounds that have the same figures."""
    return {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}


def run(command, timeout=300, env=None):
    """The output of a command that must succeed; its last words end the benchmark when it does not."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout, env=env)
    if done.returncode != 0:
        raise SystemExit(f"{pathlib.Path(command[0]).name} {command[1]} failed: "
                         f"{(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return done.stdout


def judge(name, value, least=None, most=None, unit=""):
    """One figure against its limits: a dictionary for the report, a line for the reader."""
    passed = (least is None or value >= least) and (most is None or value <= most)
    limit = f" (>= {least:g})" if least is not None else f" (<= {most:g})" if most is not None else ""
    verdict = "" if not limit else "  pass" if passed else "  FAIL"
    shown = f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"
    print(f"{name:58} {shown:>12}{unit}{limit}{verdict}", flush=True)
    return {"name": name, "value": value, "least": least, "most": most, "passed": passed}


def finish(part, arguments, report, figures):
    """Writes the report and says the verdict; the exit status."""
    passed = arguments.smoke or all(figure["passed"] for figure in figures)
    report = {"schema": f"farmem.bench.{part}/1", "commit": commit(), "seed": arguments.seed, "machine": machine(),
              **report, "figures": figures, "passed": passed}
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n")
    print(f"bench {part}:", "passed" if passed else "FAILED", f"(seed {arguments.seed})")
    return 0 if passed else 1


def need(part, *programs):
    """Ends with status 69 when a program of this package is not built, 77 without root."""
    for program in programs:
        if not (binary_directory() / program).exists():
            print(f"bench {part}: {binary_directory() / program} is not built; run tools/bench {part}", file=sys.stderr)
            sys.exit(69)
    if os.geteuid() != 0:
        print(f"bench {part}: swap devices need root; run with sudo", file=sys.stderr)
        sys.exit(77)
