"""The executors of a running Spark application."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def executor_cores(spark: "SparkSession") -> list[int]:
    """The number of cores of each executor that has registered; in local mode the driver is the only one.

    Spark's own list is asked because `spark.executor.cores` is not set on a standalone cluster
    unless the user sets it (BigDL's `Engine.init` refuses to start there).
    """
    return [int(executor.totalCores()) for executor in _working(spark)]


def executor_ids(spark: "SparkSession") -> list[str]:
    """The ids of these executors, in the same order."""
    return [str(executor.id()) for executor in _working(spark)]


def executor_host(spark: "SparkSession", executor_id: str) -> str:
    """The host of an executor, also of one that is lost."""
    (found,) = [entry for entry in _executors(spark, active_only=False) if entry.id() == executor_id]
    return str(found.hostPort()).rpartition(":")[0]


def _working(spark: "SparkSession") -> list[Any]:
    local = is_local(spark)
    return [entry for entry in _executors(spark, active_only=True) if local or entry.id() != "driver"]


def is_local(spark: "SparkSession") -> bool:
    """Whether the driver is the only executor."""
    return spark.sparkContext._jsc.sc().isLocal()


def _executors(spark: "SparkSession", *, active_only: bool) -> list[Any]:
    found = spark.sparkContext._jsc.sc().statusStore().executorList(active_only)
    return [found.apply(i) for i in range(found.size())]
