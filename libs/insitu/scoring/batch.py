"""Scheduled scoring: what is new in a folder, each row once, into tables that grow by whole batches."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from insitu.cluster.failures import workers_user_errors
from insitu.cluster.filesystem import create, open_filesystem, qualify
from insitu.cluster.progress import running_tasks, shown
from insitu.errors import UserError
from insitu.scoring import row_scorer
from insitu.scoring.columns import find_input
from insitu.scoring.dataframes import quoted, scored_column
from insitu.scoring.inbox import ID, SOURCE, each_batch_of_new_files, is_empty, read_rows
from insitu.scoring.ir import Precision
from insitu.scoring.lock import locked
from insitu.scoring.outbox import MONITORING, QUARANTINE, SCORES, Outbox
from insitu.scoring.shipped import Runtime, ShippedModel, ship
from insitu.scoring.thresholds import Thresholds

_STATE = "_insitu"


@dataclass(frozen=True)
class Request:
    """What is asked of every batch.

    Attributes:
        id_column: of Parquet data; None takes `id`, else file and place.
        image_column, tensor_column: that the models read; None finds the only one.
        where: by column the value, as text, that a row must have to be scored; no other row leaves a trace.
        thresholds: for the decisions.
        max_bad_fraction: a batch with a larger share of rows that cannot be read fails.
        files_per_batch: a killed run loses the batch under way.
    """

    id_column: str | None = None
    image_column: str | None = None
    tensor_column: str | None = None
    where: dict[str, str] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds)
    max_bad_fraction: float = 0.01
    files_per_batch: int = 1000


def score_batch(
    spark: SparkSession,
    *,
    models: Sequence[str],
    data: str,
    output: str,
    request: Request = Request(),
    runtime: Runtime = "openvino",
    precision: Precision | None = None,
    batch: int = 32,
) -> dict[str, Any]:
    """Score the files of a folder that no earlier run with this output has scored, every row exactly once.

    `output` gets three tables, each with a folder `batch=N` a batch, which appears whole:

    - `scores`, Parquet: `id`, `source` (URI of the file), `model` (its id), `precision`, `scores`
      (map<string, float> by class name), `decision` (array<string>), `scored_at`;
    - `quarantine`, Parquet: `id`, `source`, `reason`, of rows and files that cannot be read;
    - `monitoring`: `record.json`, what the batch was and how long it took.

    Args:
        spark: the session whose executors score.
        models: model directories; every row is scored by each, and decoded once for those that read alike.
        data: a folder of Parquet files, of any of the dataset's conventions, or of images.
        output: a folder on any file system; only this function writes to it.
        request: what is asked of every batch.
        runtime, precision, batch: as for `insitu.score`.

    Returns:
        the summary: `output`, `models`, `batches`, `files`, `rows`, `quarantined`, `images_per_second`, `seconds`;
        all counts of this run.

    Raises:
        UserError: anything that the user can mend; another job that writes to `output`.
    """
    started = time.monotonic()
    data, output = qualify(spark, "--data", data).rstrip("/"), qualify(spark, "--output", output).rstrip("/")
    if f"{output}/".startswith(f"{data}/"):
        raise UserError("--output", f"{output} is within --data", "write elsewhere: it would be scored")
    state = f"{output}/{_STATE}"
    counts = {"batches": 0, "files": 0, "rows": 0, "quarantined": 0}
    busy = 0.0
    nothing_yet = is_empty(data, setting="--data")
    with locked(f"{state}/lock", setting="--output", output=output):
        outbox = Outbox(output, staging=f"{state}/staging")
        _check_state(state, data, outbox)
        shipped = [] if nothing_yet else _ship(spark, models, request, runtime, precision, batch)
        if shipped:
            scorer = _BatchScorer(spark, shipped, data, request, outbox)
            each_batch_of_new_files(
                spark, data, checkpoint=f"{state}/checkpoint", most=request.files_per_batch, handle=scorer
            )
            counts, busy = scorer.counts, scorer.seconds
    return {
        "output": output,
        "models": [{"id": model.id, "runtime": model.runtime, "precision": model.precision} for model in shipped],
        **counts,
        "images_per_second": round(counts["rows"] / busy, 1) if busy else None,
        "seconds": round(time.monotonic() - started, 1),
    }


def conditions(given: Sequence[str]) -> dict[str, str]:
    """`COLUMN=VALUE` each, as `Request.where`.

    Raises:
        UserError: one has no column or no value.
    """
    pairs = [condition.partition("=") for condition in given]
    for column, equals, value in pairs:
        if not column or not equals:
            raise UserError("--where", f"expected COLUMN=VALUE, got {column + equals + value!r}", "write it so")
    found = {column: value for column, _, value in pairs}
    if len(found) < len(pairs):
        raise UserError("--where", "one column has several conditions", "a row has one value in it: give one")
    return found


class _BatchScorer:
    """Scores and publishes one batch of files after the other."""

    def __init__(
        self, spark: SparkSession, models: Sequence[ShippedModel], data: str, request: Request, outbox: Outbox
    ) -> None:
        self._spark = spark
        self._models = models
        self._data = data
        self._request = request
        self._outbox = outbox
        self.counts = {"batches": 0, "files": 0, "rows": 0, "quarantined": 0}
        self.seconds = 0.0

    def __call__(self, number: int, paths: Sequence[str]) -> None:
        if self._outbox.is_done(number):
            return
        started = time.time()
        print(f"batch {number}: {len(paths)} files", file=sys.stderr)
        with self._outbox.publishing(number) as tables, self._results(paths) as (results, bad_files):
            with shown(lambda: running_tasks(self._spark), name=f"batch {number}", what="task", stream=sys.stderr):
                rows, bad = _count(results)
            bad += len(bad_files)
            self._check_bad(results, bad_files, bad, rows + len(bad_files))
            self._scores(results).coalesce(1).write.parquet(tables[SCORES])
            self._quarantine(results, bad_files).coalesce(1).write.parquet(tables[QUARANTINE])
            seconds = time.time() - started
            counts = {"files": len(paths), "rows": rows, "quarantined": bad}
            record = {"batch": number, "started": started, "seconds": seconds, **counts}
            create(f"{tables[MONITORING]}/record.json", json.dumps(record).encode())
        self.seconds += seconds
        for name, count in {"batches": 1, **counts}.items():
            self.counts[name] += count
        print(
            f"batch {number}: {rows} rows, {bad} quarantined, {rows / seconds:.1f} images/s",
            file=sys.stderr,
            flush=True,
        )

    @contextmanager
    def _results(self, paths: Sequence[str]) -> Iterator[tuple[DataFrame, Sequence[tuple[str, str]]]]:
        """The rows that are asked for, as `_RESULTS`, each computed once; and the files that cannot be read."""
        read = read_rows(self._spark, self._data, paths, id_column=self._request.id_column)
        if read.frame is None:
            yield self._spark.createDataFrame([], _RESULTS), read.bad_files
            return
        rows, by = read.frame, self._request.thresholds.by
        for name, value in self._request.where.items():
            rows = rows.filter(_column(rows, name, "--where").cast("string") == F.lit(value))
        by_value = _column(rows, by.column, "--thresholds").cast("string") if by else F.lit(None).cast("string")
        columns = self._request.image_column, self._request.tensor_column
        inputs = [find_input(rows, model.signature.preprocessing, *columns) for model in self._models]
        result = scored_column(rows, self._models, inputs)
        results = rows.select(
            rows[quoted(ID)].alias("id"),
            rows[quoted(SOURCE)].alias("source"),
            by_value.alias("by"),
            result.alias("result"),
        ).persist()
        try:
            yield results, read.bad_files
        finally:
            results.unpersist()

    def _check_bad(self, results: DataFrame, bad_files: Sequence[tuple[str, str]], bad: int, rows: int) -> None:
        limit = self._request.max_bad_fraction
        if bad <= limit * rows:
            return
        first = bad_files[0] if bad_files else results.filter(_FAULTY).select("id", "result.fault").first()
        assert first is not None
        raise UserError(
            "--max-bad-fraction",
            f"{bad} of {rows} rows cannot be read, more than {limit:g} of them; the first, {first[0]}: {first[1]}",
            "mend them or take them away, or raise it; nothing of this batch is published",
        )

    def _scores(self, results: DataFrame) -> DataFrame:
        """A row for each row that can be read and model."""
        good = results.filter(_GOOD)
        parts = []
        for place, model in enumerate(self._models):
            names, scores = model.signature.class_names, F.col("result")[row_scorer.SCORES][place]
            one_label = model.signature.task == "multiclass"
            decision = self._request.thresholds.decision(scores, names, one_label=one_label, by=F.col("by"))
            parts.append(
                good.select(
                    "id",
                    "source",
                    F.lit(model.id).alias("model"),
                    F.lit(model.precision).alias("precision"),
                    F.map_from_arrays(F.array(*map(F.lit, names)), scores).alias("scores"),
                    decision.alias("decision"),
                    F.current_timestamp().alias("scored_at"),
                )
            )
        return reduce(DataFrame.unionByName, parts)

    def _quarantine(self, results: DataFrame, bad_files: Sequence[tuple[str, str]]) -> DataFrame:
        """Rows, and files that hold none that can be read; of a file the id is null."""
        rows = results.filter(_FAULTY).select("id", "source", F.col("result.fault").alias("reason"))
        files = [(None, path, reason) for path, reason in bad_files]
        return rows.union(self._spark.createDataFrame(files, _QUARANTINE)) if files else rows


_RESULTS = f"id string, source string, by string, result {row_scorer.RESULT}"
_QUARANTINE = "id string, source string, reason string"
_FAULTY = "result.fault IS NOT NULL"
_GOOD = "result.fault IS NULL"


def _count(results: DataFrame) -> tuple[int, int]:
    """Rows, and those that cannot be read; this is where they are scored."""
    with workers_user_errors():
        counts = results.agg(F.count("*"), F.count_if(F.expr(_FAULTY))).first()
    assert counts is not None
    return counts[0], counts[1]


def _column(rows: DataFrame, name: str, setting: str) -> Column:
    if name not in rows.columns:
        own = ", ".join(column for column in rows.columns if column not in (ID, SOURCE))
        raise UserError(setting, f"the data has no column {name}", f"its columns are {own}")
    return rows[quoted(name)]


def _ship(
    spark: SparkSession,
    directories: Sequence[str],
    request: Request,
    runtime: Runtime,
    precision: Precision | None,
    batch: int,
) -> list[ShippedModel]:
    """The models, which have to read one column alike enough, and know the classes of the thresholds."""
    models = [
        ship(spark, directory, runtime=runtime, precision=precision, rows=batch, setting="--model")
        for directory in directories
    ]
    if len({type(model.signature.preprocessing) for model in models}) > 1:
        raise UserError("--model", "some read images and some tensors", "score them by a job for each")
    request.thresholds.check([name for model in models for name in model.signature.class_names], setting="--thresholds")
    return models


def _check_state(state: str, data: str, outbox: Outbox) -> None:
    """An output belongs to one folder of data, and has not lost the record of what is scored."""
    if not create(f"{state}/data.json", json.dumps({"data": data}).encode()):
        file_system, path = open_filesystem(f"{state}/data.json")
        scored = json.loads(file_system.cat_file(path))["data"]
        if scored != data:
            raise UserError("--output", f"it holds the scores of {scored}, not of {data}", "name another directory")
    file_system, path = open_filesystem(f"{state}/checkpoint")
    if outbox.any_done() and not file_system.exists(path):
        raise UserError(
            "--output", f"it holds scores, and {state}/checkpoint, which says of what, is gone", "name a new directory"
        )
