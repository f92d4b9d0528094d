"""The Orca engine: BigDL Orca's TF2 estimator on Spark, synchronous data parallelism in barrier tasks.

Orca's `SparkRunner`, the half of its TF2 `Estimator` that runs in a worker, makes the
`MultiWorkerMirroredStrategy` gang and trains in it. It is launched here and not by `Estimator.fit`,
which (BigDL 2.4.0) needs `spark.executor.cores` set by hand on a standalone cluster, picks the
workers' ports in an earlier job than the one that uses them, and returns the weights in the Spark
job's result.
"""

import json
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from insitu.cluster.cpu import bf16_is_faster, executors_cpu_flags, trains_in_bf16
from insitu.cluster.executors import wait_for_executors
from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS, open_filesystem, persist, say
from insitu.cluster.rendezvous import Missing, exchange
from insitu.cluster.threads import openmp_environment, openmp_threads
from insitu.data.cache import with_cache
from insitu.data.opened import Opened
from insitu.errors import UserError
from insitu.recipe import Recipe
from insitu.training.checkpoints import load_checkpoint
from insitu.training.engines.base import (
    PREDICTIONS,
    RESULT,
    WEIGHTS,
    Layout,
    Listener,
    Precision,
    TrainingJob,
    TrainingResult,
)
from insitu.training.gang import Member, run_gang
from insitu.training.rundir import persist_result
from insitu.training.weights import load_weights

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")
_RETRIES = 6


class OrcaEngine:
    """Trains on the executors of a Spark session."""

    def __init__(self, spark: "SparkSession") -> None:
        self._spark = spark

    def settle(self, recipe: Recipe, layout: Layout, opened: Opened, *, begun: Precision | None) -> Recipe:
        """`training.precision: auto` is chosen."""
        asked = recipe.training.precision if recipe.training.precision != "auto" else begun
        flags = frozenset() if asked == "fp32" else executors_cpu_flags(self._spark)
        if asked == "bf16" and not trains_in_bf16(flags):
            problem = "bf16, and not every executor's processor has AVX-512, without which oneDNN cannot train in it"
            mend = "go on with the run where all have it, or begin a new one" if begun == asked else "take auto"
            raise UserError("training.precision", problem, mend)
        precision = asked or ("bf16" if bf16_is_faster(flags) else "fp32")
        return recipe.model_copy(update={"training": recipe.training.model_copy(update={"precision": precision})})

    def train(self, job: TrainingJob, layout: Layout, listener: Listener) -> TrainingResult:
        silence = job.recipe.training.silence_seconds
        left = len(wait_for_executors(self._spark, layout.executors))
        if left < layout.executors:
            say(f"{left} of {layout.executors} executors are left: the workers share their cores, and are slower")
        run_gang(self._spark, partial(_fit, job, layout), layout, listener, silence_seconds=silence)
        result = persist_result(partial(_result, job), "reading the result", job.scratch)
        return TrainingResult(weights=f"{job.scratch}/{WEIGHTS}", predictions=f"{job.scratch}/{PREDICTIONS}", **result)


def _result(job: TrainingJob) -> dict[str, Any]:
    file_system, path = open_filesystem(f"{job.scratch}/{RESULT}")
    return json.loads(file_system.cat_file(path))


def _fit(job: TrainingJob, layout: Layout, member: Member) -> None:
    """One worker of the gang, to the end of the job's epochs, where its last callback raises `Finished`."""
    from bigdl.orca.learn.tf2.spark_runner import SparkRunner

    from insitu.training.callback_list import worker_callbacks
    from insitu.training.worker import distributed_batches, training_model

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    job = _with_cache(job, member)
    addresses = _addresses(job, layout, member)
    restored = _read(partial(load_checkpoint, job.checkpoints, job.resume_step)) if job.resume_step else None
    initial = _read(partial(load_weights, job.initial_weights)) if job.initial_weights and not restored else None
    runner = SparkRunner(
        model_creator=lambda _: training_model(job, restored, initial),
        size=layout.workers,
        cluster_info=(addresses, addresses),
        config={"inter_op_parallelism": 1, "intra_op_parallelism": layout.threads},
        mode="fit",
    )
    rank, host = member.rank, member.hosts[member.rank]
    place = {"rank": rank, "host": host, "cores": member.cores, "threads": openmp_threads()}
    openmp = {name: os.environ[name] for name in openmp_environment(layout.threads)}
    member.reporter({"event": "worker", **place, "openmp": openmp})
    runner.distributed_train_func(
        lambda *_: distributed_batches(job, layout.threads),
        {"batch_size": job.recipe.training.global_batch},
        epochs=job.first_step // job.train.steps if restored and restored.stopped else job.last_epoch,
        steps_per_epoch=job.train.steps,
        callbacks=worker_callbacks(job, rank, member.reporter, restored),
        verbose=0,
    )


def _with_cache(job: TrainingJob, member: Member) -> TrainingJob:
    rows = sum(len(piece) for plan in (job.train, job.validation) for piece in plan.shards[member.rank])
    workers = member.hosts.count(member.hosts[member.rank])
    return replace(job, source=with_cache(job.source, job.recipe.data.cache_mib, rows=rows, workers=workers))


def _read(action: Callable[[], T]) -> T:
    """What the worker starts from; a file system that stays away for a minute is worth another start of the gang."""
    try:
        return persist(action, "reading what to start from", retries=_RETRIES)
    except FILE_SYSTEM_ERRORS as error:
        raise OSError(f"what to start from cannot be read ({error})") from error


def _addresses(job: TrainingJob, layout: Layout, member: Member) -> list[str]:
    """Every worker's host:port, by rank."""
    host = member.hosts[member.rank]
    wait_seconds = job.recipe.training.silence_seconds / 2  # before the watchdog would say less of it
    with socket.socket() as port:
        port.bind(("", 0))
        address = f"{host}:{port.getsockname()[1]}"
        gang = f"{job.scratch}/addresses"
        try:
            return exchange(gang, address, rank=member.rank, size=layout.workers, timeout_seconds=wait_seconds)
        except Missing as missing:
            if missing.others:
                raise TimeoutError(f"{missing}, as seen from {host}") from None
            limit = f"half of training.silence_seconds = {job.recipe.training.silence_seconds:g}"
            mend = "name a directory that all hosts share, such as one of hdfs://, or give slow workers longer"
            raise UserError("--output", f"{missing} ({limit}), as seen from {host} through {gang}", mend) from None
        except FILE_SYSTEM_ERRORS as error:
            raise OSError(f"the addresses cannot be exchanged through {gang} ({error})") from error
