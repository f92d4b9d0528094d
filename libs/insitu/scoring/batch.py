"""Scheduled scoring: what is new in a folder, each row once, into tables that grow by whole batches."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from insitu import artifact
from insitu.cluster.failures import workers_user_errors
from insitu.cluster.filesystem import create, open_filesystem, overwrite, qualify
from insitu.cluster.progress import running_tasks, shown
from insitu.errors import UserError
from insitu.scoring import row_scorer
from insitu.scoring.columns import find_input
from insitu.scoring.dataframes import quoted, scored_column
from insitu.scoring.inbox import ID, SOURCE, each_batch_of_new_files, is_empty, named_column, read_rows
from insitu.scoring.ir import Precision
from insitu.scoring.lock import locked
from insitu.scoring.outbox import MONITORING, QUARANTINE, SCORES, Outbox
from insitu.scoring.registry import find_model
from insitu.scoring.shipped import Runtime, ShippedModel, ship
from insitu.scoring.thresholds import Thresholds

_STATE = "_insitu"
_RENAMING = ("file", "hdfs", "viewfs")


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
        models: model directories, or registries for their current versions; every row is scored by each, and decoded
            once for those that read alike.
        data: a folder of Parquet files, of any of the dataset's conventions, or of images.
        output: a folder on any file system; only this function writes to it.
        request: what is asked of every batch.
        runtime, precision, batch: as for `insitu.score`.

    Returns:
        the summary: `output`, `models` (their ids), `precision` (None where nothing was new), `batches`, `files`,
        `rows`, `quarantined`, `images_per_second`, `seconds`; all counts of this run.

    Raises:
        UserError: anything that the user can mend; another job that writes to `output`.
    """
    started = time.monotonic()
    _check(request)
    data, output = qualify(spark, "--data", data).rstrip("/"), qualify(spark, "--output", output).rstrip("/")
    directories = [find_model(spark, "--model", model) for model in models]
    _check_places(data, output)
    for directory in directories:
        if not artifact.holds(directory, artifact.MODEL, setting="--model"):
            raise UserError("--model", f"{directory} holds no {artifact.MODEL}", "name an output of jobs/train_cnn.py")
    nothing_yet = is_empty(data, setting="--data")
    state = f"{output}/{_STATE}"

    def shipped() -> list[ShippedModel]:
        return _ship(spark, directories, request, runtime, precision, batch)

    with locked(f"{state}/lock", setting="--output", output=output) as lock:
        _remove_staging(state)
        outbox = Outbox(output, staging=f"{state}/staging-{lock.id}", before_publishing=lock.check)
        record = _Record(f"{state}/data.json", {"data": data, "where": request.where})
        record.check(anything_done=outbox.any_done(), checkpoint=f"{state}/checkpoint")
        scorer = _BatchScorer(spark, shipped, data, request, outbox, record)
        if not nothing_yet:
            checkpoint = f"{state}/checkpoint"
            each_batch_of_new_files(spark, data, checkpoint=checkpoint, most=request.files_per_batch, handle=scorer)
    return {
        "output": output,
        "models": [artifact.identity(directory) for directory in directories],
        "precision": scorer.precision,
        **scorer.counts,
        "images_per_second": round(scorer.counts["rows"] / scorer.seconds, 1) if scorer.seconds else None,
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
        self,
        spark: SparkSession,
        ship: Callable[[], Sequence[ShippedModel]],
        data: str,
        request: Request,
        outbox: Outbox,
        record: "_Record",
    ) -> None:
        self._spark = spark
        self._ship = ship
        self._models: Sequence[ShippedModel] = []
        self._data = data
        self._request = request
        self._outbox = outbox
        self._record = record
        self.counts = {"batches": 0, "files": 0, "rows": 0, "quarantined": 0}
        self.seconds = 0.0

    @property
    def precision(self) -> str | None:
        """That is scored in; None before there was a batch."""
        return self._models[0].precision if self._models else None

    def __call__(self, number: int, paths: Sequence[str]) -> None:
        if self._outbox.is_done(number):
            return
        started = time.time()
        print(f"batch {number}: {len(paths)} files", file=sys.stderr)
        self._models = self._models or self._ship()
        with self._outbox.publishing(number) as tables, self._results(paths) as (results, bad_files):
            with shown(lambda: running_tasks(self._spark), name=f"batch {number}", what="task", stream=sys.stderr):
                rows, bad = _count(results)
            self._check_bad(results, bad_files, bad, rows, len(paths))
            self._scores(results).coalesce(1).write.parquet(tables[SCORES])
            self._quarantine(results, bad_files).coalesce(1).write.parquet(tables[QUARANTINE])
            _check_written(tables[SCORES], (rows - bad) * len(self._models))
            _check_written(tables[QUARANTINE], bad + len(bad_files))
            seconds = time.time() - started
            counts = {"files": len(paths), "rows": rows, "quarantined": bad + len(bad_files)}
            record = {"batch": number, "started": started, "seconds": seconds, **counts}
            create(f"{tables[MONITORING]}/record.json", json.dumps(record).encode())
        self.seconds += seconds
        for name, count in {"batches": 1, **counts}.items():
            self.counts[name] += count
        told = f"{rows} rows, {counts['quarantined']} quarantined, {rows / seconds:.1f} images/s"
        print(f"batch {number}: {told}", file=sys.stderr, flush=True)

    @contextmanager
    def _results(self, paths: Sequence[str]) -> Iterator[tuple[DataFrame, Sequence[tuple[str, str]]]]:
        """The rows that are asked for, as `_RESULTS`, each computed once; and the files that cannot be read."""
        parquet = self._record.parquet
        read = read_rows(self._spark, self._data, paths, id_column=self._request.id_column, parquet=parquet)
        if parquet is None and read.parquet is not None:
            self._record.parquet = read.parquet
        if read.frame is None:
            yield self._spark.createDataFrame([], _RESULTS), read.bad_files
            return
        rows, by = read.frame, self._request.thresholds.by
        for name, value in self._request.where.items():
            rows = rows.filter(named_column(rows, name, "--where").cast("string") == F.lit(value))
        by_value = named_column(rows, by.column, "--thresholds").cast("string") if by else F.lit(None).cast("string")
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

    def _check_bad(
        self, results: DataFrame, bad_files: Sequence[tuple[str, str]], bad: int, rows: int, files: int
    ) -> None:
        """A file that cannot be read may hold any number of rows, so files are held to the same share."""
        limit = self._request.max_bad_fraction
        if len(bad_files) > limit * files:
            problem = f"{len(bad_files)} of {files} files cannot be read, more than {limit:g} of them"
            (first, reason), *_ = bad_files
        elif bad > limit * rows:
            problem = f"{bad} of {rows} rows cannot be read, more than {limit:g} of them"
            found = results.filter(_FAULTY).select("id", "result.fault").first()
            assert found is not None
            first, reason = found
        else:
            return
        mend = "mend them or take them away, or raise it; nothing of this batch is published"
        raise UserError("--max-bad-fraction", f"{problem}; the first, {first}: {reason}", mend)

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


