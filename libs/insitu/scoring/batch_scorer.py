"""One batch of files after the other: scored, compared with the reference, and published whole."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Protocol

import pyarrow.parquet as pq
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from insitu.cluster.failures import workers_user_errors
from insitu.cluster.filesystem import create, open_filesystem
from insitu.cluster.progress import running_tasks, shown
from insitu.errors import UserError
from insitu.scoring import row_scorer
from insitu.scoring.dataframes import RESULT_COLUMN, quoted, scored_rows
from insitu.scoring.inbox import ID, PLACE, SOURCE, Rows, damaged_files, named_column, read_rows
from insitu.scoring.labelling import LabelBy, check_can_label, rows_to_label
from insitu.scoring.monitoring import RECORD, Reference, monitored
from insitu.scoring.outbox import MONITORING, QUARANTINE, RESULTS, SCORES, TO_LABEL, Outbox
from insitu.scoring.shipped import ShippedModel
from insitu.scoring.thresholds import Thresholds


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
        send_to_label: rows of each batch for people to label.
        label_by: which: uncertain ones, near another decision, or drifted ones, unlike the validation rows.
    """

    id_column: str | None = None
    image_column: str | None = None
    tensor_column: str | None = None
    where: dict[str, str] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds)
    max_bad_fraction: float = 0.01
    files_per_batch: int = 1000
    send_to_label: int = 0
    label_by: LabelBy = "uncertain"


class Known(Protocol):
    """What earlier batches have told of the data.

    Attributes:
        parquet: whether it is Parquet; None before a file was looked at.
        columns: that any of its files and folders had.
    """

    parquet: bool | None
    columns: Sequence[str]


@dataclass(frozen=True)
class _Scored:
    """A batch that is scored.

    Attributes:
        rows: as they were read, those that are asked for; None where no file can be read.
        results: as they are stored, of each row `id`, `source`, `place`, `by` (what the thresholds differ by) and
            `result` (`row_scorer.RESULT`).
        all, bad: rows, and those of them that cannot be read.
        bad_files: that cannot be read, and why.
    """

    rows: DataFrame | None
    results: DataFrame
    all: int
    bad: int
    bad_files: Sequence[tuple[str, str]]


