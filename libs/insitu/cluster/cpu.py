"""What the processor can do."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TASKS_PER_CORE = 4
_AVX512_CORE = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})


def cpu_flags() -> frozenset[str]:
    """The feature flags of this machine's processor, as Linux names them; empty elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return frozenset()
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    return next((frozenset(flags.split()) for name, _, flags in lines if name.strip() == "flags"), frozenset())


def trains_in_bf16(flags: frozenset[str]) -> bool:
    """Whether oneDNN has bf16 for processors with these flags: where it computes in `avx512_core` or more.

    Elsewhere ITEX ends the process with oneDNN's "object is not initialized".
    Source: oneDNN's "Data Types", https://uxlfoundation.github.io/oneDNN/dev_guide_data_types.html
    """
    return flags >= _AVX512_CORE


def bf16_is_faster(flags: frozenset[str]) -> bool:
    """Whether processors with these flags train in bf16 faster than in fp32.

    Those with AMX do, and those with AVX512_BF16. But Intel's cores since Sapphire Rapids, told by AVX512_FP16, have
    AVX512_BF16 beside AMX: where a hypervisor hides AMX, it alone trains DenseNet-121 at 0.7 of the speed of fp32.
    """
    return "amx_bf16" in flags or ("avx512_bf16" in flags and "avx512_fp16" not in flags)


def executors_cpu_flags(spark: "SparkSession") -> frozenset[str]:
    """The feature flags that the processors of all executors have.

    Spark cannot be told where a task runs: four small tasks a core are dealt out, and every
    executor that ran one of them counts.
    """
    tasks = _TASKS_PER_CORE * spark.sparkContext.defaultParallelism
    found = spark.sparkContext.parallelize(range(tasks), tasks).map(lambda _: cpu_flags()).collect()
    return frozenset.intersection(*found)