class _Record:
    """Which data an output holds the scores of, in a file of its own."""

    def __init__(self, uri: str, of: dict[str, Any]) -> None:
        self._uri = uri
        self._kept: dict[str, Any] = {**of, "parquet": None}

    @property
    def parquet(self) -> bool | None:
        """Whether the data is Parquet; None before a file was looked at."""
        return self._kept["parquet"]

    @parquet.setter
    def parquet(self, value: bool) -> None:
        self._kept["parquet"] = value
        self._write()

    def check(self, *, anything_done: bool, checkpoint: str) -> None:
        """Keep what there is, or begin.

        Raises:
            UserError: the output is of other data, or has lost the record of what is scored.
        """
        file_system, path = open_filesystem(self._uri)
        if not anything_done:
            self._write()
            return
        if not file_system.exists(open_filesystem(checkpoint)[1]) or not file_system.exists(path):
            problem = f"it holds scores, and {checkpoint}, which says of what, is gone"
            raise UserError("--output", problem, "name a new directory")
        before = json.loads(file_system.cat_file(path))
        if before["data"] != self._kept["data"]:
            problem = f"it holds the scores of {before['data']}, not of {self._kept['data']}"
            raise UserError("--output", problem, "name another directory")
        if before["where"] != self._kept["where"]:
            told = " ".join(f"--where {name}={value}" for name, value in before["where"].items()) or "no --where"
            raise UserError("--where", f"what {self._uri} tells was scored with {told}", "name another --output")
        self._kept = before

    def _write(self) -> None:
        overwrite(self._uri, json.dumps(self._kept).encode())


def _check(request: Request) -> None:
    if not 0 <= request.max_bad_fraction <= 1:
        raise UserError("--max-bad-fraction", f"{request.max_bad_fraction:g}, expected 0 to 1", "0.01 is usual")
    if request.files_per_batch < 1:
        raise UserError("--files-per-batch", f"{request.files_per_batch}, expected 1 or more", "1000 is usual")


def _check_places(data: str, output: str) -> None:
    if f"{output}/".startswith(f"{data}/"):
        raise UserError("--output", f"{output} is within --data", "write elsewhere: it would be scored")
    scheme = output.partition(":")[0]
    if scheme not in _RENAMING:
        problem = f"{scheme}:// does not rename a folder in one step, so that a batch could appear in part"
        raise UserError("--output", problem, f"name a folder on one of {', '.join(f'{name}://' for name in _RENAMING)}")


def _remove_staging(state: str) -> None:
    """What killed jobs have left."""
    file_system, path = open_filesystem(state)
    for left in file_system.glob(f"{path}/staging-*"):
        file_system.rm(left, recursive=True)


def _check_written(table: str, rows: int) -> None:
    """Executors that do not share the output's file system with the driver write to their own disks."""
    file_system, path = open_filesystem(table)
    found = 0
    for part in file_system.glob(f"{path}/*.parquet"):
        with file_system.open(part, "rb") as source:
            found += pq.read_metadata(source).num_rows
    if found != rows:
        problem = f"{found} of {rows} rows that were written can be read here"
        raise UserError("--output", problem, "name a folder that the driver and all executors share")
