"""What each experiment's `run` and `plot` share: their command line, and the summary that the report is made of.

An experiment is a directory `experiments/NAME` with README.md, `run` and `plot`. `run --lite|--full|--smoke --output DIR` measures into DIR/NAME/results;
`plot --output DIR` draws DIR/NAME/*.png and *.pdf, writes tables, and DIR/NAME/summary.json:

    title     of the section
    question  one sentence
    paper     what the paper or its artifact has, as Markdown
    ours      what was found, as Markdown
    differs   where and why it differs, as Markdown
    tables    Markdown tables, as [caption, text]
    figures   names of PNG files, as [name, caption]
    checks    rows of "What must hold": {"id", "figure", "pass": true, false or null for unknown}
    notes     what was left out, and why; lines
"""

import argparse
import json
import pathlib
import sys

import bench
import virtual


def arguments(description, plots=False):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    for word, text in [("smoke", "about a minute, to see that it works"), ("lite", "minutes (default)"), ("full", "the paper's durations")]:
        mode.add_argument(f"--{word}", dest="mode", action="store_const", const=word, help=text)
    mode.add_argument("--virtual", dest="mode", action="store_const", const="virtual", help="the paper's durations in the lab in virtual time; some experiments")
    mode.add_argument("--virtual-smoke", dest="mode", action="store_const", const="virtual-smoke", help="the same for minutes of virtual time")
    parser.add_argument("--output", default=str(bench.ROOT / "experiments" / "out"), metavar="DIR", help="default experiments/out")
    if not plots:
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--repetitions", type=int, default=1)
        parser.add_argument("--trace", metavar="FILE", help="the Azure Functions trace of 2021 as published, in place of generated arrivals")
    parser.set_defaults(mode="lite")
    return parser.parse_args()


def home(options, name):
    directory = pathlib.Path(options.output) / name
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def run_main(name, description, body):
    """`body(options, directory)` gives the labels of the results it made, and the configurations they were made with."""
    options = arguments(description)
    if options.mode.startswith("virtual") and name not in virtual.EXPERIMENTS:
        bench.say(f"{name}: has no virtual time; {', '.join(virtual.EXPERIMENTS)} have")
        return 64
    directory = home(options, name)
    try:
        made = body(options, directory)
    except bench.NotRun as error:
        bench.say(f"{name}: {error}")
        return 1
    bench.replace(directory / "runs.json", json.dumps({"mode": options.mode, "runs": made}, indent=1))
    return 0


def measure(directory, name, label, config, **more):
    """Runs, and gives what `runs.json` says of it."""
    bench.run(directory, name, label, config, **more)
    return {"label": label, "file": bench.result_path(directory, label, config).name}


def results(directory):
    """The results that the last `run` made, by label; raises NotRun."""
    index = pathlib.Path(directory) / "runs.json"
    if not index.exists():
        raise bench.NotRun("not run")
    found = {}
    for run in json.loads(index.read_text())["runs"]:
        path = pathlib.Path(directory) / "results" / run["file"]
        if not path.exists():
            raise bench.NotRun(f"{path.name} is missing; run it again")
        found[run["label"]] = json.loads(path.read_text())
    return found


def plot_main(name, description, body):
    """`body(directory, results)` gives the summary."""
    options = arguments(description, plots=True)
    directory = home(options, name)
    try:
        found = results(directory)
        if any(result.get("virtual") for result in found.values()):
            # Of virtual time there is one drawing for all experiments: memory, pages and decisions, nothing else.
            import virtualplots
            summary = virtualplots.summary(name, directory, found)
        else:
            summary = body(directory, found)
    except bench.NotRun as error:
        bench.say(f"{name}: {error}")
        return 1
    bench.replace(directory / "summary.json", json.dumps(summary, indent=1) + "\n")
    return 0


def finish(status):
    sys.exit(status)
