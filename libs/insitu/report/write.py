"""The report of a run: from the files of a model directory to `report/index.html`.

Legend: H, W height and width, C channels.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from insitu import artifact
from insitu.cluster.threads import core_ranges
from insitu.report import charts, roc
from insitu.report.calibration import reliability
from insitu.report.classes import MOST_CLASSES, MOST_CONFUSED, ClassTable, class_table, most_confused
from insitu.report.gallery import gallery
from insitu.report.page import render
from insitu.report.predictions import Predictions, read_predictions
from insitu.report.progress import learning_charts, throughput_chart
from insitu.report.runs import Run, by_section, read_lines, read_run

if TYPE_CHECKING:
    import keras

REPORT = "report/index.html"


def write_report(
    directory: Path,
    *,
    model: "keras.Model",
    read_images: Callable[[Sequence[int]], list[np.ndarray]] | None,
) -> None:
    """Write `report/index.html`, one file that needs no other and no JavaScript.

    Args:
        directory: a local model directory, not yet published, with `recipe.yaml`, `signature.json`,
            `metrics.json`, `provenance.json` (with `drivers`), `history.jsonl`,
            `steps.jsonl` (may be empty) and `predictions.parquet`.
        model: what made the predictions.
        read_images: gives the uint8 [H, W, C] images of rows of `predictions.parquet`, as the model
            gets them; None where it reads none, and no prediction is pictured.
    """
    run = read_run(directory)
    steps = read_lines(directory / artifact.STEPS)
    predictions = read_predictions(directory / artifact.PREDICTIONS)
    classes = class_table(predictions, class_names=run.class_names, aucs=run.metrics["auc"])
    measured = reliability(predictions)
    page = render(
        "report.html",
        run=run,
        tiles=_tiles(run, classes),
        ended=_ended(run),
        learning=learning_charts(run, steps),
        classes=classes,
        roc_curves=_roc_curves(predictions, classes),
        answers=_answers_chart(predictions, run, classes),
        calibration=charts.calibration(measured),
        reliability=measured,
        groups=read_images and gallery(predictions, run.class_names, model=model, read_images=read_images),
        throughput=throughput_chart(run, steps) if steps else None,
        thread_plans=_thread_plans(run),
        provenance=_provenance(run),
        recipe=(directory / artifact.RECIPE).read_text(),
        limits={"classes": MOST_CLASSES, "confused": MOST_CONFUSED},
        bootstrap={"resamples": roc.RESAMPLES, "seed": roc.SEED},
        multilabel=predictions.multilabel,
        rows=len(predictions.scores),
    )
    (directory / REPORT).parent.mkdir()
    (directory / REPORT).write_text(page)


def _tiles(run: Run, classes: ClassTable) -> list[tuple[str, str, str]]:
    """Name, value and note of each number at the top; the run's headline comes first."""
    metrics, facts = run.metrics, run.provenance["run"]
    macro = f"95 % interval {classes.macro[0]:.3f} to {classes.macro[1]:.3f}" if classes.macro else "mean over classes"
    tiles = {
        "auc_macro": (
            "Macro AUC",
            f"{metrics['auc_macro']:.3f}" if metrics["auc_macro"] is not None else "none",
            macro,
        ),
        "accuracy": ("Accuracy", f"{metrics['accuracy']:.1%}", _accuracy_note(run)),
    }
    first = tiles.pop(run.headline)
    return [
        first,
        *tiles.values(),
        ("Validation loss", f"{metrics['loss']:.3f}", "cross-entropy"),
        ("Throughput", f"{run.images_per_second:,.0f}", "images/s, median epoch"),
        ("Workers", str(facts["workers"]), f"{facts['precision']}, {facts['steps']:,} steps"),
    ]


def _accuracy_note(run: Run) -> str:
    return "of all labels, score over 0.5" if run.signature.task == "multilabel" else "of the validation rows"


def _ended(run: Run) -> str:
    """How many epochs there were, and which one's weights were kept."""
    planned, made, last = run.recipe["training"]["epochs"], len(run.history), run.history[-1]["epoch"] + 1
    trained = f"All {planned} epochs were trained" if planned > 1 else "One epoch was trained"
    if last < planned:
        trained = f"Stopped early, after epoch {last} of {planned}"
    elif made < planned:
        trained = f"{made} of {planned} epochs were trained: with a frozen trunk it stopped early"
    kept = "" if last == planned == run.kept_epoch + 1 else f"; the weights of epoch {run.kept_epoch + 1} were kept"
    return f"{trained}{kept}."


def _roc_curves(predictions: Predictions, classes: ClassTable) -> list[dict[str, Any]]:
    """Each class that has both labels, with its curve."""
    return [
        {
            "row": row,
            "chart": charts.roc(
                *roc.curve(predictions.truth(row.index), predictions.scores[:, row.index]),
                name=f"roc{row.index}",
                class_name=row.name,
            ),
        }
        for row in classes.rows
        if row.auc is not None
    ]


def _answers_chart(predictions: Predictions, run: Run, classes: ClassTable) -> Any:
    """Label counts of a multilabel run, the confusion matrix of a multiclass one."""
    if predictions.multilabel:
        return charts.label_counts(
            np.array([row.labelled for row in classes.rows]),
            np.array([row.predicted for row in classes.rows]),
            class_names=[row.name for row in classes.rows],
        )
    shown = most_confused(predictions)
    return charts.confusion(predictions.confusion(shown), class_names=[run.class_names[k] for k in shown])


def _thread_plans(run: Run) -> list[dict[str, Any]]:
    """The workers of each driver, with the step that it began at; of drivers with the same workers the first's."""
    plans: list[dict[str, Any]] = []
    for driver in run.provenance["drivers"]:
        workers = [{**worker, "cores": core_ranges(worker["cores"])} for worker in driver["workers"]]
        if workers and (not plans or workers != plans[-1]["workers"]):
            openmp = {" ".join(f"{name}={value}" for name, value in worker["openmp"].items()) for worker in workers}
            plans.append({"first_step": driver["first_step"], "workers": workers, "openmp": sorted(openmp - {""})})
    return plans


def _provenance(run: Run) -> dict[str, dict[str, Any]]:
    """The provenance by section, without what has a table of its own."""
    told = {name: value for name, value in run.provenance.items() if name != "drivers"}
    return by_section(told)