class BatchScorer:
    """Scores and publishes one batch of files after the other.

    Args:
        spark: the session whose executors score.
        ship: gives the models to the executors, and each one's reference; called at the first batch.
        data: the folder.
        request: what is asked of every batch.
        outbox: where the tables go.
        known: of the data.

    Attributes:
        counts: of this run, by name.
        seconds: of its batches.
        alarms: what has drifted: `batch`, `model`, `statistic`, `psi` and `ks` each.
    """

    def __init__(
        self,
        spark: SparkSession,
        ship: Callable[[], Sequence[tuple[ShippedModel, Reference | None]]],
        data: str,
        request: Request,
        outbox: Outbox,
        known: Known,
    ) -> None:
        self._spark = spark
        self._ship = ship
        self._models: Sequence[ShippedModel] = []
        self._references: Sequence[Reference | None] = []
        self._data = data
        self._request = request
        self._outbox = outbox
        self._known = known
        self.counts = {"batches": 0, "files": 0, "rows": 0, "quarantined": 0}
        self.seconds = 0.0
        self.alarms: list[dict[str, Any]] = []

    @property
    def precision(self) -> str | None:
        """That is scored in; None before there was a batch."""
        return self._models[0].precision if self._models else None

    def __call__(self, number: int, files: Mapping[str, float]) -> None:
        """Score and publish a batch.

        Args:
            number: its own.
            files: by URI when each was modified, in seconds since 1970.
        """
        if self._outbox.is_done(number):
            return
        started = time.time()
        print(f"batch {number}: {len(files)} files", file=sys.stderr)
        if not self._models:
            self._models, self._references = zip(*self._ship(), strict=True)
        with self._outbox.publishing(number) as tables:
            with shown(lambda: running_tasks(self._spark), name=f"batch {number}", what="task", stream=sys.stderr):
                batch = self._scored(list(files), tables[RESULTS])
            self._check_bad(batch, len(files))
            rows, quarantined = batch.all, batch.bad + len(batch.bad_files)
            scores = self._scores(batch.results)
            parts = 1 + rows * len(scores) // _ROWS_A_FILE
            reduce(DataFrame.unionByName, scores).coalesce(parts).write.parquet(tables[SCORES])
            self._quarantine(batch).coalesce(1).write.parquet(tables[QUARANTINE])
            self._send_to_label(batch, tables[TO_LABEL])
            like = monitored(batch.results.filter(_GOOD), scores, self._models, self._references)
            seconds = time.time() - started
            counts = {"files": len(files), "rows": rows, "quarantined": quarantined}
            times = {
                "started": started,
                "seconds": seconds,
                "images_per_second": rows / seconds,
                "oldest_file_waited_seconds": time.time() - min(files.values(), default=started),
            }
            record = {"batch": number, **times, **counts, **like}
            create(f"{tables[MONITORING]}/{RECORD}", json.dumps(record).encode())
        self.seconds += seconds
        for name, count in {"batches": 1, **counts}.items():
            self.counts[name] += count
        told = f"{rows} rows, {quarantined} quarantined, {rows / seconds:.1f} images/s"
        print(f"batch {number}: {told}", file=sys.stderr, flush=True)
        self._tell_drift(number, like["models"])

    def _scored(self, paths: Sequence[str], table: str) -> _Scored:
        """Score the rows of files into a table, as they are read; files with damaged pages come to light here."""
        read = self._read(paths)
        try:
            return self._scored_rows(read, table)
        except (Py4JJavaError, PySparkException) as error:
            damaged = damaged_files(self._spark, read.files) if read.parquet and _may_be_damage(error) else {}
            if not damaged:
                raise
        sound = self._read([path for path in read.files if path not in damaged])
        return self._scored_rows(replace(sound, bad_files=[*read.bad_files, *damaged.items()]), table)

    def _read(self, paths: Sequence[str]) -> Rows:
        request, known = self._request, self._known
        read = read_rows(
            self._spark,
            self._data,
            paths,
            where=request.where,
            id_column=request.id_column,
            parquet=known.parquet,
        )
        if known.parquet is None and read.parquet is not None:
            known.parquet = read.parquet
        return read

    def _scored_rows(self, read: Rows, table: str) -> _Scored:
        request, known = self._request, self._known
        known.columns = sorted({*known.columns, *read.columns})
        if read.frame is None:
            return _Scored(None, self._spark.createDataFrame([], _RESULTS), 0, 0, read.bad_files)
        rows, by = read.frame, request.thresholds.by
        for name, value in request.where.items():
            column = named_column(rows, name, "--where", known=known.columns)
            rows = rows.filter(column.cast("string") == F.lit(value))
        by_value = F.lit(None) if by is None else named_column(rows, by.column, "--thresholds", known=known.columns)
        if request.send_to_label:
            check_can_label(rows)
        scored = scored_rows(
            _for_all_cores(rows.withColumn(_BY, by_value.cast("string"))),
            self._models,
            image_column=request.image_column,
            tensor_column=request.tensor_column,
        )
        own = {ID: "id", SOURCE: "source", PLACE: "place", _BY: "by", RESULT_COLUMN: "result"}
        counted = Observation()
        results = scored.select(*(scored[quoted(name)].alias(short) for name, short in own.items()))
        results = results.observe(counted, F.count("*").alias("all"), F.count_if(F.expr(_FAULTY)).alias("bad"))
        with workers_user_errors():
            results.write.mode("overwrite").parquet(table)
        counts = counted.get
        _check_written(table, counts["all"])
        stored = self._spark.read.schema(_RESULTS).parquet(table)
        return _Scored(rows, stored, counts["all"], counts["bad"], read.bad_files)

    def _check_bad(self, batch: _Scored, files: int) -> None:
        """A file that cannot be read may hold any number of rows, so files are held to the same share."""
        limit = self._request.max_bad_fraction
        if len(batch.bad_files) > limit * files:
            problem = f"{len(batch.bad_files)} of {files} files cannot be read, more than {limit:g} of them"
            (first, reason), *_ = batch.bad_files
        elif batch.bad > limit * batch.all:
            problem = f"{batch.bad} of {batch.all} rows cannot be read, more than {limit:g} of them"
            found = batch.results.filter(_FAULTY).select("id", "result.fault").first()
            assert found is not None
            first, reason = found
        else:
            return
        mend = "mend them or take them away, or raise it; nothing of this batch is published"
        raise UserError("--max-bad-fraction", f"{problem}; the first, {first}: {reason}", mend)

    def _scores(self, results: DataFrame) -> list[DataFrame]:
        """The table's rows of each model, one for each row that can be read."""
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
        return parts

    def _quarantine(self, batch: _Scored) -> DataFrame:
        """Rows, and files that hold none that can be read; of a file the id is null."""
        rows = batch.results.filter(_FAULTY).select("id", "source", F.col("result.fault").alias("reason"))
        files = [(None, path, reason) for path, reason in batch.bad_files]
        return rows.union(self._spark.createDataFrame(files, _QUARANTINE)) if files else rows

    def _send_to_label(self, batch: _Scored, table: str) -> None:
        if self._request.send_to_label and batch.rows is not None:
            model = self._models[0]
            rows = rows_to_label(
                batch.rows,
                batch.results.filter(_GOOD),
                most=self._request.send_to_label,
                by=self._request.label_by,
                model=model,
                thresholds=self._request.thresholds,
                reference=self._references[0],
            )
            rows.coalesce(1).write.parquet(table)

    def _tell_drift(self, number: int, models: Sequence[Mapping[str, Any]]) -> None:
        for model in models:
            for drift in model["drift"] or ():
                if drift["alarm"]:
                    found = {name: drift[name] for name in ("statistic", "psi", "ks")}
                    self.alarms.append({"batch": number, "model": model["model"], **found})
                    told = (
                        f"{drift['statistic']} is not as in validation (PSI {drift['psi']:.2f}, KS {drift['ks']:.2f})"
                    )
                    print(f"batch {number}: drift: model {model['model']}: {told}", file=sys.stderr, flush=True)


def _may_be_damage(error: Exception) -> bool:
    """Whether Spark may have failed on a page of a Parquet file, and not because it was told to stop."""
    told = str(error).lower()
    return "parquet" in told and "cancelled" not in told


_BY = "insitu by"
_RESULTS = f"id string, source string, place string, by string, result {row_scorer.RESULT}"
_ROWS_A_FILE = 1_000_000
_QUARANTINE = "id string, source string, reason string"
_FAULTY = "result.fault IS NOT NULL"
_GOOD = "result.fault IS NULL"


def _for_all_cores(rows: DataFrame) -> DataFrame:
    """A file of one row group is one task, however many cores wait beside it."""
    context = rows.sparkSession.sparkContext
    tasks = context.defaultParallelism // int(context.getConf().get("spark.task.cpus", "1"))
    return rows.repartition(tasks) if rows.rdd.getNumPartitions() < tasks else rows


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
