"""The driver's handle on a BigDL training run in the executors' JVMs (`jvm/Trainer.scala`)."""

import errno
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import TYPE_CHECKING, Any, TypeVar

from insitu.cluster.executors import describe_loss, executor_ids, is_local, removal_reason
from insitu.cluster.filesystem import say
from insitu.cluster.interrupts import LONGEST_STOP_SECONDS, STOP_SECONDS, DeferredInterrupts
from insitu.cluster.threads import core_numbers
from insitu.errors import UserError, WorkerError, WorkerLost

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")

_POLL_SECONDS = 1
_LOSS_SECONDS = 2
_SURE_LOSS_SECONDS = 20
_CLOSE_SECONDS = 10
# Spark's account of a failed stage, and in it what the worker itself said.
_FAILURE = re.compile(
    r"Task (\d+) in stage .*?\(TID \d+\) \(\S+ executor \S+\): (.*?)(?:\n\nDriver stack|\Z)", re.DOTALL
)
_PASSING_ERRORS = ("java.io.", "java.net.", "java.nio.file.", "org.apache.hadoop.")
"""What a file system or a network that is full or away raises."""
_LOSSES = ("com.intel.analytics.bigdl.insitu.WorkerGone", "org.apache.spark.insitu.BlockMissing")
"""What a worker raises where another one, or itself, has got lost."""
_NO_ROOM = "org.apache.spark.insitu.NoRoom"
_NOT_THERE = "java.io.FileNotFoundException"


class _Passing(WorkerLost):
    """A worker could not read or write."""


class Trainer:
    """Workers that train in step, within a `with` block; every call returns when all of them have done it.

    Args:
        spark: the session.
        settings: as `jvm/Settings.scala` says, with snake-case keys.
        silence_seconds: how long a call may take.
        interrupts: delivered in a call that has lasted a minute, or ten if it reads or writes what is stored; the
            workers are then of no more use.

    Attributes:
        cores: that each worker's executor may run on, by rank; set within the `with` block.
    """

    def __init__(
        self,
        spark: "SparkSession",
        settings: dict[str, Any],
        *,
        silence_seconds: float,
        interrupts: DeferredInterrupts,
    ) -> None:
        self._spark = spark
        self._executors, self._hosts, self._initial = settings["executors"], settings["hosts"], settings["initial"]
        self._silence_seconds = silence_seconds
        self._interrupts = interrupts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="insitu-bigdl")
        jvm: Any = spark.sparkContext._jvm
        self._trainer = jvm.com.intel.analytics.bigdl.insitu.Trainer(spark._jsparkSession, json.dumps(settings))

    def __enter__(self) -> "Trainer":
        """Make the workers."""
        try:
            self.cores = [core_numbers(ranges) for ranges in self._call(self._trainer.start)]
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End them, as far as that is possible in some seconds: what counts is the run's error or its result."""
        if kind is not None:
            self._trainer.cancel()
        closed = self._thread.submit(self._trainer.close)
        wait_for([closed], _CLOSE_SECONDS)
        if kind is None and not (closed.done() and closed.exception() is None):
            say("BigDL's workers were not ended: what they hold in memory is free when their executors end")
        self._thread.shutdown(wait=False, cancel_futures=True)

    def step(self, step: int, rate: float) -> float:
        """Step number `step` of the run, from 0; returns the mean loss of the global batch."""
        return float(self._call(lambda: self._trainer.step(step, rate)))

    def validate(self, directory: str) -> Iterator[int]:
        """Score the validation rows into this machine's files `scores-RANK` and `labels-RANK`; yields rows done."""
        self._call(self._trainer.beginValidation)
        done = 0
        while rows := int(self._call(lambda: self._trainer.validate(directory))):
            done += rows
            yield done

    def save(self, directory: str) -> int:
        """Write `parameters-RANK`, the optimiser's `slotI-RANK`, and `statistics`; returns the number of slots.

        Raises:
            OSError: the file system is full or away.
        """
        return int(self._stored(lambda: self._trainer.save(directory)))

    def load(self, directory: str) -> None:
        """Take over `parameters` and `statistics`.

        Raises:
            OSError: the file system is away.
        """
        self._stored(lambda: self._trainer.load(directory))

    def _stored(self, action: Callable[[], T]) -> T:
        """A call whose input and output errors are the file system's, not the workers'."""
        try:
            return self._call(action, stored=True)
        except _Passing as error:
            raise _os_error(str(error)) from None

    def _call(self, action: Callable[[], T], *, stored: bool = False) -> T:
        stop_seconds = LONGEST_STOP_SECONDS if stored else STOP_SECONDS
        pending = self._thread.submit(action)
        started = time.monotonic()
        while not pending.done():
            lasted = time.monotonic() - started
            self._interrupts.deliver(after_seconds=stop_seconds if lasted >= stop_seconds else math.inf)
            if lasted > self._silence_seconds:
                raise WorkerLost(f"the workers did not answer for {self._silence_seconds:.0f} s")
            wait_for([pending], _POLL_SECONDS)
        error = pending.exception()
        if error is not None:
            raise self._told(error) from None
        return pending.result()

    def _told(self, error: BaseException) -> BaseException:
        from py4j.protocol import Py4JJavaError

        if not isinstance(error, Py4JJavaError) or "SparkContext was shut down" in str(error):
            return error
        failure = str(error.java_exception)
        found = _FAILURE.search(failure)
        rank, what = (int(found[1]), found[2].rstrip()) if found else (0, "")
        lost = self._lost(_SURE_LOSS_SECONDS if what.startswith(_LOSSES) else _LOSS_SECONDS)
        if lost:
            return WorkerLost(lost)
        if not what:
            return WorkerError(failure)
        if what.startswith(_NO_ROOM):
            return self._no_room(what.splitlines()[0].removeprefix(f"{_NO_ROOM}: "))
        if what.startswith(_NOT_THERE) and "/".join(self._initial.split("/")[-2:]) in what.splitlines()[0]:
            problem = f"rank {rank} on {self._hosts[rank]} does not find {self._initial}, which the driver wrote"
            return UserError("--output", problem, "name a directory that all hosts share, such as one of hdfs://")
        kinds = {_PASSING_ERRORS: _Passing, _LOSSES: WorkerLost}
        kind = next((kind for names, kind in kinds.items() if what.startswith(names)), WorkerError)
        return kind(f"rank {rank} on {self._hosts[rank]}:\n{what}")

    def _no_room(self, told: str) -> UserError:
        setting = "spark.driver.memory" if is_local(self._spark) else "spark.executor.memory"
        return UserError(setting, told, "raise it or spark.memory.fraction, or unpersist what is cached there")

    def _lost(self, seconds: float) -> str:
        """Which executors are gone, once Spark knows; "" where it knows of none by then."""
        end = time.monotonic() + seconds
        while True:
            gone = sorted(set(self._executors) - set(executor_ids(self._spark)))
            if gone or time.monotonic() > end:
                losses = [(executor, removal_reason(self._spark, executor)) for executor in gone]
                return "; ".join(describe_loss(self._spark, executor, reason) for executor, reason in losses)
            time.sleep(_POLL_SECONDS / 4)


def _os_error(told: str) -> OSError:
    """A worker's words as one line, with the number by which a full file system is known."""
    line = " ".join(told.splitlines()[:2])
    number = next((code for code in (errno.ENOSPC, errno.EDQUOT) if os.strerror(code) in line), errno.EIO)
    return OSError(number, line)
