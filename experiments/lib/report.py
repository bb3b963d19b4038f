"""REPORT.md from what the experiments left: nothing is filled in, nothing is left out silently.

A row of "What must hold" is PASS or MISS as its experiment computed it; "not run" where there is no result, "not decided" where the result does not suffice. Several
experiments may speak of one row; one MISS is a MISS.
"""

import json
import os
import pathlib
import re

import tables
import virtual

# Where the results of virtual time are, below the output.
VIRTUAL = "virtual"
# Issue 4, "What must hold", in its order: id, what, figure that must be met, experiments that print it.
ROWS = [
    ("memory", "average local memory saved against none, 11 functions",
     "least > 9.9 %, best > 79.8 %, and more than TMO, DAMON and the FaaSMem constants on at least 9 of 11", "diverse-benchmarks"),
    ("latency", "p95 latency against none", "at most 5 % higher where the paper allows 10 %", "diverse-benchmarks"),
    ("wake-up", "wake-up of a fully drained container: prefetch against demand faults", "at least 3x faster to the first response on bert and graph", "wake-up"),
    ("semi-warm", "semi-warm start without future knowledge against the oracle percentile", "within 10 % of its saved memory", "semi-warm-applicability"),
    ("bandwidth", "bandwidth budget with 50 containers draining at once", "never exceeded by more than 5 % over any second", "bandwidth-budget"),
    ("density", "density by real packing", "printed next to the formula's, for three functions", "density"),
    ("policy-core", "policy core", "every rule unit-tested, property-tested, run by the simulator: same events, same actions", "policy-core"),
]

# The order of sections; experiments that are not named here follow in order of their names.
ORDER = ["diverse-benchmarks", "diverse-workloads", "ablation", "semi-warm-applicability", "pucket-overhead", "density", "wake-up", "bandwidth-budget",
         "runtime-pucket-check", "colocation", "keep-alive-sweep", "local-memory-ratio", "rack", "policy-core"]


def experiments(root):
    """Names of all experiments in the order of the report."""
    names = [path.parent.name for path in pathlib.Path(root).glob("*/run")]
    return [name for name in ORDER if name in names] + sorted(name for name in names if name not in ORDER)


def load(path):
    try:
        return json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError):
        return None


def gather(output, names):
    """Per experiment its summary, or why there is none."""
    found = {}
    for name in names:
        directory = pathlib.Path(output) / name
        summary, status = load(directory / "summary.json"), load(directory / "status.json")
        problem = None
        if status and status.get("problem"):
            problem = status["problem"]
        elif summary is None:
            problem = "not run"
        found[name] = {"summary": None if problem and not (status or {}).get("kept") else summary, "problem": problem, "status": status or {}}
    return found


def verdicts(found, partial=False):
    """(id, what, bar, figure, word) for each row. `partial`: only some experiments were asked for."""
    rows = []
    for identity, what, bar, source in ROWS:
        checks = [check for entry in found.values() if entry["summary"] for check in entry["summary"].get("checks", []) if check["id"] == identity]
        if not checks:
            entry = found.get(source)
            missing = "not part of this run" if partial else f"there is no experiment {source}"
            reason = entry["problem"] if entry and entry["problem"] else "no figure" if entry else missing
            rows.append((identity, what, bar, f"{source}: {reason}", "not run"))
            continue
        figure = "; ".join(check["figure"] for check in checks)
        passes = [check["pass"] for check in checks]
        word = "MISS" if False in passes else "not decided" if None in passes else "PASS"
        rows.append((identity, what, bar, figure, word))
    return rows


def mode_of(output, names):
    """What the results that are there were measured with."""
    modes = [index["mode"] for name in names if (index := load(pathlib.Path(output) / name / "runs.json"))]
    return modes[0] if modes else "lite"


def virtual_section(output, base):
    lines = ["## Virtual time\n",
             "`experiments/run-all --virtual`: real containers, controller, memory server and far swap on the lab's Linux 6.1 (User-Mode Linux, cgroup v2, MGLRU) for the paper's "
             "durations, uncompressed. Idle time passes at once, so an hour takes minutes. Memory, page counts and decisions are as measured; **latencies of virtual time mean "
             "nothing, are dropped before a result is kept, and appear nowhere here.**\n"]
    found = gather(pathlib.Path(output) / VIRTUAL, virtual.EXPERIMENTS)
    for name, entry in found.items():
        lines.append(section(name, entry, f"{base}/{VIRTUAL}", level="###"))
    return "\n".join(lines)


