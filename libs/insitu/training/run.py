"""Training as a whole: check, scan, plan, train, and publish the model directory."""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from insitu import artifact, models
from insitu.cluster.filesystem import qualify
from insitu.data.scan import BadRow
from insitu.models.transfer import start_from
from insitu.provenance import code_version, environment
from insitu.recipe import Recipe
from insitu.training.engines.base import Engine, Event, Listener, TrainingJob, TrainingResult
from insitu.training.prepare import Prepared, check_batch, prepare, resolve, shard
from insitu.training.weights import load_weights, save_weights
from insitu.training.worker import build_model

if TYPE_CHECKING:
    import keras
    from pyspark.sql import SparkSession


def train(
    spark: "SparkSession", recipe: Recipe, *, data: str, output: str, listener: Listener | None = None
) -> dict[str, Any]:
    """Train a recipe on a Parquet dataset and publish a model directory.

    Args:
        spark: the session on whose executors the workers run.
        recipe: from `insitu.recipe.load`.
        data: a Parquet directory or file, on any file system that Spark reads.
        output: the model directory to make; nothing may be there yet.
        listener: called with every event of the workers; None prints them to stderr.

    Returns:
        the summary: `output`, `engine`, `workers`, `precision`, `epochs`, `steps`,
        `images_per_second`, `metrics` (of the whole validation split), `quarantined` and `seconds`.

    Raises:
        UserError: anything that the user can mend, found before training where that is possible.
    """
    started = time.time()
    data, output = qualify(spark, "--data", data), qualify(spark, "--output", output)
    artifact.check_free(output)
    if recipe.model.init:
        init = qualify(spark, "model.init", recipe.model.init)
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"init": init})})
    models.check(recipe.model.name, size=recipe.data.size, options=recipe.model.options)
    if recipe.training.workers:
        check_batch(recipe.training.global_batch, recipe.training.workers)
    with artifact.scratch_directory(output) as scratch, _parent_model(recipe) as parent:
        prepared = prepare(spark, recipe, data)
        engine = _engine(recipe, spark)
        layout = engine.layout(recipe.training.workers)
        recipe = resolve(spark, recipe, prepared, layout)
        train_plan, validation_plan = shard(recipe, prepared, layout)
        model = build_model(recipe, len(prepared.class_names))
        if parent is not None:
            start_from(model, parent)
        initial = f"{scratch}/initial.npz"
        save_weights(model.get_weights(), initial)
        results = []
        for first, last, train_trunk in _phases(recipe):
            job = TrainingJob(
                recipe=recipe,
                class_names=prepared.class_names,
                source=prepared.source,
                train=train_plan,
                validation=validation_plan,
                class_weights=prepared.class_weights(recipe),
                initial_weights=initial,
                scratch=scratch,
                first_epoch=first,
                last_epoch=last,
                train_trunk=train_trunk,
            )
            results.append(engine.train(job, layout, listener or print_event))
            initial = results[-1].weights
        model.set_weights(load_weights(initial))
    summary = _summary(recipe, prepared, output, results, started)
    _publish(model, recipe, prepared, results, summary, started)
    return summary


def print_event(event: Event) -> None:
    """A line on stderr for an event of a worker."""
    if event["event"] == "worker":
        cores = ",".join(map(str, event["cores"]))
        line = f"worker {event['rank']} on {event['host']}: cores {cores}, {event['threads']} threads"
    else:
        shown = {name: value for name, value in event["validation"].items() if isinstance(value, float)}
        line = (
            f"epoch {event['epoch'] + 1}: loss {event['loss']:.4f}, "
            + ", ".join(f"validation {name} {value:.4f}" for name, value in shown.items())
            + f", learning rate {event['learning_rate']:.3g}, {event['images_per_second']:.1f} images/s"
        )
    print(line, file=sys.stderr, flush=True)


def _engine(recipe: Recipe, spark: "SparkSession") -> Engine:
    from insitu.training.engines.orca import OrcaEngine

    return {"orca": OrcaEngine}[recipe.training.engine](spark)


