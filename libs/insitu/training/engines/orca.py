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
from functools import partial
from typing import TYPE_CHECKING, Any

from insitu.cluster.executors import executor_cores
from insitu.cluster.filesystem import open_filesystem
from insitu.cluster.rendezvous import exchange
from insitu.cluster.threads import openmp_environment, openmp_threads
from insitu.errors import UserError
from insitu.training.checkpoints import load_checkpoint
from insitu.training.engines.base import PREDICTIONS, RESULT, WEIGHTS, Layout, Listener, TrainingJob, TrainingResult
from insitu.training.gang import Member, run_gang
from insitu.training.rundir import persist_result

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class OrcaEngine:
    """Trains on the executors of a Spark session."""

    def __init__(self, spark: "SparkSession") -> None:
        self._spark = spark

    def layout(self, workers: int | None) -> Layout:
        return Layout.on(executor_cores(self._spark), workers)

    def train(self, job: TrainingJob, layout: Layout, listener: Listener) -> TrainingResult:
        silence = job.recipe.training.silence_seconds
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
    addresses = _addresses(job, layout, member)
    restored = load_checkpoint(job.checkpoints, job.resume_step) if job.resume_step else None
    runner = SparkRunner(
        model_creator=lambda _: training_model(job, restored),
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


def _addresses(job: TrainingJob, layout: Layout, member: Member) -> list[str]:
    """Every worker's host:port, by rank."""
    host = member.hosts[member.rank]
    with socket.socket() as port:
        port.bind(("", 0))
        address = f"{host}:{port.getsockname()[1]}"
        gang = f"{job.scratch}/addresses"
        try:
            return exchange(gang, address, rank=member.rank, size=layout.workers)
        except TimeoutError as error:
            mend = "name a directory that all hosts share, such as one of hdfs://"
            raise UserError("--output", f"{error}, as seen from {host} through {gang}", mend) from None
