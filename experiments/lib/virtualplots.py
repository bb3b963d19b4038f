"""What is drawn of a run in virtual time, the same for every experiment: local memory over time and on average, pages, decisions. No latency: there is none."""

import collections

import findings
import plots
import stats
import tables
import virtual

TITLES = {"diverse-benchmarks": "Diverse benchmarks", "ablation": "Ablation"}
QUESTIONS = {
    "diverse-benchmarks": "How much local memory does each policy save in an hour, uncompressed, with containers kept for ten minutes?",
    "ablation": "What does each part of the policy contribute over an hour, uncompressed?",
}
COLUMNS = 3


def load_of(alias):
    return alias.partition("-")[2]


def timelines(data, directory, load):
    """Local memory of every function under a load, a line per policy."""
    names = [name for name in data.functions if load_of(name) == load]
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure, panels = plots.plt.subplots(rows, columns, figsize=(max(6, 3.4 * columns), 2.2 * rows + 0.8), sharex=True, squeeze=False)
    for axes in panels.flat[len(names):]:
        axes.set_visible(False)
    for axes, name in zip(panels.flat, names):
        for index, policy in enumerate(data.policies):
            line = data.phases[policy][0]["timeline"]
            axes.plot([moment / 60000 for moment in line["ms"]], [value / 2**20 for value in line["functions"][name]["local_bytes"]],
                      label=plots.label(policy), color=plots.colour(policy, index), linewidth=1.4 if policy == "farmem" else 1)
        axes.axvline(data.report["warm_up_ms"] / 60000, color="black", linewidth=0.6, linestyle=":")
        axes.set_title(name, fontsize=8)
        axes.set_ylim(bottom=0)
    for axes in panels[:, 0]:
        axes.set_ylabel("local memory, MiB")
    for axes in panels[-1]:
        axes.set_xlabel("minutes of virtual time")
    panels[0, 0].legend(fontsize=6.5, ncols=len(data.policies), loc="lower left", bbox_to_anchor=(0, 1.12))
    return plots.save(figure, directory, f"timeline-{load}", "All containers of a function; left of the dotted line is warm-up. " + data.note())


def averages(data, directory):
    names = data.functions
    others = [policy for policy in data.policies if policy != "none"]
    figure, axes = plots.plt.subplots(figsize=(max(6, 0.75 * len(names) + 1.5), 3.2))
    series = [(policy, [None if data.saved(policy, name) is None else data.saved(policy, name) * 100 for name in names], None) for policy in others]
    handles, labels = plots.grouped_bars(axes, [name.replace("-", "\n") for name in names], series, text=lambda value: f"{value:.0f}")
    axes.set_ylabel("local memory saved\nagainst none, %")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.legend(handles, labels, fontsize=7, ncols=len(others), loc="lower left", bbox_to_anchor=(0, 1.0))
    return plots.save(figure, directory, "saved", "Average over time after the warm-up. " + data.note())


def memory(data, policy, name, key):
    """Of the sampler, on average over repetitions."""
    return stats.mean(phase["memory"][name].get(key) or 0 for phase in data.phases[policy])


def by_function(data):
    heading = ["function", "policy", "local MiB", "saved %", "far MiB", "containers", "cold starts", "pages out", "pages in", "refaults"]
    rows = []
    for name in data.functions:
        for policy in data.policies:
            whole = data.whole_cached(policy, name)
            saved = data.saved(policy, name) if policy != "none" else None
            rows.append([name, plots.label(policy)] + ([None] * 8 if not whole else [
                data.local(policy, name) / 2**20, None if saved is None else saved * 100, data.far(policy, name) / 2**20,
                memory(data, policy, name, "containers_mean"), data.cold_starts(policy, name),
                *(round(memory(data, policy, name, key)) for key in ("pages_out", "pages_in", "refaults"))]))
    return heading, rows


def by_rule(data):
    """What the controller decided."""
    heading = ["policy", "rule", "action", "times", "MiB released", "MiB recalled"]
    rows = []
    for policy in data.policies:
        counts, released, recalled = collections.Counter(), collections.Counter(), collections.Counter()
        for decision in data.decisions(policy):
            key = decision["rule"], decision["action"]
            counts[key] += 1
            released[key] += decision.get("released_bytes") or 0
            recalled[key] += decision.get("recalled_bytes") or 0
        rows += [[plots.label(policy), *key, counts[key], released[key] / 2**20, recalled[key] / 2**20] for key in sorted(counts)]
    return heading, rows


def totals(data):
    """Each policy's saving over all functions that are whole everywhere, in words."""
    names = [name for name in data.functions if all(data.whole_cached(policy, name) for policy in data.policies)]
    if "none" not in data.policies or not names:
        return "no function is whole under every policy"
    reference = sum(data.local("none", name) for name in names)
    words = [f"{plots.label(policy)} {(1 - sum(data.local(policy, name) for name in names) / reference) * 100:.1f} %"
             for policy in data.policies if policy != "none"]
    return f"average local memory saved over {len(names)} of {len(data.functions)} functions and loads together: " + ", ".join(words)


def summary(name, directory, results):
    data = findings.Findings(results["all"])
    result, configuration = results["all"], results["all"]["configuration"]
    requests = sum(len(phase["requests"]) for phases in data.phases.values() for phase in phases)
    figures = [[averages(data, directory), "saved local memory in virtual time, no latencies"]] if len(data.policies) > 1 else []
    for load in sorted({load_of(alias) for alias in data.functions}, reverse=True):
        figures.append([timelines(data, directory, load), f"local memory over virtual time, {load} load, no latencies"])
    texts = [["Memory and pages per function and policy; " + virtual.NO_LATENCIES, tables.write(directory, "table", *by_function(data), data.note())],
             ["The controller's decisions; " + virtual.NO_LATENCIES, tables.write(directory, "decisions", *by_rule(data), data.note())]]
    minutes = sum(len(phases) for phases in data.phases.values()) * data.report["duration_ms"] / 60000
    return {
        "title": TITLES.get(name, name), "question": QUESTIONS.get(name, ""),
        "paper": "FaaSMem: an hour per trace on 16 cores, containers kept for ten minutes; average local memory 9.9 % to 79.8 % lower.",
        "ours": f"{minutes:.0f} virtual minutes in {result['seconds'] / 60:.0f}: {totals(data)}.",
        "differs": "The work of requests takes one emulated processor its real time, some ten times that of a native one, so requests that come together wait for each other "
                   "and starts take longer; latencies are dropped. "
                   f"The controller looks at idle containers every {virtual.TICK} in place of 100 ms. No DAMON in this kernel; functions that this processor takes long for are left out. "
                   "Arrivals are generated unless --trace gives the Azure trace.",
        "tables": texts, "figures": figures, "checks": [],
        "notes": [data.note(), f"{requests} responses, all of those that came verified; keep-alive {configuration['keep_alive'] / 60:.0f} minutes, guest of "
                  f"{configuration['virtual']['memory']}, far memory through memserver, farswap (FUSE) and the guest's swap."] + data.troubles(),
    }
