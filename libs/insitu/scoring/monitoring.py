"""What a batch was like, beside what the model was validated on.

Legend: M models, K classes of a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from insitu import artifact
from insitu.cluster.filesystem import open_filesystem
from insitu.scoring.drift import drifts
from insitu.scoring.row_scorer import HEIGHT, MEAN, SCORES, WIDTH
from insitu.scoring.shipped import ShippedModel

RECORD = "record.json"
INPUTS = (MEAN, HEIGHT, WIDTH)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST_ROWS = 2000

Reference = Mapping[str, np.ndarray]
"""By statistic its values, NaN where a row has none: those of `INPUTS`, and `score of CLASS` for each class."""


def read_reference(directory: str, class_names: Sequence[str]) -> Reference | None:
    """What jobs/train_cnn.py has kept of the validation rows; None in a model directory without it."""
    file_system, path = open_filesystem(f"{directory}/{artifact.REFERENCE}")
    if not file_system.exists(path):
        return None
    with file_system.open(path, "rb") as source:
        table = pq.read_table(source)
    scores = np.array(table["scores"].to_pylist(), np.float64)
    return _statistics({name: table[name].to_pylist() for name in INPUTS}, scores, class_names)


def monitored(
    results: DataFrame,
    scored: Sequence[DataFrame],
    models: Sequence[ShippedModel],
    references: Sequence[Reference | None],
) -> dict[str, Any]:
    """What `record.json` says of the rows that could be read.

    Args:
        results: `place` and `result` (`row_scorer.RESULT`) of those rows; stored.
        scored: of each model the rows' `decision`s.
        models: M.
        references: of each model.

    Returns:
        `inputs`: by statistic its `QUANTILES`, none with bigdl; `models`: for each `model`, `precision`, by class
        `label_rate` (share of the rows) and `scores` (`QUANTILES`), and `drift`: of each `statistic` `psi`, `ks`, `p`
        and `alarm`; None where the model has no reference. All but the label rate are of at most 2000 rows, drawn by
        hash.
    """
    drawn = results.orderBy(F.xxhash64("place")).limit(_MOST_ROWS).select("result.*").collect()
    return {
        "inputs": {name: found for name in INPUTS if (found := _quantiles([row[name] for row in drawn]))},
        "models": [
            _of_model(place, model, rows, drawn, reference, INPUTS if _reads_alike(model, models[0]) else ())
            for place, (model, rows, reference) in enumerate(zip(models, scored, references, strict=True))
        ],
    }


def _reads_alike(model: ShippedModel, first: ShippedModel) -> bool:
    """The inputs' statistics are of what the first model reads."""
    return model.signature.preprocessing == first.signature.preprocessing


def _of_model(
    place: int,
    model: ShippedModel,
    rows: DataFrame,
    drawn: Sequence[Row],
    reference: Reference | None,
    inputs: Sequence[str],
) -> dict[str, Any]:
    names = model.signature.class_names
    rates = rows.agg(*(F.avg(F.array_contains("decision", name).cast("int")) for name in names)).first()
    assert rates is not None
    scores = np.array([row[SCORES][place] for row in drawn], np.float64).reshape(-1, len(names))
    recent = _statistics({name: [row[name] for row in drawn] for name in inputs}, scores, names)
    return {
        "model": model.id,
        "precision": model.precision,
        "label_rate": dict(zip(names, rates, strict=True)),
        "scores": {name: _quantiles(scores[:, k]) for k, name in enumerate(names)},
        "drift": None
        if reference is None
        else [{**asdict(drift), "alarm": drift.alarms} for drift in drifts(reference, recent)],
    }


def _statistics(
    inputs: Mapping[str, Sequence[float | None]], scores: np.ndarray, class_names: Sequence[str]
) -> dict[str, np.ndarray]:
    found = {name: np.array(values, np.float64) for name, values in inputs.items()}
    return found | {f"score of {name}": scores[:, k] for k, name in enumerate(class_names)}


def _quantiles(values: Sequence[float | None] | np.ndarray) -> list[float]:
    """`QUANTILES` of what is not null; of nothing, none."""
    found = np.array(values, np.float64)
    found = found[np.isfinite(found)]
    return np.quantile(found, QUANTILES).round(6).tolist() if len(found) else []
