"""The report's charts, each from plain values to one inline SVG.

Legend: K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, product
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from insitu.report.calibration import Reliability
from insitu.report.figure import FAINT, INK, PALETTE, draw, shortened

_MOST_POINTS = 400
_STYLES = [(colour, dash) for dash, colour in product(("-", "--", ":"), PALETTE)]


@dataclass(frozen=True)
class Line:
    """A named curve; where `y` is None or NaN the curve has a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


def lines(
    curves: Sequence[Line],
    *,
    name: str,
    title: str,
    x_label: str,
    marks: Sequence[tuple[float, str]] = (),
    from_zero: bool = False,
) -> Markup:
    """Curves over steps or epochs.

    Args:
        curves: told apart by colour and dash, named in a legend if there are several.
        name: of the figure, unique in its page.
        title: says what y is, with its unit.
        x_label: with its unit.
        marks: vertical lines at x, each with a word; a word is written once.
        from_zero: whether y starts at 0.
    """

    def paint(axes: Axes) -> None:
        for curve, (colour, dash) in zip(curves, cycle(_STYLES), strict=False):
            x, y = thinned(np.array(curve.x, float), np.array(curve.y, float))
            axes.plot(x, y, dash, color=colour, marker="o" if len(x) <= 30 else "", label=shortened(curve.name))
        for place, (x_mark, word) in enumerate(marks):
            axes.axvline(x_mark, color=INK, linewidth=1, linestyle=":", label=word if place == 0 else None)
        axes.set(title=title, xlabel=x_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        if from_zero:
            axes.set_ylim(bottom=0)
        if len(curves) > 1 or marks:
            axes.legend(fontsize=8)

    described = f"{title} by {x_label}: {', '.join(curve.name for curve in curves)}"
    return draw(paint, name=name, description=described)


def roc(false_positives: np.ndarray, true_positives: np.ndarray, *, name: str, class_name: str) -> Markup:
    """The ROC curve of one class, small, to stand among others."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        axes.fill_between(false_positives, true_positives, color=PALETTE[0], alpha=0.15, linewidth=0)
        axes.plot(false_positives, true_positives, color=PALETTE[0])
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")

    return draw(paint, name=name, description=f"ROC curve of {class_name}", inches=(1.9, 1.8))


def confusion(counts: np.ndarray, *, class_names: Sequence[str]) -> Markup:
    """A matrix of rows, by label down and by answer across: int [K, K]; shaded by share of the label's rows."""
    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def paint(axes: Axes) -> None:
        axes.grid(visible=False)
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolor=FAINT, linewidth=0.4)
        for down, across in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[down, across] > 0.5 else "black"
            place = (across + 0.5, down + 0.5)
            axes.annotate(_short(counts[down, across]), place, ha="center", va="center", color=colour, fontsize=8)
        names = [shortened(name) for name in class_names]
        tilt: dict[str, Any] = (
            {"rotation": 45, "rotation_mode": "anchor", "ha": "right"} if max(map(len, names)) > 3 else {}
        )
        axes.set_xticks(np.arange(size) + 0.5, names, **tilt)
        axes.set_yticks(np.arange(size) + 0.5, names)
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.set(xlabel="predicted", ylabel="labelled", aspect="equal")

    side = 1.6 + 0.33 * size
    return draw(paint, name="confusion", description="Confusion matrix", inches=(side, side))


def label_counts(labelled: np.ndarray, predicted: np.ndarray, *, class_names: Sequence[str]) -> Markup:
    """Rows labelled as, and rows predicted as, each class: two int [K], as pairs of bars."""
    place = np.arange(len(class_names))

    def paint(axes: Axes) -> None:
        axes.grid(visible=False, axis="y")
        axes.barh(place - 0.2, labelled, 0.38, color=PALETTE[0], label="labelled")
        axes.barh(place + 0.2, predicted, 0.38, color=PALETTE[4], label="predicted, score over 0.5")
        axes.set_yticks(place, [shortened(name) for name in class_names])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.margins(y=0.02)
        axes.set(xlabel="validation rows")
        axes.figure.legend(loc="outside upper left", fontsize=8, ncols=2)

    description = "Rows labelled as and predicted as each class"
    return draw(paint, name="counts", description=description, inches=(4.0, 1.1 + 0.26 * len(class_names)))


def calibration(measured: Reliability) -> Markup:
    """A reliability diagram: how often the answers of a confidence were right."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, label="perfectly calibrated")
        axes.plot(measured.confidence, measured.observed, color=PALETTE[0], linewidth=1)
        area = 15 + 120 * np.sqrt(measured.answers / measured.answers.max())
        label = "measured; area by answers"
        axes.scatter(measured.confidence, measured.observed, area, color=PALETTE[0], alpha=0.8, label=label)
        axes.set(xlabel="score", ylabel="share that is right", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.figure.legend(loc="outside upper left", fontsize=8, ncols=2, markerscale=0.6)

    return draw(paint, name="calibration", description="Reliability diagram", inches=(4.0, 3.3))


def _short(count: int) -> str:
    """At most five characters of a count up to 9 999 999."""
    return f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f}k"


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 400 points, gaps apart: a longer curve by the medians of equal runs of points."""
    if np.count_nonzero(~np.isnan(x)) <= _MOST_POINTS:
        return x, y
    runs = list(zip(np.array_split(x, _MOST_POINTS), np.array_split(y, _MOST_POINTS), strict=True))
    return np.array([np.median(a) for a, _ in runs]), np.array([np.median(b) for _, b in runs])
