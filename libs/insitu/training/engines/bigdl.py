"""The BigDL engine: the Keras topology, converted, trained by dllib's layers in the executors' JVMs.

Synchronous data parallelism: gradients cross through Spark's block manager, as
BigDL does it (Dai et al. 2019, arXiv:1804.05839, section 3.3), and no Python runs in a step; the scan
before it is Python's.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from insitu.artifact import upload
from insitu.bigdl.convert import convert
from insitu.bigdl.converted import Converted
from insitu.bigdl.memory import check_memory, estimate
from insitu.bigdl.trainer import Trainer
from insitu.bigdl.vectors import write_start, write_vector
from insitu.cluster.executors import executor_host, wait_for_executors
from insitu.cluster.filesystem import open_filesystem
from insitu.cluster.interrupts import DeferredInterrupts
from insitu.data.opened import Opened
from insitu.data.pipeline import Source
from insitu.data.plan import ShardPlan
from insitu.errors import UserError, WorkerLost
from insitu.recipe import Recipe
from insitu.training.checkpoints import Checkpoint, load_checkpoint
from insitu.training.engines.base import Layout, Listener, Precision, TrainingJob, TrainingResult
from insitu.training.engines.bigdl_run import BigdlRun
from insitu.training.rundir import persist_result
from insitu.training.weights import load_weights
from insitu.training.worker import build_model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class BigdlEngine:
    """Trains on the executors of a Spark session."""

    def __init__(self, spark: "SparkSession") -> None:
        self._spark = spark

    def settle(self, recipe: Recipe, layout: Layout, opened: Opened, *, begun: Precision | None) -> Recipe:
        """`training.bigdl.engine_type` is chosen, and the executors' memory is checked."""
        bigdl = recipe.training.bigdl.model_copy(update={"engine_type": _engine_type(recipe, layout)})
        training = recipe.training.model_copy(update={"precision": "fp32", "bigdl": bigdl})
        recipe = recipe.model_copy(update={"training": training})
        # Where nothing names the classes the scan will count them: the head is little of a topology.
        converted = convert(build_model(recipe, len(opened.class_names) or 2))
        _check_normalization(converted, recipe, layout)
        self._check_memory(recipe, converted, layout, opened)
        return recipe

    def train(self, job: TrainingJob, layout: Layout, listener: Listener) -> TrainingResult:
        executors = self._executors(layout)
        model = build_model(job.recipe, len(job.class_names))
        converted = convert(model)
        restored, weights = persist_result(
            lambda: _start(job, model.get_weights), "reading what to start from", job.scratch
        )
        persist_result(
            lambda: _write_inputs(job, converted, weights, restored), "writing the initial weights", job.scratch
        )
        settings = _settings(job, converted, layout) | executors
        silence = job.recipe.training.silence_seconds
        with DeferredInterrupts(_tell_of_stop) as interrupts:
            trainer = Trainer(self._spark, settings, silence_seconds=silence, interrupts=interrupts)
            with trainer:
                for rank, (host, cores) in enumerate(zip(executors["hosts"], trainer.cores, strict=True)):
                    place = {"rank": rank, "host": host, "cores": cores, "threads": layout.threads, "openmp": {}}
                    listener({"event": "worker", **place})
                return BigdlRun(job, trainer, converted, listener, restored, interrupts).train()

    def _check_memory(self, recipe: Recipe, converted: Converted, layout: Layout, opened: Opened) -> None:
        data, engine_type = recipe.data, recipe.training.bigdl.engine_type
        workers, local_batch = layout.workers_per_executor, recipe.training.global_batch // layout.workers
        needed = estimate(
            converted,
            engine_type,
            local_batch=local_batch,
            threads=layout.threads,
            workers=workers,
            input_bytes=4 * math.prod(data.map_size) * data.map_channels,
            window_rows=min(opened.window_rows(data.shuffle_mib, local_batch), opened.rows // layout.workers),
            row_bytes=opened.row_bytes,
        )
        check_memory(self._spark, needed, engine_type, images=workers * local_batch)

    def _executors(self, layout: Layout) -> dict[str, Any]:
        """Ids and hosts by rank."""
        ids = wait_for_executors(self._spark, layout.executors)
        if len(ids) < layout.executors:
            left = f"{len(ids)} of {layout.executors} executors are left, and the cluster gives no others"
            raise WorkerLost(f"{left}; --resume with other training.workers goes on with fewer")
        executors = [each for each in ids[: layout.executors] for _ in range(layout.workers_per_executor)]
        hosts = [executor_host(self._spark, each) for each in executors]
        return {"executors": executors, "hosts": hosts}


def _tell_of_stop() -> None:
    print("stopping: a checkpoint is written; once more ends at once", file=sys.stderr, flush=True)


def _engine_type(recipe: Recipe, layout: Layout) -> Literal["mklblas", "mkldnn"]:
    asked, several = recipe.training.bigdl.engine_type, layout.workers_per_executor > 1
    if asked == "mkldnn" and several:
        raise UserError(
            "training.bigdl.engine_type",
            f"mkldnn trains one worker an executor, and training.workers asks for {layout.workers_per_executor}",
            "leave training.workers out, or take mklblas",
        )
    return ("mklblas" if several else "mkldnn") if asked == "auto" else asked


def _check_normalization(converted: Converted, recipe: Recipe, layout: Layout) -> None:
    local_batch, threads = recipe.training.global_batch // layout.workers, layout.threads
    if recipe.training.bigdl.engine_type == "mklblas" and converted.statistics and local_batch < 2 * threads:
        raise UserError(
            "training.global_batch",
            f"{local_batch} images for a worker's {threads} threads, and under mklblas each normalizes its part",
            f"give each worker at least {2 * threads}, or take training.bigdl.engine_type=mkldnn",
        )


def _settings(job: TrainingJob, converted: Converted, layout: Layout) -> dict[str, Any]:
    """For `jvm/Settings.scala`."""
    training = job.recipe.training
    weights = np.zeros(0) if job.class_weights is None else job.class_weights
    optimizer = training.optimizer.model_dump(exclude={"base_batch", "learning_rate"})
    return {
        "run": f"insitu-{uuid4().hex[:8]}",
        "engine": training.bigdl.engine_type,
        "threads": layout.threads,
        "truncated": training.gradients == "bf16",
        "topology": converted.topology,
        "segments": [
            {"offset": variable.offset, "size": variable.size, "kernel": variable.rank > 1}
            for variable in converted.parameters
        ],
        "scale": converted.scale,
        "offset": converted.offset,
        "activation": converted.activation,
        "class_weights": weights.ravel().tolist(),
        "source": source_json(job.source),
        "augment": training.augment.model_dump_json(),
        "train_plan": f"{job.scratch}/train.parquet",
        "validation_plan": f"{job.scratch}/validation.parquet",
        "window_rows": job.train.window_rows,
        "seed": training.seed,
        "local_batch": job.train.local_batch,
        "steps": job.train.steps,
        "first_step": job.first_step,
        "optimizer": optimizer | {"clip_norm": training.clip_norm},
        "initial": f"{job.scratch}/initial",
    }


def source_json(source: Source) -> str:
    """For `Source.parse`, jvm/RowGroups.scala."""
    height, width, channels = source.input.shape
    return json.dumps(
        {
            "input": source.input.column.name,
            "input_form": source.input.column.form,
            "label": source.label.name,
            "label_form": source.label.form,
            "label_width": math.prod(source.label_shape),
            "height": height,
            "width": width,
            "channels": channels,
        }
    )


def _start(job: TrainingJob, fresh: Callable[[], list[np.ndarray]]) -> tuple[Checkpoint | None, list[np.ndarray]]:
    """The checkpoint that is gone on from, if any, and the weights."""
    if job.resume_step:
        checkpoint = load_checkpoint(job.checkpoints, job.resume_step)
        return checkpoint, checkpoint.weights
    return None, load_weights(job.initial_weights) if job.initial_weights else fresh()


def _write_inputs(
    job: TrainingJob, converted: Converted, weights: list[np.ndarray], restored: Checkpoint | None
) -> None:
    file_system, path = open_filesystem(f"{job.scratch}/initial")
    file_system.makedirs(path, exist_ok=True)
    write_start(converted, weights, f"{job.scratch}/initial")
    for i, slot in enumerate(restored.optimizer if restored else ()):
        write_vector(slot, f"{job.scratch}/initial/slot{i}")
    write_plan(job.train, f"{job.scratch}/train.parquet")
    write_plan(job.validation, f"{job.scratch}/validation.parquet")


def write_plan(plan: ShardPlan, uri: str) -> None:
    """For `Shards.read`, jvm/RowGroups.scala."""
    rows = [(rank, position, piece) for rank, shard in enumerate(plan.shards) for position, piece in enumerate(shard)]
    table = pa.table(
        {
            "worker": pa.array([rank for rank, _, _ in rows], pa.int32()),
            "position": pa.array([position for _, position, _ in rows], pa.int32()),
            "path": pa.array([piece.path for _, _, piece in rows], pa.string()),
            "row_group": pa.array([piece.row_group for _, _, piece in rows], pa.int32()),
            "offsets": pa.array([piece.offsets.astype(np.int32) for _, _, piece in rows], pa.list_(pa.int32())),
        }
    )
    with TemporaryDirectory(prefix="insitu-") as scratch:
        local = Path(scratch) / "plan.parquet"
        pq.write_table(table, local)
        upload(local, uri)
