"""What the processor can do."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
_TASKS_PER_CORE = 4


def cpu_flags() -> frozenset[str]:
    """The feature flags of this machine's processor, as Linux names them; empty elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return frozenset()
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    return next((frozenset(flags.split()) for name, _, flags in lines if name.strip() == "flags"), frozenset())


def executors_cpu_flags(spark: "SparkSession") -> frozenset[str]:
    """The feature flags that the processors of all executors have.

    Spark cannot be told where a task runs: four small tasks a core are dealt out, and every
    executor that ran one of them counts.
    """
    tasks = _TASKS_PER_CORE * spark.sparkContext.defaultParallelism
    found = spark.sparkContext.parallelize(range(tasks), tasks).map(lambda _: cpu_flags()).collect()
    return frozenset.intersection(*found)
