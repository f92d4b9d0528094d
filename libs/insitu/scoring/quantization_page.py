"""The page of a quantised model directory: what each form of the network reaches, and what it takes.

Legend: K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from insitu import artifact
from insitu.report.classes import MOST_CLASSES
from insitu.report.figure import INK, PALETTE, draw, shortened
from insitu.report.page import render
from insitu.report.runs import by_section, read_run

_NAMES = {"auc_macro": ("macro AUC", "AUC"), "accuracy": ("accuracy", "recall")}
_MARKERS = "osD^"


@dataclass(frozen=True)
class ClassRow:
    """A class, with its AUC or recall in each form, None where that is not defined."""

    name: str
    values: list[float | None]

    @property
    def change(self) -> float | None:
        """From the first form to the last."""
        first, last = self.values[0], self.values[-1]
        return None if first is None or last is None else last - first


def write_page(directory: Path) -> None:
    """Write `quantization.html`, one file that needs no other and no JavaScript.

    Args:
        directory: a local model directory, not yet published, whose provenance says how it was quantised.
    """
    run = read_run(directory)
    facts = run.provenance["quantization"]
    metric, of_class = _NAMES[facts["metric"]]
    rows = _class_rows(facts["found"])
    shown = rows[:MOST_CLASSES]
    told = ("of_model", "started", "max_drop", "data", "calibration", "compression", "code", "environment")
    page = render(
        "quantization.html",
        run=run,
        facts=facts,
        metric=metric,
        of_class=of_class,
        classes=shown,
        all_classes=len(rows),
        chart=_chart(shown, list(facts["found"]), of_class),
        sections=by_section({name: facts[name] for name in told}),
    )
    (directory / artifact.QUANTIZATION).write_text(page)


def _class_rows(found: dict[str, Any]) -> list[ClassRow]:
    """Those that drop most first; those without a change last."""
    forms = [measured["by_class"] for measured in found.values()]
    rows = [ClassRow(name, [form[name] for form in forms]) for name in forms[0]]
    return sorted(rows, key=lambda row: (row.change is None, row.change))


def _chart(rows: Sequence[ClassRow], forms: Sequence[str], of_class: str) -> Markup | None:
    """How far each form is from the first one, a class a line; None where no class has a change."""
    defined = [row for row in rows if row.change is not None]
    if not defined:
        return None
    values = np.array([row.values for row in defined], float)  # [K, forms]
    changes, place = values - values[:, :1], np.arange(len(defined))

    def paint(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        offsets = 0.18 * (np.arange(1, len(forms)) - len(forms) / 2)
        styles = zip(PALETTE, _MARKERS, strict=False)
        for form, change, offset, (colour, marker) in zip(forms[1:], changes.T[1:], offsets, styles, strict=False):
            axes.plot(change, place + offset, marker, color=colour, label=form)
        axes.set_yticks(place, [shortened(row.name) for row in defined])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set(xlabel=f"change of {of_class} from {forms[0]}")
        axes.figure.legend(loc="outside upper left", fontsize=8, ncols=len(forms) - 1)

    description = f"Change of {of_class} by class: {', '.join(forms[1:])} against {forms[0]}"
    return draw(paint, name="changes", description=description, inches=(4.0, 1.1 + 0.3 * len(defined)))
