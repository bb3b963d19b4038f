"""Runs `farmem bench functions` for an experiment, keeps what was measured, and does not measure the same twice.

A result is kept under a name made from its configuration and from the content of the programs and functions that were measured; whoever asks for
the same again gets it from the file. It is kept only when every response that came was verified: one wrong answer, and the whole result goes
to `rejected/`, is reported, and is never drawn.
"""

import datetime
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import loads
import virtual

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ["farmem", "offloadd", "fngateway", "farswap", "memserver"]
SCHEMA = 1
# A request that hangs is waited for before farmem cleans up: 90 s at most.
STOP_PATIENCE = 150


class NotRun(Exception):
    """Why there is no result: one line."""


def binaries():
    """Where the programs are: FARMEM_BIN_DIR, else the release build."""
    given = os.environ.get("FARMEM_BIN_DIR")
    directory = pathlib.Path(given) if given else ROOT / ".build" / "release"
    missing = [name for name in PROGRAMS if not (directory / name).exists()]
    if missing:
        raise NotRun(f"{directory} has no {', '.join(missing)}; run experiments/run-all, which builds them, or set FARMEM_BIN_DIR")
    return directory


def git(*words):
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


_content = {}


def content_key():
    """Of what is measured: the programs' and the functions' bytes."""
    if "key" not in _content:
        digest = hashlib.sha256()
        directory = binaries()
        files = [directory / name for name in PROGRAMS]
        functions = ROOT / "functions"
        files += sorted(path for path in functions.rglob("*")
                        if path.is_file() and "tests" not in path.parts and "__pycache__" not in path.parts)
        for path in files:
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
        _content["key"] = digest.hexdigest()
    return _content["key"]


def revision():
    return {"git": git("rev-parse", "HEAD") or "unknown", "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
            "content": content_key()}


class Aliases:
    """A directory of functions in which `bert-low` is bert under another name."""

    def __init__(self, names):
        self.names = sorted(set(names))

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="farmem-experiment-"))
        # Containers run as nobody and see their function's directory through a bind mount.
        self.directory.chmod(0o755)
        shutil.copytree(ROOT / "functions" / "agent", self.directory / "agent")
        for name in self.names:
            base = name.split("-")[0]
            source = ROOT / "functions" / base
            if not (source / "manifest.json").exists():
                shutil.rmtree(self.directory, ignore_errors=True)
                raise NotRun(f"there is no function {base}")
            shutil.copytree(source, self.directory / name)
            manifest = json.loads((source / "manifest.json").read_text())
            manifest["name"] = name
            (self.directory / name / "manifest.json").write_text(json.dumps(manifest))
        return self.directory

    def __exit__(self, *_):
        shutil.rmtree(self.directory, ignore_errors=True)


class Configuration(dict):
    """What a run is asked for: all that its figures depend on, save the programs and the machine."""

    def key(self):
        text = json.dumps(self, sort_keys=True) + content_key()
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def configuration(rows, *, duration, warm_up, speedup, policies, seed=1, variants=(), options=(), keep_alive=loads.KEEP_ALIVE,
                  far_size="8GiB", memory_limit=None, timeline="1s", repetitions=1, without_reference=False,
                  containers_max=1, extra=None, guest_memory=None, sample_interval=None):
    """`rows` as from loads.schedule; `duration` and `warm_up` in seconds of real time, `keep_alive` in the trace's. With `guest_memory` it runs
    in the lab in virtual time, and seconds are the guest's."""
    made = Configuration(
        duration=duration, warm_up=warm_up, speedup=speedup, policies=list(policies), seed=seed, variants=list(variants),
        options=list(options), keep_alive=keep_alive, far_size=far_size, memory_limit=memory_limit, timeline=timeline,
        repetitions=repetitions, without_reference=without_reference, containers_max=containers_max,
        schedule=loads.schedule_text(rows), extra=extra or {})
    if sample_interval:
        made["sample_interval"] = sample_interval
    if guest_memory:
        made["virtual"] = {"memory": guest_memory, "kernel": virtual.kernel()}
    return made


def command(config, schedule_file, functions, json_file):
    words = [binaries() / "farmem", "bench", "functions", "--functions-dir", functions, "--schedule", schedule_file,
             "--duration", f"{config['duration']}s", "--warm-up", f"{config['warm_up']}s", "--speedup", config["speedup"],
             "--seed", config["seed"], "--policies", ",".join(config["policies"]),
             "--keep-alive", f"{round(config['keep_alive'] * 1000)}ms", "--far-size", config["far_size"],
             "--timeline", config["timeline"], "--containers-max", config["containers_max"], "--repetitions", config["repetitions"], "--json", json_file]
    for variant in config["variants"]:
        words += ["--variant", variant]
    for option in config["options"]:
        words += ["--offload-option", option]
    if "sample_interval" in config:
        words += ["--sample-interval", config["sample_interval"]]
    if config["memory_limit"]:
        words += ["--memory-limit", config["memory_limit"]]
    if config["without_reference"]:
        words += ["--without-reference"]
    return [str(word) for word in words]


