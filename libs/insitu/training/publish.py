"""The model directory of a finished run."""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from insitu import artifact
from insitu.cluster.filesystem import in_scratch, open_filesystem, say
from insitu.data.plan import Rows, ShardPlan
from insitu.data.scan import BadRow
from insitu.errors import UserError
from insitu.job import attempt
from insitu.provenance import code_version, environment
from insitu.recipe import Recipe
from insitu.training.engines.base import TrainingResult
from insitu.training.prepare import Prepared
from insitu.training.reference import reference
from insitu.training.rundir import RunDirectory, persist_result

if TYPE_CHECKING:
    import keras

ReadImages = Callable[[Sequence[int]], list[np.ndarray]]


def publish(
    model: "keras.Model",
    *,
    recipe: Recipe,
    prepared: Prepared,
    validation: ShardPlan,
    result: TrainingResult,
    run: RunDirectory,
    summary: dict[str, Any],
    provenance: dict[str, Any],
) -> str | None:
    """Write the model directory, with the report, and make it appear at `summary["output"]` in one step.

    Returns:
        None; where the report cannot be drawn, which costs no model, a sentence that says so.

    Raises:
        UserError: the output's file system is full, or stays away, or the temporary directory is full.
    """
    with _scratch() as directory:
        model.save(directory / artifact.MODEL)
        (directory / artifact.RECIPE).write_text(recipe.to_yaml())
        artifact.write_json(directory / artifact.SIGNATURE, _signature(model, recipe).to_json())
        artifact.write_json(directory / artifact.METRICS, summary["metrics"])
        artifact.write_json(directory / artifact.PROVENANCE, provenance)
        quarantine = pa.Table.from_pylist([asdict(row) for row in prepared.scan.bad], _QUARANTINE)
        pq.write_table(quarantine, directory / artifact.QUARANTINE)
        rows = [piece for shard in validation.shards for piece in shard]
        scored = result.predictions
        predictions = persist_result(lambda: _predictions(rows, scored), "reading the predictions", run.uri)
        pq.write_table(predictions, directory / artifact.PREDICTIONS)
        sample = persist_result(
            lambda: reference(prepared, validation, predictions),
            "reading validation rows",
            prepared.dataset.uri,
            setting="--data",
        )
        pq.write_table(sample, directory / artifact.REFERENCE)
        persist_result(lambda: fetch_record(run, directory), "reading the run's record", run.uri)
        history = "".join(json.dumps(line) + "\n" for line in result.history)
        (directory / artifact.HISTORY).write_text(history)
        read_images = _image_reader(prepared, validation, rows) if recipe.data.input == "image" else None
        output = summary["output"]
        print("report: drawing curves, intervals and examples", file=sys.stderr)
        undrawn = attempt(
            lambda: _draw_report(directory, model, read_images),
            f"{output} is published, but its report cannot be drawn",
        )
        persist_result(lambda: artifact.publish(directory, output, staging=run.uri), "publishing the model", output)
    return undrawn


@contextmanager
def _scratch() -> Iterator[Path]:
    """Where the model directory is made."""
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        try:
            yield Path(scratch)
        except OSError as error:
            problem = f"the model directory cannot be made in {scratch} ({error})"
            mend = "free space there or set TMPDIR, then give the same command with --resume (insitu sweep: without)"
            raise UserError("TMPDIR", problem, mend) from None


def provenance(
    recipe: Recipe,
    prepared: Prepared,
    *,
    summary: dict[str, Any],
    drivers: list[dict[str, Any]],
) -> dict[str, Any]:
    """Where a model comes from; `drivers` is of the run's record."""
    return {
        "data": {
            "uri": prepared.dataset.uri,
            "fingerprint": prepared.dataset.fingerprint,
            "rows": {**prepared.rows, "quarantined": prepared.scan.bad_rows, "unused": prepared.scan.unused},
            "additions": [
                {
                    "uri": each.dataset.uri,
                    "fingerprint": each.dataset.fingerprint,
                    "rows": each.rows,
                    "unlabelled": each.scan.unlabelled,
                    "held_out": each.scan.held_out,
                    "quarantined": each.scan.bad_rows,
                }
                for each in prepared.additions
            ],
        },
        "code": code_version(),
        "parent_model": recipe.model.init,
        "environment": environment(),
        "seed": recipe.training.seed,
        "started": _utc(drivers[0]["started"]),
        "run": {
            name: summary[name] for name in ("workers", "precision", "epochs", "steps", "seconds", "resumed_from_step")
        },
        "drivers": [driver | {"started": _utc(driver["started"])} for driver in drivers],
    }


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _draw_report(directory: Path, model: "keras.Model", read_images: ReadImages | None) -> None:
    from insitu.report import write_report  # here: its libraries take two seconds to load

    write_report(directory, model=model, read_images=read_images)


