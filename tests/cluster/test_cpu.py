"""What the executors' processors can do."""

from pyspark.sql import SparkSession

from insitu.cluster.cpu import cpu_flags, executors_cpu_flags


def test_executors_on_this_machine_have_its_processors_flags(spark: SparkSession) -> None:
    assert executors_cpu_flags(spark) == cpu_flags()
