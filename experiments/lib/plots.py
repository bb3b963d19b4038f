"""Figures: the same look everywhere, PDF and PNG, and what was measured how below each."""

import pathlib
import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

# Told apart without colour vision (Okabe and Ito), and in print by their order.
COLOURS = {
    "none": "#999999", "tmo": "#56B4E9", "damon": "#CC79A7", "idle-shrink": "#F0E442", "faasmem": "#E69F00", "farmem": "#0072B2",
}
OTHERS = ["#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000", "#E69F00"]
NAMES = {"none": "none", "tmo": "TMO", "damon": "DAMON", "idle-shrink": "idle shrink", "faasmem": "FaaSMem constants", "farmem": "Farmem"}

plt.rcParams.update({
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "grid.linewidth": 0.5, "axes.axisbelow": True, "legend.frameon": False, "figure.dpi": 120, "pdf.fonttype": 42,
})


def colour(policy, index=0):
    return COLOURS.get(policy, OTHERS[index % len(OTHERS)])


def label(policy):
    return NAMES.get(policy, policy)


def save(figure, directory, name, note):
    """Writes name.png and name.pdf, the note below; gives the PNG's name."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    width = figure.get_size_inches()[0]
    lines = textwrap.wrap(note, int(width * 19))
    height = figure.get_size_inches()[1]
    room = (0.14 * len(lines) + 0.08) / height
    figure.tight_layout(rect=(0, room, 1, 1))
    figure.text(0.01, 0.01, "\n".join(lines), fontsize=6.5, color="#444444", va="bottom")
    for kind in ("png", "pdf"):
        # No date in the file: the same data give the same bytes.
        metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
        figure.savefig(directory / f"{name}.{kind}", dpi=130, metadata=metadata)
    plt.close(figure)
    return f"{name}.png"


def grouped_bars(axes, groups, series, text=None, missing="no figure"):
    """`series`: [(policy, values, intervals)], a value per group; None is marked, not drawn as zero."""
    count = len(series)
    width = 0.8 / max(1, count)
    for index, (policy, values, intervals) in enumerate(series):
        for place, value in enumerate(values):
            x = place - 0.4 + width * (index + 0.5)
            if value is None:
                axes.text(x, 0.02, missing, rotation=90, fontsize=6, ha="center", va="bottom", color="#aa0000",
                          transform=axes.get_xaxis_transform())
                continue
            error = None
            if intervals and intervals[place]:
                low, high = intervals[place]
                error = [[max(0, value - low)], [max(0, high - value)]]
            axes.bar(x, value, width * 0.95, color=colour(policy, index), label=label(policy) if place == 0 else None,
                     yerr=error, error_kw={"elinewidth": 0.7, "capsize": 1.2})
            if text:
                top = max(value, intervals[place][1]) if intervals and intervals[place] and value >= 0 else value
                axes.annotate(text(value), (x, top), (0, 2 if value >= 0 else -2), textcoords="offset points", fontsize=5.5, ha="center",
                              va="bottom" if value >= 0 else "top")
    handles, names = [], []
    for index, (policy, _, _) in enumerate(series):
        handles.append(plt.Rectangle((0, 0), 1, 1, color=colour(policy, index)))
        names.append(label(policy))
    axes.set_xticks(range(len(groups)))
    axes.set_xticklabels(groups)
    axes.grid(axis="x", visible=False)
    return handles, names
