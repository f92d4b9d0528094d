"""The history of a scored folder, from its records to `monitoring.html`."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from insitu import artifact
from insitu.cluster.filesystem import open_filesystem
from insitu.scoring.monitoring import RECORD
from insitu.scoring.outbox import MONITORING, RUNS, SCORES

PAGE = "monitoring.html"
_MOST_BATCHES = 500
_MOST_ROWS = 50


def write_page(output: str) -> None:
    """Draw the last 500 batches, as one file that needs no other and no JavaScript.

    Args:
        output: URI of what `score_batch` writes to; gets `monitoring.html` in the place of the one that is there.
    """
    from insitu.report.page import render  # here: its libraries take two seconds to load
    from insitu.scoring import charts

    records = _records(output)
    models = {model["model"]: model for record in records for model in record["models"]}
    page = render(
        "monitoring.html",
        output=output,
        records=records,
        last=records[-1],
        last_alarms=len(_alarms(records[-1])),
        alarms=[alarm for record in records for alarm in _alarms(record)][::-1][:_MOST_ROWS],
        shown=records[::-1][:_MOST_ROWS],
        runs=_runs(output),
        speed=charts.speed(records),
        bad=charts.bad_rows(records),
        inputs=charts.inputs(records),
        models=[
            {
                "id": identity,
                "precision": model["precision"],
                "labels": charts.label_rates(records, identity),
                "drift": charts.drift(records, identity),
            }
            for identity, model in models.items()
        ],
    )
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        local = Path(scratch) / PAGE
        local.write_text(page)
        artifact.upload(local, f"{output}/{PAGE}")


def _records(output: str) -> list[dict[str, Any]]:
    """Of the last batches that are whole, in their order."""
    file_system, path = open_filesystem(output)
    places = sorted(place.rstrip("/").rpartition("/")[2] for place in file_system.ls(f"{path}/{SCORES}", detail=False))
    batches = [place for place in places if place.startswith("batch=")][-_MOST_BATCHES:]
    return [json.loads(file_system.cat_file(f"{path}/{MONITORING}/{batch}/{RECORD}")) for batch in batches]


def _runs(output: str) -> list[dict[str, Any]]:
    """What became of the last runs, the newest first."""
    file_system, path = open_filesystem(f"{output}/{RUNS}")
    newest = sorted(file_system.ls(path, detail=False), reverse=True)[:_MOST_ROWS]
    return [json.loads(file_system.cat_file(place)) for place in newest]


def _alarms(record: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    return [
        {**drift, "batch": record["batch"], "model": model["model"]}
        for model in record["models"]
        for drift in model["drift"] or ()
        if drift["alarm"]
    ]
