"""The executors of a running Spark application."""

import time
from typing import TYPE_CHECKING, Any

from insitu.cluster.failures import exit_cause
from insitu.errors import UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_REPLACED_SECONDS = 60
_TOGETHER_SECONDS = 2
"""Executors that start together have registered when so long no other one has."""


def started_executors(spark: "SparkSession") -> list[int]:
    """The number of cores of each executor, once those that the application starts with have registered.

    In local mode the driver is the only one. Elsewhere Spark's first job waits until one is there, or all that
    were asked for (`spark.scheduler.minRegisteredResourcesRatio`); a standalone cluster gives an application without
    `spark.cores.max` one on each of its workers, and does not say how many these are.

    Raises:
        UserError: executors come and go (`spark.dynamicAllocation.enabled`), and a gang needs the same ones to its end.
    """
    if not is_local(spark):
        _check_fixed(spark)
        spark.range(1).count()
        ids = executor_ids(spark)
        time.sleep(_TOGETHER_SECONDS)
        while (now := executor_ids(spark)) != ids:
            ids = now
            time.sleep(_TOGETHER_SECONDS)
    return executor_cores(spark)


def _check_fixed(spark: "SparkSession") -> None:
    setting = "spark.dynamicAllocation.enabled"
    if spark.sparkContext.getConf().get(setting, "false") == "true":
        mend = f"give --conf {setting}=false, and --num-executors on YARN or Kubernetes"
        raise UserError(setting, "true: executors would come and go, and training needs the same ones to its end", mend)


def executor_cores(spark: "SparkSession") -> list[int]:
    """The number of cores of each executor that has registered; in local mode the driver is the only one.

    Spark's own list is asked because `spark.executor.cores` is not set on a standalone cluster
    unless the user sets it (BigDL's `Engine.init` refuses to start there).
    """
    return [int(executor.totalCores()) for executor in _working(spark)]


def executor_ids(spark: "SparkSession") -> list[str]:
    """The ids of these executors, in the same order."""
    return [str(executor.id()) for executor in _working(spark)]


def wait_for_executors(spark: "SparkSession", wanted: int) -> list[str]:
    """These ids, waited for while they are too few, a minute at most: a cluster replaces a lost executor in seconds."""
    end = time.monotonic() + _REPLACED_SECONDS
    while len(ids := executor_ids(spark)) < wanted and time.monotonic() < end:
        time.sleep(1)
    return ids


def executor_host(spark: "SparkSession", executor_id: str) -> str:
    """The host of an executor, also of one that is lost."""
    return str(_executor(spark, executor_id).hostPort()).rpartition(":")[0]


def removal_reason(spark: "SparkSession", executor_id: str) -> str:
    """Why Spark has removed an executor, in its words; it says so of every one that is not among `executor_ids`."""
    return str(_executor(spark, executor_id).removeReason().get())


def describe_loss(spark: "SparkSession", executor_id: str, reason: str) -> str:
    """Which executor was lost, where, with what exit code and likely cause, in one line.

    Args:
        reason: Spark's words, which hold the exit code where Spark has one.
    """
    cause = exit_cause(reason)
    told = f"executor {executor_id} on {executor_host(spark, executor_id)} was lost: {' '.join(reason.split())}"
    return f"{told}, {cause}" if cause else told


def _working(spark: "SparkSession") -> list[Any]:
    local = is_local(spark)
    return [entry for entry in _executors(spark, active_only=True) if local or entry.id() != "driver"]


def is_local(spark: "SparkSession") -> bool:
    """Whether the driver is the only executor."""
    return spark.sparkContext._jsc.sc().isLocal()


def _executor(spark: "SparkSession", executor_id: str) -> Any:
    (found,) = [entry for entry in _executors(spark, active_only=False) if entry.id() == executor_id]
    return found


def _executors(spark: "SparkSession", *, active_only: bool) -> list[Any]:
    found = spark.sparkContext._jsc.sc().statusStore().executorList(active_only)
    return [found.apply(i) for i in range(found.size())]