def _signature(model: "keras.Model", recipe: Recipe) -> artifact.Signature:
    """What the model takes and gives, with the arguments of the reading that training used."""
    assert recipe.task.classes is not None
    entry, scores, data = model.inputs[0], model.outputs[0], recipe.data
    return artifact.Signature(
        task=recipe.task.kind,
        inputs=(artifact.Tensor(data.input, entry.dtype.name, tuple(entry.shape), "NHWC"),),
        outputs=(artifact.Tensor("scores", scores.dtype.name, tuple(scores.shape), "NK"),),
        class_names=recipe.task.classes,
        preprocessing=(
            artifact.TensorPreprocessing(data.tensor_shape)
            if data.tensor_shape
            else artifact.ImagePreprocessing(data.map_size, data.map_channels)
        ),
    )


def _predictions(rows: Sequence[Rows], uri: str) -> pa.Table:
    """A row for each validation row: where it is, its label and its scores."""
    with fsspec.open(uri) as source, np.load(source, allow_pickle=False) as archive:
        labels, scores = archive["labels"], archive["scores"]
    return pa.table(
        {
            "path": pa.array([piece.path for piece in rows for _ in piece.offsets]),
            "row_group": pa.array([piece.row_group for piece in rows for _ in piece.offsets], pa.int64()),
            "row": pa.array(np.concatenate([piece.offsets for piece in rows]), pa.int64()),
            "label": pa.array(labels.astype(np.int64).tolist()),
            "scores": pa.array(scores.tolist(), pa.list_(pa.float32())),
        }
    )


def _image_reader(prepared: Prepared, validation: ShardPlan, rows: Sequence[Rows]) -> ReadImages:
    """Reads images, uint8 [H, W, C], by their place in the validation split."""
    ends = np.cumsum([len(piece) for piece in rows])

    def read(places: Sequence[int]) -> list[np.ndarray]:
        pieces = []
        for place in places:
            which = int(np.searchsorted(ends, place, side="right"))
            offset = place - int(ends[which])  # from the piece's end
            pieces.append(rows[which][slice(offset, offset + 1 or None)])
        batches = prepared.source.validation_batches(replace(validation, shards=(tuple(pieces),)), 0)
        return [image for batch in batches for image in prepared.source.input.decode(batch.inputs)]

    return read


def fetch_record(run: RunDirectory, directory: Path) -> None:
    """Steps and TensorBoard's files, as far as they could be written while the run went on; what is missing is said.

    Raises:
        OSError: the run's directory is away.
    """
    file_system, path = open_filesystem(run.uri)
    there = {name.rstrip("/").rpartition("/")[2] for name in file_system.ls(path, detail=False)}
    (directory / artifact.STEPS).touch()
    if artifact.STEPS in there:
        with in_scratch(directory):
            file_system.get_file(f"{path}/{artifact.STEPS}", str(directory / artifact.STEPS))
    if artifact.TENSORBOARD in there:
        local = directory / artifact.TENSORBOARD
        shutil.rmtree(local, ignore_errors=True)  # what an earlier try left: the copy would go into it
        with in_scratch(directory):
            file_system.get(f"{path}/{artifact.TENSORBOARD}", str(local), recursive=True)
    for name in sorted({artifact.STEPS, artifact.TENSORBOARD} - there):
        say(f"{run.uri} has no {name}: the model is published without what it would hold")


_QUARANTINE = pa.schema(
    [(name, pa.int64() if kind is int else pa.string()) for name, kind in BadRow.__annotations__.items()]
)
