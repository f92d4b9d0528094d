"""Python's `map`, done by the executors."""

from pyspark.sql import SparkSession

from insitu.artifact import Each

_TASKS_PER_CORE = 4


def on_executors(spark: SparkSession) -> Each:
    """What calls a function with each of a list's elements on the executors, and gives the results in order."""

    def each(function, names):  # type: ignore[no-untyped-def]
        tasks = max(1, min(len(names), _TASKS_PER_CORE * spark.sparkContext.defaultParallelism))
        return spark.sparkContext.parallelize(names, tasks).map(function).collect()

    return each
