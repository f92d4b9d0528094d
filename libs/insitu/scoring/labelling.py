"""Rows that people should label next, for training to go on with."""

from typing import Literal, get_args

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from insitu.errors import UserError
from insitu.scoring.dataframes import quoted
from insitu.scoring.inbox import ID, PLACE, SOURCE
from insitu.scoring.monitoring import INPUTS, Reference
from insitu.scoring.row_scorer import SCORES
from insitu.scoring.shipped import ShippedModel
from insitu.scoring.thresholds import Thresholds

LabelBy = Literal["uncertain", "drifted"]
LABEL_BY: tuple[LabelBy, ...] = get_args(LabelBy)
SCORED = "scored"
_CHOSEN = "insitu chosen"


def rows_to_label(
    rows: DataFrame,
    results: DataFrame,
    *,
    most: int,
    by: LabelBy,
    model: ShippedModel,
    thresholds: Thresholds,
    reference: Reference | None,
) -> DataFrame:
    """The most uncertain rows, those nearest to another decision, or those least like the validation rows.

    Args:
        rows: as `inbox.read_rows` gives them.
        results: `id`, `source`, `place`, `by` and `result` (`row_scorer.RESULT`) of those that could be read; stored.
        most: rows.
        by: uncertain or drifted.
        model: the first one.
        thresholds: of its decisions.
        reference: the model's; not None where drifted ones are wanted.

    Returns:
        the rows' own columns and `scored`: a structure of `id`, `source`, `model`, `scores` (map<string, float>) and
        `margin`, the distance from another decision, or `distance` from the validation rows.
    """
    names, scores = model.signature.class_names, F.col("result")[SCORES][0]
    if by == "uncertain":
        one_label = model.signature.task == "multiclass"
        margin = thresholds.margin(scores, names, one_label=one_label, by=F.col("by"))
        measure, first = margin.alias("margin"), F.asc("margin")
    else:
        assert reference is not None
        measure, first = _distance(reference).alias("distance"), F.desc("distance")
    by_class = F.map_from_arrays(F.array(*map(F.lit, names)), scores).alias("scores")
    columns = [F.col("id"), F.col("source"), F.lit(model.id).alias("model"), by_class, measure]
    told = results.select("place", *columns)
    chosen = told.orderBy(first, "place").limit(most)
    scored = F.struct(*(name for name in chosen.columns if name != "place")).alias(SCORED)
    chosen = chosen.select(F.col("place").alias(_CHOSEN), scored)
    return rows.join(F.broadcast(chosen), rows[quoted(PLACE)] == chosen[_CHOSEN]).drop(ID, SOURCE, PLACE, _CHOSEN)


def check_can_label(rows: DataFrame) -> None:
    """Raise `UserError` where rows have a column `scored` of their own."""
    if SCORED in (column.lower() for column in rows.columns):
        raise UserError("--send-to-label", f"the data has a column {SCORED}", "rename it, or leave the setting out")


def _distance(reference: Reference) -> Column:
    """The largest of the input statistics' distances from their medians, in widths of the middle half."""
    distances = []
    for name in INPUTS:
        values = reference[name][np.isfinite(reference[name])]
        if len(values):
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
            width = max(high - low, 0.01 * abs(middle), 1e-6)
            distances.append(F.abs(F.col("result")[name] - F.lit(float(middle))) / F.lit(float(width)))
    return F.array_max(F.array(*distances))
