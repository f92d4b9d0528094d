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
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fsspec

from insitu.cluster.executors import executor_cores
from insitu.cluster.failures import workers_user_errors
from insitu.cluster.rendezvous import exchange
from insitu.cluster.threads import openmp_threads, pin_process, worker_environment
from insitu.errors import UserError
from insitu.training.engines.base import RESULT, WEIGHTS, Layout, Listener, TrainingJob, TrainingResult, WorkerFailure
from insitu.training.progress import ProgressServer, Reporter

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class OrcaEngine:
    """Trains on the executors of a Spark session."""

    def __init__(self, spark: "SparkSession") -> None:
        self._spark = spark

    def layout(self, workers: int | None) -> Layout:
        cores = executor_cores(self._spark)
        workers = workers or len(cores)
        per_executor, uneven = divmod(workers, len(cores))
        if uneven or per_executor > min(cores):
            raise UserError(
                "training.workers",
                f"{workers} workers do not fit {len(cores)} executors of {min(cores)} cores",
                f"set a multiple of {len(cores)} that is at most {len(cores) * min(cores)}",
            )
        return Layout(workers, per_executor, min(cores) // per_executor)

    def train(self, job: TrainingJob, layout: Layout, listener: Listener) -> TrainingResult:
        context = self._spark.sparkContext
        # Python workers are reused between tasks that have the same environment. The run's name in it
        # gives every run new ones: TensorFlow takes its thread settings once in a process's life.
        environment = context.environment
        context.environment = environment | {"INSITU_RUN": uuid4().hex}
        conf = context.getConf()
        host = conf.get("spark.driver.host")
        assert host is not None
        with ProgressServer(host, listener, bind=conf.get("spark.driver.bindAddress")) as server:
            worker = partial(_run_worker, job=job, layout=layout, reporter=server.reporter())
            gang = context.parallelize(range(layout.workers), layout.workers).barrier()
            try:
                with workers_user_errors():
                    gang.mapPartitions(worker).collect()
            finally:
                context.environment = environment
        return _result(job)


def _run_worker(tasks: Iterable[int], *, job: TrainingJob, layout: Layout, reporter: Reporter) -> Iterator[Any]:
    """One worker of the gang, from its cores to the end of the job's epochs."""
    from pyspark import BarrierTaskContext, SparkFiles

    # A Python worker is killed, not ended: what TensorFlow leaves in its temporary directory goes with the application.
    tempfile.tempdir = SparkFiles.getRootDirectory()
    # Here and not in Spark's settings: Spark overwrites OMP_NUM_THREADS with `spark.task.cpus` (SPARK-42613).
    os.environ.update(worker_environment(layout.threads))
    context = BarrierTaskContext.get()
    rank = context.partitionId()
    hosts = [info.address.rpartition(":")[0] for info in context.getTaskInfos()]
    cores = pin_process(local_rank=hosts[:rank].count(hosts[rank]), threads=layout.threads)
    try:
        _fit(rank, hosts, cores, job, layout, reporter)
    except Exception as error:
        raise WorkerFailure(rank, hosts[rank]) from error
    return iter(())


def _fit(rank: int, hosts: list[str], cores: list[int], job: TrainingJob, layout: Layout, reporter: Reporter) -> None:
    from bigdl.orca.learn.tf2.spark_runner import SparkRunner

    from insitu.training.callbacks import worker_callbacks
    from insitu.training.worker import distributed_batches, training_model

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with socket.socket() as port:
        port.bind(("", 0))
        address = f"{hosts[rank]}:{port.getsockname()[1]}"
        gang = f"{job.scratch}/gang-{job.first_epoch}"
        try:
            addresses = exchange(gang, address, rank=rank, size=layout.workers)
        except TimeoutError as error:
            mend = "name a directory that all hosts share, such as one of hdfs://"
            raise UserError("--output", f"{error}, as seen from {hosts[rank]} through {gang}", mend) from None
    runner = SparkRunner(
        model_creator=lambda _: training_model(job, rank=rank),
        size=layout.workers,
        cluster_info=(addresses, addresses),
        config={"inter_op_parallelism": 1, "intra_op_parallelism": layout.threads},
        mode="fit",
    )
    reporter({"event": "worker", "rank": rank, "host": hosts[rank], "cores": cores, "threads": openmp_threads()})
    runner.distributed_train_func(
        lambda *_: distributed_batches(job, layout.threads),
        {"batch_size": job.recipe.training.global_batch},
        initial_epoch=job.first_epoch,
        epochs=job.last_epoch,
        steps_per_epoch=job.train.steps,
        callbacks=worker_callbacks(job, reporter),
        verbose=0,
    )


def _result(job: TrainingJob) -> TrainingResult:
    with fsspec.open(f"{job.scratch}/{RESULT}") as source:
        return TrainingResult(weights=f"{job.scratch}/{WEIGHTS}", **json.load(source))
