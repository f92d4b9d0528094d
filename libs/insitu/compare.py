"""`insitu compare DIR DIR…`: model directories side by side."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from insitu import artifact
from insitu.cluster.filesystem import open_filesystem
from insitu.errors import UserError
from insitu.report.charts import Line, lines
from insitu.report.classes import MOST_CLASSES
from insitu.report.page import duration, number, render
from insitu.report.predictions import validated_rows
from insitu.report.progress import validation
from insitu.report.runs import Run, flattened, read_run

_METRICS = ("accuracy", "auc_macro", "loss")
_NARROW = ("Validation accuracy", "Validation macro AUC")  # read best near their own values
_INCOMPARABLE = "The runs were validated on different rows: their metrics cannot be compared."
_FINGERPRINT = 12  # digits
_ABSENT = "–"  # noqa: RUF001 - an en dash is meant


@dataclass(frozen=True)
class Row:
    """One thing of every run, as text; `best` holds the places of the runs with the best value of a metric."""

    name: str
    cells: list[str]
    best: frozenset[int] = frozenset()


def compare(directories: Sequence[str], *, output: str | None = None) -> dict[str, Any]:
    """Verify model directories and print what they reached, and in what their recipes differ.

    Args:
        directories: two or more, by path or URI.
        output: an HTML page to make, with the curves of the runs over each other; nothing may be there yet.

    Returns:
        `runs` (`directory`, `model`, `task`, `metrics`, `images_per_second`, `seconds`, `epochs`,
        `workers` of each), `recipe_differences` (the runs' values by dotted key, None where a recipe
        has no such key) and `output`.

    Raises:
        UserError: fewer than two directories, one named twice, no model directory or a damaged one, or
            something at `output` already.
    """
    _check(directories)
    if output is not None:
        artifact.check_free(output)
    runs, validated = zip(*map(_read, directories), strict=True)
    comparable = len(set(validated)) == 1
    names = [f"{i}: {uri.rstrip('/').rpartition('/')[2]}" for i, uri in enumerate(directories, 1)]
    differences = _differences([flattened(run.recipe) for run in runs])
    results = _result_rows(runs, comparable=comparable)
    settings = [Row(key, _texts(values)) for key, values in differences.items()]
    _print(directories, names, results, settings)
    if not comparable:
        print(f"\n{_INCOMPARABLE}")
    if output is not None:
        charts = _charts(names, runs)
        _write(
            render(
                "compare.html",
                directories=directories,
                names=names,
                tables={"Results": results, "Recipe differences": settings},
                warning="" if comparable else _INCOMPARABLE,
                charts=charts,
            ),
            output,
        )
    summaries = [_summary(directory, run) for directory, run in zip(directories, runs, strict=True)]
    return {"runs": summaries, "recipe_differences": differences, "output": output}


def _check(directories: Sequence[str]) -> None:
    if len(directories) < 2:
        raise UserError("DIR", f"{len(directories)} model directory, expected two or more", "name another run's")
    twice = [directory for directory in directories if directories.count(directory) > 1]
    if twice:
        raise UserError("DIR", f"{twice[0]} is named twice", "name each model directory once")


def _read(directory: str) -> tuple[Run, tuple[str, str]]:
    """A run, and what names the rows that its metrics are of."""
    with artifact.verified(directory, setting="DIR", part=artifact.MODEL) as local:
        run = read_run(local)
        return run, (run.provenance["data"]["fingerprint"], validated_rows(local / artifact.PREDICTIONS))


def _differences(recipes: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The keys whose values are not the same in all recipes, in the recipes' order."""
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    values = {key: [recipe.get(key) for recipe in recipes] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _result_rows(runs: Sequence[Run], *, comparable: bool) -> list[Row]:
    facts = [run.provenance["run"] for run in runs]
    metric_row = partial(_metric_row, comparable=comparable)
    shared = [name for name in runs[0].class_names if all(name in run.class_names for run in runs)]
    return [
        Row("model", [run.recipe["model"]["name"] for run in runs]),
        Row("task", [run.signature.task for run in runs]),
        Row("data", [run.provenance["data"]["fingerprint"][:_FINGERPRINT] for run in runs]),
        Row("validation rows", _texts([run.provenance["data"]["rows"]["validation"] for run in runs])),
        *(metric_row(name, [run.metrics[name] for run in runs]) for name in _METRICS),
        *(metric_row(f"auc {name}", [run.metrics["auc"][name] for run in runs]) for name in shared[:MOST_CLASSES]),
        Row("images/s", [number(run.images_per_second, 1) for run in runs]),
        Row("time", [duration(fact["seconds"]) for fact in facts]),
        *(Row(name, _texts([fact[name] for fact in facts])) for name in ("epochs", "steps", "workers", "precision")),
    ]


def _metric_row(name: str, values: list[float | None], *, comparable: bool) -> Row:
    """`best` is of runs that were validated on the same rows."""
    if not comparable:
        return Row(name, [number(value, 4) for value in values])
    defined = [value for value in values if value is not None]
    best = (min if name == "loss" else max)(defined) if defined else None
    places = frozenset(place for place, value in enumerate(values) if value is not None and value == best)
    return Row(name, [number(value, 4) for value in values], places)


def _texts(values: list[Any]) -> list[str]:
    """Values as the recipe writes them."""
    return [_ABSENT if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]


def _print(directories: Sequence[str], names: list[str], results: list[Row], settings: list[Row]) -> None:
    for place, directory in enumerate(directories, 1):
        print(f"{place}: {directory}")
    table = [["", *names], *([row.name, *row.cells] for row in [*results, *settings])]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print()
    for first, *cells in table:
        padded = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
        print("  ".join([f"{first:<{widths[0]}}", *padded]))


def _charts(names: list[str], runs: Sequence[Run]) -> list[Any]:
    """The runs' curves over each other, by epoch."""
    shown = {
        "Training loss": [[line["loss"] for line in run.history] for run in runs],
        "Validation loss": [validation(run, "loss") for run in runs],
        "Validation accuracy": [validation(run, "accuracy") for run in runs],
        "Validation macro AUC": [validation(run, "auc_macro") for run in runs],
        "Learning rate": [[line["learning_rate"] for line in run.history] for run in runs],
        "Images/s, all workers": [[line["images_per_second"] for line in run.history] for run in runs],
    }
    return [
        lines(
            [
                Line(name, [line["epoch"] + 1 for line in run.history], values)
                for name, run, values in zip(names, runs, curves, strict=True)
            ],
            name=f"chart{place}",
            title=title,
            x_label="epoch",
            from_zero=title not in _NARROW,
        )
        for place, (title, curves) in enumerate(shown.items())
    ]


def _write(page: str, output: str) -> None:
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        local = Path(scratch) / "compare.html"
        local.write_text(page)
        file_system, path = open_filesystem(output)
        file_system.makedirs(path.rpartition("/")[0] or "/", exist_ok=True)
        artifact.upload(local, output)


def _summary(directory: str, run: Run) -> dict[str, Any]:
    facts = run.provenance["run"]
    return {
        "directory": directory,
        "model": run.recipe["model"]["name"],
        "task": run.signature.task,
        "metrics": {name: run.metrics[name] for name in _METRICS},
        "images_per_second": run.images_per_second,
        **{name: facts[name] for name in ("seconds", "epochs", "workers")},
    }