def section(name, entry, base, level="##"):
    summary, lines = entry["summary"], []
    title = summary["title"] if summary else name
    lines.append(f"{level} {title}\n")
    lines.append(f"`experiments/{name}`" + (f": {summary['question']}" if summary else "") + "\n")
    if entry["problem"]:
        lines.append(f"**Not run:** {entry['problem']}\n")
        if summary:
            lines.append("What follows is of an earlier run.\n")
    if not summary:
        return "\n".join(lines)
    lines.append("| | |\n| --- | --- |")
    for key, word in [("paper", "paper"), ("ours", "here"), ("differs", "where and why it differs")]:
        if summary.get(key):
            lines.append(f"| {word} | {summary[key]} |")
    lines.append("")
    for caption, text in summary.get("tables", []):
        lines.append(f"*{caption}*\n\n{text.rstrip()}\n")
    for file, caption in summary.get("figures", []):
        lines.append(f"![{caption}]({base}/{name}/{file})\n")
    notes = summary.get("notes", [])
    if notes:
        lines.append("\n".join(f"- {note}" for note in notes) + "\n")
    return "\n".join(lines)


def machine_line(found, output, report_file):
    """The machine of what was measured. Results may stay where they were made, and their summaries here: then as the report says that is there."""
    for name in found:
        for path in sorted((pathlib.Path(output) / name / "results").glob("*.json")):
            result = load(path)
            if isinstance(result, dict) and "machine" in result and "revision" in result:
                machine = result["machine"]
                return (f"{machine['processors']} processors ({machine.get('processor', 'unknown')}), {machine['memory_bytes'] / 2**30:.0f} GiB, "
                        f"Linux {machine['kernel']}, transparent huge pages {machine.get('transparent_hugepages') or 'unknown'}; "
                        f"git {result['revision']['git'][:12]}{' with local changes' if result['revision']['dirty'] else ''}")
    known = re.search(r"^Machine: (.*?)\.(?: The run took .*)?$", report_file.read_text(), re.M) if report_file.exists() else None
    return known[1] if known else "unknown: nothing was measured"


def render(output, names, report_file, mode, seconds=None):
    output, report_file = pathlib.Path(output), pathlib.Path(report_file)
    found = gather(output, names)
    base = os.path.relpath(output.resolve(), report_file.resolve().parent)
    rows = verdicts(found, partial=mode == "smoke")
    counts = {word: sum(row[4] == word for row in rows) for word in ("PASS", "MISS", "not decided", "not run")}
    lines = ["# Experiments: what the paper has, and what was measured here\n",
             f"Generated by `experiments/run-all --{mode}`; do not edit. Each experiment's question and method are in its README; "
             "each figure says how it was measured.\n",
             f"Machine: {machine_line(found, output, report_file)}." + (f" The run took {seconds / 60:.0f} minutes." if seconds else "") + "\n",
             "The paper's column quotes FaaSMem's abstract, and its artifact where that fixes a number; what neither says is not quoted. "
             "Baselines ran on the same machine, in the same run, on the same requests. In compressed time keep-alive, delays, windows and percentiles are divided alike; "
             "requests and page transfers take their real time.\n",
             "## What must hold\n",
             ", ".join(f"{count} {word}" for word, count in counts.items() if count) + ".\n",
             tables.markdown(["what", "must hold", "measured", "verdict"],
                             [(what, bar, figure, f"**{word}**") for _, what, bar, figure, word in rows])]
    missing = [f"{name}: {entry['problem']}" for name, entry in found.items() if entry["problem"]]
    if missing:
        lines.append("Not run: " + "; ".join(missing) + ".\n")
    for name in names:
        lines.append(section(name, found[name], base))
    lines.append(virtual_section(output, base))
    report_file.write_text("\n".join(lines).rstrip() + "\n")
    return rows