def in_lab(config, words, exchange, limit):
    """The command for the host, and a file's name is the same inside and outside."""
    return virtual.command(words, config["virtual"]["memory"], exchange, limit, {"FARMEM_BIN_DIR": binaries()})


def verified(report):
    """Why the report must not be used; None when every response that came was right."""
    for phase in report["phases"]:
        for request in phase.get("requests", []):
            if request["outcome"] == "wrong":
                return f"{request['function']} under {phase['policy']}: a response {request.get('reason', 'was wrong')}"
            if request["outcome"] == "skipped":
                return f"{phase['policy']}: the replay was cut short"
    return None


def result_path(directory, label, config):
    return pathlib.Path(directory) / "results" / f"{label}-{config.key()}.json"


def stored(directory, label, config):
    """The result of exactly this, if there is one."""
    path = result_path(directory, label, config)
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return result if result.get("schema") == SCHEMA else None


def run(directory, experiment, label, config, allowance=240):
    """The result of a configuration, measured now unless it is there. Raises NotRun."""
    directory = pathlib.Path(directory)
    (directory / "results").mkdir(parents=True, exist_ok=True)
    found = stored(directory, label, config)
    if found:
        say(f"{experiment}/{label}: there already, of {found['started']}")
        return found
    phases = (len(config["policies"]) + (0 if config["without_reference"] or "none" in config["policies"] else 1)) * config["repetitions"]
    limit = allowance + phases * (config["duration"] + 60)
    say(f"{experiment}/{label}: {config['schedule'].count(chr(10)) - 1} requests, {config['duration']} s, {', '.join(config['policies'])}")
    began = time.time()
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    names = {line.split(",")[1] for line in config["schedule"].splitlines()[1:]}
    virtually = "virtual" in config
    with Aliases(names) as functions, tempfile.TemporaryDirectory() as scratch:
        schedule_file = pathlib.Path(scratch) / "schedule.csv"
        schedule_file.write_text(config["schedule"])
        json_file = pathlib.Path(scratch) / "report.json"
        words = command(config, schedule_file, functions, json_file)
        if virtually:
            words = in_lab(config, words, scratch, limit)
        log = directory / "results" / f"{label}.log"
        status = supervise(words, log, limit + (60 if virtually else 0))
        if status not in (0, 1) or not json_file.exists():
            raise NotRun(f"{label}: farmem bench functions ended with {status}: {last_line(log)}")
        report = json.loads(json_file.read_text())
    result = {"schema": SCHEMA, "experiment": experiment, "label": label, "started": started,
              "seconds": round(time.time() - began, 1), "seed": config["seed"], "configuration": dict(config),
              "revision": revision(), "machine": report.pop("machine"), "report": report}
    fault = verified(report)
    if virtually:
        result.update(virtual=True, host=virtual.host(), report=virtual.without_latencies(report))
    path = result_path(directory, label, config)
    if fault:
        path = directory / "rejected" / path.name
        path.parent.mkdir(exist_ok=True)
    replace(path, json.dumps(result, separators=(",", ":")))
    if fault:
        raise NotRun(f"{label}: rejected: {fault}")
    say(f"{experiment}/{label}: {result['seconds']:.0f} s")
    return result


def supervise(words, log, limit):
    """Runs to the end; after `limit` seconds asks it to clean up, and only then kills it. Its exit status, or a word. Takes it along when this
    process is told to end."""
    with open(log, "w") as output:
        child = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)

    def forward(number, _):
        child.send_signal(signal.SIGTERM)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, forward)
    try:
        return child.wait(limit)
    except subprocess.TimeoutExpired:
        child.terminate()
        try:
            child.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        return f"no end within {limit} s"
    except KeyboardInterrupt:
        child.terminate()
        try:
            child.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def last_line(path):
    lines = [line for line in pathlib.Path(path).read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def replace(path, text):
    """Whole or not at all: an interrupted run leaves no half result."""
    path = pathlib.Path(path)
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    os.replace(temporary, path)


def say(text):
    print(f"experiments: {text}", file=sys.stderr, flush=True)
