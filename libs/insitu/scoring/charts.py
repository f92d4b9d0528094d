"""The charts of a scored folder's history, each from its records (see `monitoring`) to one inline SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from insitu.report.charts import Line, lines
from insitu.report.figure import FAINT, PALETTE, draw, shortened
from insitu.scoring.drift import PSI_ALARM
from insitu.scoring.row_scorer import HEIGHT, MEAN, WIDTH

Record = Mapping[str, Any]

_MOST_CURVES = 6
_TITLES = {MEAN: "Mean of an input (of an image: brightness, 0 to 1)", HEIGHT: "Height, pixels", WIDTH: "Width, pixels"}


def speed(records: Sequence[Record]) -> Markup:
    curve = Line("images/s", _batches(records), [record["images_per_second"] for record in records])
    return lines([curve], name="speed", title="Images a second, all included", x_label="batch", from_zero=True)


def bad_rows(records: Sequence[Record]) -> Markup:
    shares = [100 * record["quarantined"] / max(record["rows"], 1) for record in records]
    curve = Line("quarantined", _batches(records), shares)
    return lines([curve], name="bad", title="Quarantined, % of the rows", x_label="batch", from_zero=True)


def inputs(records: Sequence[Record]) -> list[Markup]:
    """A chart for each input statistic: the middle 90 % and 50 % of the rows, and the median."""
    return [
        _band(records, name, title) for name, title in _TITLES.items() if any(r["inputs"].get(name) for r in records)
    ]


def label_rates(records: Sequence[Record], model: str) -> Markup:
    """The share of rows that is decided for each class, of the six most frequent."""
    own = _of_model(records, model)
    rates = {name: [entry["label_rate"][name] for _, entry in own] for name in own[-1][1]["label_rate"]}
    frequent = sorted(rates, key=lambda name: -np.nansum(np.array(rates[name], float)))[:_MOST_CURVES]
    batches = [batch for batch, _ in own]
    percent = [Line(name, batches, [None if rate is None else 100 * rate for rate in rates[name]]) for name in frequent]
    title = "Decided for, % of the rows"
    return lines(percent, name=f"labels-{model}", title=title, x_label="batch", from_zero=True)


def drift(records: Sequence[Record], model: str) -> Markup | None:
    """The stability index of each statistic down and batch across; an alarm is marked. None without a reference."""
    own = [(batch, entry["drift"]) for batch, entry in _of_model(records, model) if entry["drift"]]
    if not own:
        return None
    names = list(dict.fromkeys(found["statistic"] for _, drifts in own for found in drifts))
    index = np.full((len(names), len(own)), np.nan)
    alarms = []
    for column, (_, drifts) in enumerate(own):
        for found in drifts:
            row = names.index(found["statistic"])
            index[row, column] = found["psi"]
            if found["alarm"]:
                alarms.append((column + 0.5, row + 0.5))

    def paint(axes: Axes) -> None:
        axes.grid(visible=False)
        mesh = axes.pcolormesh(index, cmap="YlOrBr", vmin=0, vmax=2 * PSI_ALARM, edgecolor=FAINT, linewidth=0.4)
        if alarms:
            across, down = zip(*alarms, strict=True)
            axes.scatter(across, down, s=14, color="white", marker="x", linewidth=1.2)
        axes.set_yticks(np.arange(len(names)) + 0.5, [shortened(name) for name in names])
        marks = MaxNLocator(nbins=8, integer=True).tick_values(0, len(own) - 1)
        places = [int(mark) for mark in marks if 0 <= mark < len(own)]
        axes.set_xticks([place + 0.5 for place in places], [str(own[place][0]) for place in places])
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.set(xlabel="batch")
        axes.figure.colorbar(mesh, ax=axes, extend="max", label="PSI", pad=0.01, aspect=30)

    inches = (10.5, 1.0 + 0.22 * len(names))
    return draw(
        paint, name=f"drift-{model}", description="Population stability index by statistic and batch", inches=inches
    )


def _band(records: Sequence[Record], name: str, title: str) -> Markup:
    own = [(record["batch"], record["inputs"][name]) for record in records if record["inputs"].get(name)]
    batches, quantiles = np.array([batch for batch, _ in own]), np.array([values for _, values in own]).T
    lowest, low, middle, high, highest = quantiles

    def paint(axes: Axes) -> None:
        axes.fill_between(batches, lowest, highest, color=PALETTE[0], alpha=0.15, linewidth=0, label="middle 90 %")
        axes.fill_between(batches, low, high, color=PALETTE[0], alpha=0.3, linewidth=0, label="middle 50 %")
        axes.plot(batches, middle, color=PALETTE[0], marker="o" if len(own) <= 30 else "", label="median")
        axes.set(title=title, xlabel="batch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.legend(fontsize=8)

    return draw(paint, name=name, description=f"{title} by batch")


def _batches(records: Sequence[Record]) -> list[int]:
    return [record["batch"] for record in records]


def _of_model(records: Sequence[Record], model: str) -> list[tuple[int, Record]]:
    return [(record["batch"], entry) for record in records for entry in record["models"] if entry["model"] == model]
