"""Recent rows without labels, scored by two models: whether they decide alike."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from insitu.cluster.failures import workers_user_errors
from insitu.cluster.progress import running_tasks, shown
from insitu.errors import UserError
from insitu.scoring.columns import find_input
from insitu.scoring.dataframes import quoted, with_results
from insitu.scoring.holdout import CANDIDATE, CURRENT
from insitu.scoring.inbox import ID, files_below, is_empty, named_column, read_rows
from insitu.scoring.row_scorer import COLUMN, FAULT, SCORES
from insitu.scoring.shipped import ShippedModel
from insitu.scoring.thresholds import Thresholds

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_BY = "by"
_DAY_SECONDS = 86_400
_ROLES = (CURRENT, CANDIDATE)


@dataclass(frozen=True)
class ClassShares:
    """Of the rows that both models read: the shares for which each decides for a class, and in which they agree."""

    current: float
    candidate: float
    agreement: float


@dataclass(frozen=True)
class OnReplay:
    """How the candidate's decisions differ from the current version's.

    Attributes:
        uri: of the folder.
        rows: of the files that can be read.
        read: rows that both models read.
        lost: rows that the current version reads and the candidate does not.
        first_lost: one of these and why, or "".
        agreement: the share of `read` with the same decision, of all classes.
        classes: by name.
    """

    uri: str
    rows: int
    read: int
    lost: int
    first_lost: str
    agreement: float
    classes: Mapping[str, ClassShares]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare_on_replay(
    spark: "SparkSession",
    data: str,
    models: Mapping[str, ShippedModel],
    *,
    days: float,
    thresholds: Thresholds,
    image_column: str | None,
    tensor_column: str | None,
) -> OnReplay:
    """Score a folder of files by both models, on the executors.

    Args:
        spark: the session whose executors score.
        data: Parquet files or images, at any depth, as jobs/score_batch.py takes them.
        models: the `CANDIDATE` and the `CURRENT` one, of the same classes and kind of input.
        days: files that were modified longer ago are left out.
        thresholds: of the decisions.
        image_column, tensor_column: that the models read; None finds the only one.

    Raises:
        UserError: no folder, no file of these days, no column to read, a class or column of `thresholds` that there is
            none of, or no row that both models read.
    """
    from pyspark.sql import functions as F

    files = _recent_files(spark, data, days)
    rows = _rows(spark, data, files, models, thresholds, image_column, tensor_column)
    signature = models[CANDIDATE].signature
    names, one_label = signature.class_names, signature.task == "multiclass"
    answered = with_results(rows, models)
    decided = {
        role: thresholds.decision(answered[role][SCORES][0], names, one_label=one_label, by=answered[_BY])
        for role in _ROLES
    }
    faults = [answered[role][FAULT].alias(f"{role} fault") for role in _ROLES]
    decisions = [decided[role].alias(role) for role in _ROLES]
    compared = answered.select(quoted(ID), *faults, *decisions).persist()
    reads = {role: F.col(f"{role} fault").isNull() for role in _ROLES}
    both, lost = reads[CURRENT] & reads[CANDIDATE], reads[CURRENT] & ~reads[CANDIDATE]
    try:
        with (
            workers_user_errors(),
            shown(lambda: running_tasks(spark), name="replay", what="task", stream=sys.stderr),
        ):
            totals = compared.agg(
                F.count("*").alias("rows"),
                F.count_if(both).alias("read"),
                F.count_if(lost).alias("lost"),
                F.min(F.when(lost, F.concat_ws(": ", F.col(ID), f"{CANDIDATE} fault"))).alias("first_lost"),
                F.count_if(both & (F.col(CURRENT) == F.col(CANDIDATE))).alias("same"),
            ).first()
            has = {role: F.array_contains(role, F.col("name")) for role in _ROLES}
            by_class = (
                compared.filter(both)
                .select(*_ROLES, F.explode(F.array_union(CURRENT, CANDIDATE)).alias("name"))
                .groupBy("name")
                .agg(
                    *(F.count_if(has[role]).alias(role) for role in _ROLES),
                    F.count_if(has[CURRENT] != has[CANDIDATE]).alias("differ"),
                )
                .collect()
            )
    finally:
        compared.unpersist()
    assert totals is not None
    if not totals["read"]:
        raise UserError("--replay", f"{data} holds no row that both models read", "name a folder of recent rows")
    counts = {row["name"]: row.asDict() for row in by_class}
    nothing = {CURRENT: 0, CANDIDATE: 0, "differ": 0}
    shares = {name: _shares(counts.get(name, nothing), totals["read"]) for name in names}
    return OnReplay(
        uri=data,
        rows=totals["rows"],
        read=totals["read"],
        lost=totals["lost"],
        first_lost=totals["first_lost"] or "",
        agreement=totals["same"] / totals["read"],
        classes=shares,
    )


def _recent_files(spark: "SparkSession", data: str, days: float) -> list[str]:
    if is_empty(data, setting="--replay"):
        raise UserError("--replay", f"{data} holds no file", "name a folder of recent rows")
    files = files_below(spark, data)
    recent = sorted(path for path, modified in files.items() if modified >= time.time() - days * _DAY_SECONDS)
    if not recent:
        newest = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(max(files.values(), default=0)))
        problem = f"{data} holds no file of the last {days:g} days, the newest is of {newest}"
        raise UserError("--replay", problem, "name a folder of recent rows, or raise --replay-days")
    return recent


def _rows(
    spark: "SparkSession",
    data: str,
    files: Sequence[str],
    models: Mapping[str, ShippedModel],
    thresholds: Thresholds,
    image_column: str | None,
    tensor_column: str | None,
) -> "DataFrame":
    """The rows' `ID`, what the models read as `COLUMN`, and as `_BY` the text that thresholds differ by."""
    from pyspark.sql import functions as F

    try:
        read = read_rows(spark, data, files, where={}, id_column=None, parquet=None)
    except UserError as error:
        raise UserError("--replay", *error.args[1:]) from None
    if read.bad_files:
        path, reason = read.bad_files[0]
        print(f"replay: {len(read.bad_files)} files left out; the first, {path}: {reason}", file=sys.stderr)
    if read.frame is None:
        raise UserError("--replay", f"{data} holds no row that can be read", "name a folder of recent rows")
    rows, by = read.frame, thresholds.by
    by_value = named_column(rows, by.column, "--thresholds").cast("string") if by else F.lit(None).cast("string")
    preprocessing = models[CANDIDATE].signature.preprocessing
    column = find_input(rows, preprocessing, image_column, tensor_column).column.name
    return rows.select(rows[quoted(ID)].alias(ID), by_value.alias(_BY), rows[quoted(column)].alias(COLUMN))


def _shares(counts: Mapping[str, int], rows: int) -> ClassShares:
    return ClassShares(
        current=counts[CURRENT] / rows,
        candidate=counts[CANDIDATE] / rows,
        agreement=1 - counts["differ"] / rows,
    )
