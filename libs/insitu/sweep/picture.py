"""The picture of a sweep: metric, loss and time by the first key, a line for each value of the second."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution

from insitu.sweep.results import Results

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "insitu",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
Rows = list[dict[str, Any]]


def save_picture(results: Results, path: Path) -> None:
    """Write an SVG with three panels side by side.

    A first key with listed values has them evenly spaced, and lines through the means; the bars go from the
    smallest to the largest of the trials that differ in further keys only, such as the seed. A first key with a
    range has a point a trial. Trials without a metric are not in it.
    """
    rows = [row for row in results.rows() if row[results.metric] is not None]
    titles = {
        results.metric: f"validation {results.metric}",
        "loss": "validation loss",
        "seconds_per_epoch": "seconds an epoch",
    }
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10.5, 3.6), layout="constrained")
        for axes, (name, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
            _draw(axes, results.space, rows, name)
            axes.set_title(title)
        handles, labels = axes.get_legend_handles_labels()
        if len(handles) > 1:
            figure.legend(handles, labels, title=list(results.space)[1], loc="outside lower center", frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _draw(axes: Axes, space: dict[str, BaseDistribution], rows: Rows, name: str) -> None:
    """One panel: the figure `name` of the rows."""
    x, *others = space
    lines = (_groups(rows, others[0], space[others[0]]) if others else {}) or {"": rows}
    for label, chosen in lines.items():
        places = _groups(chosen, x, space[x])
        if places:
            _draw_line(axes, [[row[name] for row in group] for group in places.values()], label)
            axes.set_xticks(range(len(places)), places)
        else:
            axes.plot([row[x] for row in chosen], [row[name] for row in chosen], "o", label=label)
    if getattr(space[x], "log", False):
        axes.set_xscale("log")
    axes.set_xlabel(x)


def _groups(rows: Rows, key: str, distribution: BaseDistribution) -> dict[str, Rows]:
    """The rows by their value of a key with listed values; empty for a key with a range."""
    choices = getattr(distribution, "choices", ())
    return {str(choice): [row for row in rows if row[key] == choice] for choice in choices}


def _draw_line(axes: Axes, found: list[list[float]], label: str) -> None:
    """Means with bars from the smallest to the largest of the values at each place; a place may have none."""
    places = [place for place, values in enumerate(found) if values]
    means = [float(np.mean(found[place])) for place in places]
    low = [mean - min(found[place]) for mean, place in zip(means, places, strict=True)]
    high = [max(found[place]) - mean for mean, place in zip(means, places, strict=True)]
    axes.errorbar(places, means, yerr=[low, high], marker="o", capsize=3, label=label)
