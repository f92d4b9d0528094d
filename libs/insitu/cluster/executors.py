"""The executors of a running Spark application."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def executor_cores(spark: "SparkSession") -> list[int]:
    """The number of cores of each executor that has registered; in local mode the driver is the only one.

    Spark's own list is asked because `spark.executor.cores` is not set on a standalone cluster
    unless the user sets it (BigDL's `Engine.init` refuses to start there).
    """
    assert spark.sparkContext.master is not None
    found = spark.sparkContext._jsc.sc().statusStore().executorList(True)
    executors = [found.apply(i) for i in range(found.size())]
    local = spark.sparkContext.master.startswith("local")
    return [int(executor.totalCores()) for executor in executors if local or executor.id() != "driver"]
