"""The charts of a run's progress: learning curves, learning rate, throughput."""

from typing import Any

import numpy as np
from markupsafe import Markup

from insitu.report.charts import Line, lines, thinned
from insitu.report.runs import Run

_EPOCH = "epoch"
_STEP = "step"
_UNITS = (("seconds", 1), ("minutes", 60), ("hours", 3600), ("days", 86400), ("years", 365 * 86400))
_MOST_UNITS = 300  # on an axis


def learning_charts(run: Run, steps: list[dict[str, Any]]) -> list[Markup]:
    """Loss and validation metrics by epoch, learning rate by step."""
    marks = [(run.kept_epoch + 1, "kept weights")] if run.kept_epoch < run.history[-1]["epoch"] else []
    loss = [
        Line("training", _epochs(run), [line["loss"] for line in run.history]),
        Line("validation", _epochs(run), validation(run, "loss")),
    ]
    metrics = [
        Line(title, _epochs(run), validation(run, name))
        for name, title in (("accuracy", "accuracy"), ("auc_macro", "macro AUC"))
        if any(value is not None for value in validation(run, name))
    ]
    rate = _by_step(steps or run.history, "learning_rate")
    return [
        lines(loss, name="loss", title="Loss", x_label=_EPOCH, marks=marks),
        lines(metrics, name="metrics", title="Validation metrics", x_label=_EPOCH, marks=marks),
        lines([rate], name="rate", title="Learning rate", x_label=_STEP, from_zero=True),
    ]


def throughput_chart(run: Run, steps: list[dict[str, Any]]) -> Markup:
    """Images a second over all workers by the time since the run began: what stops the training leaves a gap.

    Args:
        run: says when it was started again.
        steps: one or more, a line in ten seconds.
    """
    x = np.array([line["seconds"] for line in steps])
    speeds = np.array([line["images_per_second"] for line in steps])
    end = max(x[-1], *run.started_again, 0)
    unit, seconds = next(unit for unit in _UNITS if end < _MOST_UNITS * unit[1])
    epochs = np.interp([line["step"] for line in run.history], [line["step"] for line in steps], x)
    return lines(
        [
            _with_gaps("every ten seconds", *thinned(x / seconds, speeds)),
            Line("each epoch", list(epochs / seconds), [line["images_per_second"] for line in run.history]),
        ],
        name="throughput",
        title="Images/s, all workers",
        x_label=f"{unit} since the run began",
        marks=[(at / seconds, "started again") for at in run.started_again],
        from_zero=True,
    )


def validation(run: Run, name: str) -> list[float | None]:
    """A validation metric by epoch."""
    return [line["validation"][name] for line in run.history]


def _epochs(run: Run) -> list[float]:
    return [line["epoch"] + 1 for line in run.history]


def _with_gaps(name: str, x: np.ndarray, y: np.ndarray) -> Line:
    """A curve that ends and begins anew where nothing is known for three times as long as is usual."""
    between = np.diff(x)
    gaps = 1 + np.flatnonzero(between > 3 * np.median(between)) if len(x) > 1 else np.array([], int)
    return Line(name, list(np.insert(x, gaps, np.nan)), list(np.insert(y, gaps, np.nan)))


def _by_step(lines_: list[dict[str, Any]], key: str) -> Line:
    """In the order of steps: after a restart, the steps since the last checkpoint are made once more."""
    ordered = sorted(lines_, key=lambda line: line["step"])
    return Line(key, [line["step"] for line in ordered], [line[key] for line in ordered])
