"""The charts of a report on ratings, each from plain values to one inline SVG."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from insitu.report.charts import Line, lines
from insitu.report.figure import PALETTE, draw

_MOST_POINTS = 200


def training_error(history: Sequence[dict[str, float]], *, implicit: bool) -> Markup:
    """What the solver minimises, without its regularisation, by iteration.

    Args:
        history: `iteration` and `loss`: the mean squared error of the training ratings; if they are implicit, that
            of all pairs, by confidence.
    """
    iterations, losses = [line["iteration"] for line in history], [line["loss"] for line in history]
    title = "Weighted squared error for each rating" if implicit else "RMSE of the training ratings"
    curve = Line("training", iterations, losses if implicit else [loss**0.5 for loss in losses])
    return lines([curve], name="training", title=title, x_label="iteration")


def convergence(points: Sequence[dict[str, Any]]) -> Markup:
    """What a metric comes to after some numbers of iterations.

    Args:
        points: `iterations`, `metric`, and its value on the sample's `training` and `held_out` ratings, either may
            be None.
    """
    metric = points[0]["metric"]
    curves = [
        Line(name, [point["iterations"] for point in points], [point[key] for point in points])
        for name, key in (("training", "training"), ("held out", "held_out"))
        if any(point[key] is not None for point in points)
    ]
    title = metric.upper().replace("_AT_", "@")
    return lines(curves, name="convergence", title=f"{title} of the sample", x_label="iterations")


def popularity(sizes: Sequence[tuple[int, int]]) -> Markup:
    """The ratings of each item by its rank, both axes logarithmic.

    Args:
        sizes: pairs of a number of ratings and how many items have it.
    """
    ratings, items = np.array(sorted(sizes, reverse=True)).T
    ends = items.cumsum()
    ranks = np.unique(np.geomspace(1, ends[-1], _MOST_POINTS).round().astype(int))
    values = ratings[np.searchsorted(ends, ranks)]

    def paint(axes: Axes) -> None:
        axes.loglog(ranks, values, color=PALETTE[0])
        axes.set_ylim(10 ** np.floor(np.log10(values.min())), 10 ** np.ceil(np.log10(values.max() + 1)))
        _plain_powers(axes.xaxis)
        _plain_powers(axes.yaxis)
        axes.set(title="Training ratings of an item", xlabel="items, the most rated first")

    return draw(paint, name="popularity", description="Training ratings of each item by its rank")


def error_by_popularity(names: Sequence[str], errors: Sequence[float]) -> Markup:
    """The RMSE of each group of held-out ratings, as bars; `names` say how often their items were rated."""

    def paint(axes: Axes) -> None:
        axes.grid(visible=False, axis="x")
        axes.bar(range(len(errors)), errors, 0.8, color=PALETTE[0])
        axes.set_xticks(range(len(names)), names, rotation=45, rotation_mode="anchor", ha="right")
        axes.tick_params(axis="x", length=0)
        axes.set(title="Held-out RMSE", xlabel="training ratings of the item")

    return draw(paint, name="errors", description="Held-out RMSE by the popularity of the item")


def histogram(values: Sequence[float], counts: Sequence[int], *, width: float, log: bool) -> Markup:
    """How many training ratings have each value, or are within half of `width` of it; `log` is for the counts."""

    def paint(axes: Axes) -> None:
        axes.grid(visible=False, axis="x")
        axes.bar(values, counts, 0.85 * width, color=PALETTE[0], log=log)
        if log:
            _plain_powers(axes.yaxis)
        axes.set(title="Training ratings", xlabel="rating")

    return draw(paint, name="ratings", description="Number of training ratings by value")


def _plain_powers(axis: Axis) -> None:
    """Numbers in the place of powers of ten, whose superscripts need matplotlib's own fonts."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5), numticks=7))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_minor_locator(NullLocator())
