"""A gang: all workers of a training run, started together in Spark's barrier tasks and watched until they end.

Each worker is a child of Spark's Python worker, so that its death is told with its exit code.
"""

import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from insitu.cluster.child import ChildDied, ChildFailed, Finished, run_in_child
from insitu.cluster.executors import describe_loss
from insitu.cluster.filesystem import say
from insitu.cluster.interrupts import LONGEST_STOP_SECONDS, STOP_SECONDS
from insitu.cluster.threads import pin_process, worker_environment
from insitu.errors import UserError, WorkerLost
from insitu.training.engines.base import Layout, Listener
from insitu.training.progress import ProgressServer, Reporter
from insitu.training.watchdog import Watchdog

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

_POLL_SECONDS = 1
_CANCEL_SECONDS = 60
_END_POLL_SECONDS = 0.1
_SETTLE_SECONDS = 1


@dataclass(frozen=True)
class Member:
    """A worker as it finds itself.

    Attributes:
        rank: its number, from 0.
        hosts: of all workers, by rank.
        cores: the CPUs that it is bound to.
        reporter: its line to the driver.
    """

    rank: int
    hosts: list[str]
    cores: list[int]
    reporter: Reporter


def run_gang(
    spark: "SparkSession",
    work: Callable[[Member], None],
    layout: Layout,
    listener: Listener,
    *,
    silence_seconds: float,
) -> None:
    """Run `work` in every worker until it has raised `Finished` in all.

    On Ctrl-C or SIGTERM the workers are asked to write a checkpoint and end; the limit is a minute without progress,
    and ten in all.

    Raises:
        UserError: as a worker raised it.
        WorkerError: a worker raised something else; the others are ended.
        WorkerLost: a worker or its executor died, or none made progress for `silence_seconds`.
    """
    context = spark.sparkContext
    conf = context.getConf()
    host = conf.get("spark.driver.host")
    assert host is not None
    watchdog = Watchdog(listener, workers=layout.workers, silence_seconds=silence_seconds)
    group = f"insitu-gang-{uuid4().hex[:8]}"
    server = ProgressServer(host, watchdog, bind=conf.get("spark.driver.bindAddress"))
    with _interrupts_only_python(), closing(watchdog), server:
        member = partial(_member, work, layout, server.reporter())
        job = in_background(partial(_run_job, context, group, member, layout.workers))
        try:
            stuck = _watch(job, watchdog)
        except (KeyboardInterrupt, SystemExit):
            print("stopping: the workers write a checkpoint; once more ends at once", file=sys.stderr, flush=True)
            server.ask_to_stop()
            _wait_for_stop(job, watchdog)
            raise
        finally:
            if not job.done():
                context.cancelJobGroup(group)
                server.give_up()
                wait_for_cancelled(job, watchdog.any_lives)
        if stuck:
            raise WorkerLost(stuck)
        error = job.exception()
        if error is not None:
            if "SparkContext was shut down" in str(error):
                raise error
            time.sleep(_SETTLE_SECONDS)  # for what the workers said last
            raise watchdog.failure(_lost_executor(spark, str(error)), str(error)) from None
    if watchdog.error:
        raise watchdog.error


def in_background(work: Callable[[], None]) -> "Future[None]":
    """Start in a daemon thread, which keeps no process from ending, as that of an executor would."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
            future.set_result(None)
        except BaseException as error:  # whoever asks the future gets it
            future.set_exception(error)

    threading.Thread(target=run, name="insitu-gang", daemon=True).start()
    return future


def wait_for_cancelled(job: "Future[None]", any_lives: Callable[[], bool]) -> None:
    """Wait until a cancelled gang has ended, a minute at most: workers outlive Spark's job, and may write meanwhile.

    Args:
        job: Spark's.
        any_lives: whether a worker does.
    """
    end = time.monotonic() + _CANCEL_SECONDS
    while not job.done() or any_lives():
        if time.monotonic() > end:
            say(f"the cancelled gang has not ended within {_CANCEL_SECONDS} s: its workers may still hold their cores")
            return
        time.sleep(_END_POLL_SECONDS)


@contextmanager
def _interrupts_only_python() -> Iterator[None]:
    """Ctrl-C raises and does nothing else: PySpark's own handler would cancel the gang before its checkpoint."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or "pyspark" not in getattr(handler, "__module__", ""):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _watch(job: "Future[None]", watchdog: Watchdog) -> str:
    """Wait for the job's end; returns who holds the gang up where it is stuck."""
    while not wait_for([job], _POLL_SECONDS).done:
        if watchdog.error:
            raise watchdog.error
        stuck = watchdog.stuck()
        if stuck:
            return stuck
    return ""


def _wait_for_stop(job: "Future[None]", watchdog: Watchdog) -> None:
    """Wait while the workers get further, in validation say, where they do not listen, or write; but not for ever."""
    asked = time.monotonic()
    while not wait_for([job], _POLL_SECONDS).done:
        now = time.monotonic()
        if now - max(asked, watchdog.last_progress()) > STOP_SECONDS or now - asked > LONGEST_STOP_SECONDS:
            print("the workers did not stop in time: the last checkpoint is older", file=sys.stderr, flush=True)
            return


def _lost_executor(spark: "SparkSession", spark_error: str) -> str:
    """What Spark says of a lost executor, in one line; "" where it lost none."""
    lost = re.search(r"ExecutorLostFailure \(executor (\S+) .*?\) Reason: (.*)", spark_error)
    return describe_loss(spark, lost[1], lost[2]) if lost else ""


def _run_job(context: "SparkContext", group: str, member: Callable[[Iterable[int]], Iterator[Any]], size: int) -> None:
    # Python workers are reused by tasks with the same environment. One of its own gives gangs workers in which
    # nothing else has started a thread: a fork of a worker that has read from HDFS would hang in its next read.
    environment = context.environment
    context.environment = environment | {"INSITU_GANG": "1"}
    context.setJobGroup(group, f"insitu gang of {size} workers", interruptOnCancel=True)
    try:
        context.parallelize(range(size), size).barrier().mapPartitions(member).collect()
    finally:
        context.environment = environment


def _member(work: Callable[[Member], None], layout: Layout, reporter: Reporter, tasks: Iterable[int]) -> Iterator[Any]:
    """In Spark's Python worker: take cores, work in a child, and tell the driver how it ended."""
    from pyspark import BarrierTaskContext, SparkFiles

    # Workers are killed, not ended: what they leave in their temporary directory goes with the application.
    tempfile.tempdir = SparkFiles.getRootDirectory()
    context = BarrierTaskContext.get()
    rank = context.partitionId()
    hosts = [info.address.rpartition(":")[0] for info in context.getTaskInfos()]
    try:
        run_in_child(lambda: _work(work, rank, hosts, layout, reporter))
    except (UserError, ChildFailed, ChildDied) as error:
        kind = error.kind if isinstance(error, ChildFailed) else type(error).__name__
        reporter({"event": "failed", "rank": rank, "host": hosts[rank], "kind": kind, "text": str(error)})
        raise
    return iter(())


def _work(work: Callable[[Member], None], rank: int, hosts: list[str], layout: Layout, reporter: Reporter) -> None:
    # Here and not in Spark's settings: Spark overwrites OMP_NUM_THREADS with `spark.task.cpus` (SPARK-42613).
    os.environ.update(worker_environment(layout.threads))
    reporter.live(rank, hosts[rank])
    cores = pin_process(local_rank=hosts[:rank].count(hosts[rank]), threads=layout.threads)
    try:
        work(Member(rank, hosts, cores, reporter))
    except Finished:
        reporter({"event": "done", "rank": rank})
        raise
