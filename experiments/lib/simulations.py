"""Runs `farmem simulate` for an experiment, on the trace of 2021 as published or on a generated file of its size, and keeps the report."""

import datetime
import json
import pathlib
import subprocess
import tempfile
import time

import bench

# Of the size of the data set, and a part of it for a look.
SIZES = {"full": (14, 1_980_000), "lite": (14, 1_980_000), "smoke": (1, 140_000)}
SECONDS_MAX = 3600


def run(options, directory, experiment, label, words):
    """One report of `farmem simulate --json WORDS`, kept under its label."""
    (directory / "results").mkdir(exist_ok=True)
    farmem = str(bench.binaries() / "farmem")
    with tempfile.TemporaryDirectory() as scratch:
        trace = options.trace
        if not trace:
            days, calls = SIZES[options.mode]
            trace = str(pathlib.Path(scratch) / "generated-2021.csv")
            call([farmem, "simulate", "--generate", "azure2021", "--output", trace, "--days", str(days), "--calls", str(calls),
                  "--seed", str(options.seed)])
        began = time.time()
        started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        report = json.loads(call([farmem, "simulate", "--trace", trace, "--json", *words]))
    seconds = round(time.time() - began, 1)
    source = pathlib.Path(options.trace).name if options.trace else f"generated, seed {options.seed}"
    result = {"schema": 1, "experiment": experiment, "label": label, "started": started, "seconds": seconds, "seed": options.seed,
              "configuration": {"words": words, "trace": source, "mode": options.mode}, "revision": bench.revision(),
              "machine": report.pop("machine", {}), "report": report}
    bench.replace(directory / "results" / f"{label}.json", json.dumps(result, separators=(",", ":")))
    bench.say(f"{experiment}/{label}: {seconds} s")
    return {"label": label, "file": f"{label}.json"}


def call(words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS_MAX)
    # 1: a comparison missed its bar; its report says so.
    if done.returncode not in (0, 1) or not done.stdout:
        lines = done.stderr.strip().splitlines()
        raise bench.NotRun(f"{' '.join(words[1:3])}: {lines[-1] if lines else done.returncode}")
    return done.stdout


def note(result):
    """What was simulated, for below a figure."""
    machine = result["machine"]
    return (f"Simulated by farmem simulate; trace of 2021: {result['configuration']['trace']}. "
            f"{machine.get('processors', '?')} processors, Linux {machine.get('kernel', '?')}; {result['revision'].get('git', '')[:12]}.")
