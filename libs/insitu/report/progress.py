"""The charts of a run's progress: learning curves, learning rate, throughput."""

from typing import Any

from markupsafe import Markup

from insitu.report.charts import Line, lines
from insitu.report.runs import Run

_EPOCH = "epoch"
_STEP = "step"


def learning_charts(run: Run, steps: list[dict[str, Any]]) -> list[Markup]:
    """Loss and validation metrics by epoch, learning rate by step."""
    marks = [(run.kept_epoch + 1, "kept weights")] if run.kept_epoch < len(run.history) - 1 else []
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
    """Images a second over all workers by step, with the steps from which the run was started again."""
    measured = _by_step(steps, "images_per_second", name="each second")
    epochs = _by_step(run.history, "images_per_second", name="each epoch")
    return lines(
        [curve for curve in (measured, epochs) if curve.x],
        name="throughput",
        title="Images/s, all workers",
        x_label=_STEP,
        marks=[(restart["step"], "started again") for restart in run.provenance["restarts"]],
        from_zero=True,
    )


def validation(run: Run, name: str) -> list[float | None]:
    """A validation metric by epoch."""
    return [line["validation"][name] for line in run.history]


def _epochs(run: Run) -> list[float]:
    return [line["epoch"] + 1 for line in run.history]


def _by_step(lines_: list[dict[str, Any]], key: str, *, name: str = "") -> Line:
    """In the order of steps: after a restart, the steps since the last checkpoint are made once more."""
    ordered = sorted(lines_, key=lambda line: line["step"])
    return Line(name or key, [line["step"] for line in ordered], [line[key] for line in ordered])