@contextmanager
def _parent_model(recipe: Recipe) -> Iterator["keras.Model | None"]:
    """The verified model that `model.init` names, if it names one."""
    if recipe.model.init is None:
        yield None
        return
    with artifact.verified(recipe.model.init, setting="model.init") as directory:
        yield artifact.load_keras(directory)


def _phases(recipe: Recipe) -> list[tuple[int, int, bool]]:
    """Runs of epochs with a frozen and then a free trunk, as (first, end, whether the trunk learns)."""
    epochs, frozen = recipe.training.epochs, min(recipe.model.freeze_trunk_epochs, recipe.training.epochs)
    phases = [(0, frozen, False), (frozen, epochs, True)]
    return [phase for phase in phases if phase[0] < phase[1]]


def _summary(
    recipe: Recipe, prepared: Prepared, output: str, results: list[TrainingResult], started: float
) -> dict[str, Any]:
    return {
        "output": output,
        "engine": recipe.training.engine,
        "workers": recipe.training.workers,
        "precision": recipe.training.precision,
        "epochs": sum(len(result.history) for result in results),
        "steps": sum(result.steps for result in results),
        "images_per_second": round(results[-1].images_per_second, 1),
        "metrics": results[-1].metrics,
        "quarantined": prepared.scan.bad_rows,
        "seconds": round(time.time() - started, 1),
    }


def _publish(
    model: "keras.Model",
    recipe: Recipe,
    prepared: Prepared,
    results: list[TrainingResult],
    summary: dict[str, Any],
    started: float,
) -> None:
    with tempfile.TemporaryDirectory(prefix="insitu-") as scratch:
        directory = Path(scratch)
        model.save(directory / artifact.MODEL)
        (directory / artifact.RECIPE).write_text(recipe.to_yaml())
        artifact.write_json(directory / artifact.SIGNATURE, _signature(model, recipe).to_json())
        artifact.write_json(directory / artifact.METRICS, summary["metrics"])
        artifact.write_json(directory / artifact.PROVENANCE, _provenance(recipe, prepared, summary, started))
        history = [json.dumps(line) + "\n" for result in results for line in result.history]
        (directory / artifact.HISTORY).write_text("".join(history))
        quarantine = pa.Table.from_pylist([asdict(row) for row in prepared.scan.bad], _QUARANTINE)
        pq.write_table(quarantine, directory / artifact.QUARANTINE)
        artifact.publish(directory, summary["output"])


def _signature(model: "keras.Model", recipe: Recipe) -> artifact.Signature:
    """What the model takes and gives, with the arguments of the decoder that training used."""
    assert recipe.task.classes is not None
    image, scores = model.inputs[0], model.outputs[0]
    return artifact.Signature(
        task=recipe.task.kind,
        inputs=(artifact.Tensor("image", image.dtype.name, tuple(image.shape), "NHWC"),),
        outputs=(artifact.Tensor("scores", scores.dtype.name, tuple(scores.shape), "NK"),),
        class_names=recipe.task.classes,
        preprocessing=artifact.Preprocessing(artifact.DECODER, recipe.data.size, recipe.data.channels),
    )


def _provenance(recipe: Recipe, prepared: Prepared, summary: dict[str, Any], started: float) -> dict[str, Any]:
    rows = {name: sum(map(len, pieces)) for name, pieces in prepared.scan.rows.items()}
    return {
        "data": {
            "uri": prepared.dataset.uri,
            "fingerprint": prepared.dataset.fingerprint,
            "rows": {**rows, "quarantined": prepared.scan.bad_rows, "unused": prepared.scan.unused},
        },
        "code": code_version(),
        "parent_model": recipe.model.init,
        "environment": environment(),
        "seed": recipe.training.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "run": {name: summary[name] for name in ("workers", "precision", "epochs", "steps", "seconds")},
    }


_QUARANTINE = pa.schema(
    [(name, pa.int64() if kind is int else pa.string()) for name, kind in BadRow.__annotations__.items()]
)
