"""Scheduled scoring: what is new in a folder, each row once, into tables that grow by whole batches."""

import json
import time
from collections.abc import Sequence
from typing import Any

from pyspark.sql import SparkSession

from insitu import artifact
from insitu.cluster.filesystem import open_filesystem, overwrite, qualify, say
from insitu.cluster.lock import locked
from insitu.cluster.session import arrow_batches
from insitu.errors import UserError
from insitu.registry import find_model
from insitu.scoring.batch_scorer import BatchScorer, Request
from insitu.scoring.inbox import each_batch_of_new_files, is_empty
from insitu.scoring.ir import Precision
from insitu.scoring.labelling import LABEL_BY
from insitu.scoring.monitoring import Reference, read_reference
from insitu.scoring.outbox import Outbox
from insitu.scoring.run_record import recorded
from insitu.scoring.shipped import Runtime, ShippedModel, ship

_STATE = "_insitu"
_AS_IT_IS = Request()
_RENAMING = ("file", "hdfs", "viewfs")


def score_batch(
    spark: SparkSession,
    *,
    models: Sequence[str],
    data: str,
    output: str,
    request: Request = _AS_IT_IS,
    runtime: Runtime = "openvino",
    precision: Precision | None = None,
    batch: int = 32,
) -> dict[str, Any]:
    """Score the files of a folder that no earlier run with this output has scored, every row exactly once.

    `output` gets tables, each with a folder `batch=N` a batch, which appears whole, and their history as
    `monitoring.html`:

    - `scores`, Parquet: `id`, `source` (URI of the file), `model` (its id), `precision`, `scores`
      (map<string, float> by class name), `decision` (array<string>), `scored_at`;
    - `quarantine`, Parquet: `id`, `source`, `reason`, of rows and files that cannot be read;
    - `monitoring`: `record.json`: times, counts, and what `monitoring.monitored` tells of the rows;
    - `runs`, not of batches: a JSON file for each call, those that find nothing new or fail too;
    - `to_label`, Parquet, where it is asked for: see `labelling.rows_to_label`.

    Args:
        spark: the session whose executors score.
        models: model directories, or registries for their current versions; every row is scored by each, and decoded
            once for those that read alike; one that is named twice scores once.
        data: a folder of Parquet files, of any of the dataset's conventions, or of images.
        output: a folder on any file system; only this function writes to it.
        request: what is asked of every batch.
        runtime, precision, batch: as for `insitu.score`.

    Returns:
        the summary: `output`, `models` (their ids), `precision` (None where nothing was new), `batches`, `files`,
        `rows`, `quarantined`, `images_per_second`, `seconds`, and `alarms`, what has drifted: `batch`, `model`,
        `statistic`, `psi` and `ks` each; all of this run.

    Raises:
        UserError: anything that the user can mend; another job that writes to `output`.
    """
    started = time.monotonic()
    _check(request, runtime)
    data, output = qualify(spark, "--data", data).rstrip("/"), qualify(spark, "--output", output).rstrip("/")
    directories = [find_model(spark, "--model", model) for model in models]
    _check_places(data, output)
    for directory in directories:
        if not artifact.holds(directory, artifact.MODEL, setting="--model"):
            raise UserError("--model", f"{directory} holds no {artifact.MODEL}", "name an output of jobs/train_cnn.py")
    directories = _each_once(directories)
    nothing_yet = is_empty(data, setting="--data")
    state = f"{output}/{_STATE}"

    def shipped() -> list[tuple[ShippedModel, Reference | None]]:
        return _ship(spark, directories, request, runtime, precision, batch)

    with locked(f"{state}/lock", setting="--output", output=output) as lock:
        _remove_staging(state)
        outbox = Outbox(output, staging=f"{state}/staging-{lock.id}", before_publishing=lock.check)
        record = _Record(f"{state}/data.json", {"data": data, "where": request.where})
        record.check(anything_done=outbox.any_done(), checkpoint=f"{state}/checkpoint")
        scorer = BatchScorer(spark, shipped, data, request, outbox, record)
        with recorded(output, scorer, run=lock.id):
            if not nothing_yet:
                checkpoint = f"{state}/checkpoint"
                with arrow_batches(spark, batch):
                    each_batch_of_new_files(
                        spark, data, checkpoint=checkpoint, most=request.files_per_batch, handle=scorer
                    )
    return {
        "output": output,
        "models": [artifact.identity(directory) for directory in directories],
        "precision": scorer.precision,
        **scorer.counts,
        "images_per_second": round(scorer.counts["rows"] / scorer.seconds, 1) if scorer.seconds else None,
        "seconds": round(time.monotonic() - started, 1),
        "alarms": scorer.alarms,
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


def _ship(
    spark: SparkSession,
    directories: Sequence[str],
    request: Request,
    runtime: Runtime,
    precision: Precision | None,
    batch: int,
) -> list[tuple[ShippedModel, Reference | None]]:
    """The models, which read one kind of column and know the thresholds' classes, with their references."""
    models = [
        ship(spark, directory, runtime=runtime, precision=precision, rows=batch, setting="--model")
        for directory in directories
    ]
    if len({type(model.signature.preprocessing) for model in models}) > 1:
        raise UserError("--model", "some read images and some tensors", "score them by a job for each")
    request.thresholds.check([name for model in models for name in model.signature.class_names], setting="--thresholds")
    references = [
        read_reference(directory, model.signature.class_names)
        for model, directory in zip(models, directories, strict=True)
    ]
    if request.send_to_label and request.label_by == "drifted" and references[0] is None:
        problem = f"drifted, and model {models[0].id} has no {artifact.REFERENCE}"
        raise UserError("--label-by", problem, "train it again, or take uncertain")
    return list(zip(models, references, strict=True))


def _each_once(directories: Sequence[str]) -> list[str]:
    """A registry may have come to the version that is named beside it."""
    found: dict[str, str] = {}
    for directory in directories:
        first = found.setdefault(artifact.identity(directory), directory)
        if first != directory:
            say(f"--model: {directory} is the model of {first}, and scores once")
    return list(found.values())


class _Record:
    """Which data an output holds the scores of, and what is known of that data, in a file of its own."""

    def __init__(self, uri: str, of: dict[str, Any]) -> None:
        self._uri = uri
        self._kept: dict[str, Any] = {**of, "parquet": None, "columns": []}

    @property
    def parquet(self) -> bool | None:
        """Whether the data is Parquet; None before a file was looked at."""
        return self._kept["parquet"]

    @parquet.setter
    def parquet(self, value: bool | None) -> None:
        self._kept["parquet"] = value
        self._write()

    @property
    def columns(self) -> Sequence[str]:
        """That any of its files and folders had."""
        return self._kept["columns"]

    @columns.setter
    def columns(self, value: Sequence[str]) -> None:
        if value != self._kept["columns"]:
            self._kept["columns"] = value
            self._write()

    def check(self, *, anything_done: bool, checkpoint: str) -> None:
        """Keep what there is; or begin, and forget which files were to be scored: perhaps those of other data.

        Raises:
            UserError: the output is of other data, or has lost the record of what is scored.
        """
        file_system, path = open_filesystem(self._uri)
        begun = open_filesystem(checkpoint)[1]
        if not anything_done:
            if file_system.exists(begun):
                file_system.rm(begun, recursive=True)
            self._write()
            return
        if not file_system.exists(begun) or not file_system.exists(path):
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


def _check(request: Request, runtime: Runtime) -> None:
    if not 0 <= request.max_bad_fraction <= 1:
        raise UserError("--max-bad-fraction", f"{request.max_bad_fraction:g}, expected 0 to 1", "0.01 is usual")
    if request.files_per_batch < 1:
        raise UserError("--files-per-batch", f"{request.files_per_batch}, expected 1 or more", "1000 is usual")
    if request.send_to_label < 0:
        raise UserError("--send-to-label", f"{request.send_to_label}, expected 0 or more", "0 sends none")
    if request.label_by not in LABEL_BY:
        raise UserError("--label-by", f"{request.label_by!r}, expected {' or '.join(LABEL_BY)}", "take one of them")
    if request.send_to_label and request.label_by == "drifted" and runtime == "bigdl":
        raise UserError("--label-by", "drifted, and bigdl tells nothing of the inputs", "take openvino or tensorflow")


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
