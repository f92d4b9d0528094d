"""What the executors' processors can do."""

import pytest
from pyspark.sql import SparkSession

from insitu.cluster.cpu import bf16_is_faster, cpu_flags, executors_cpu_flags, trains_in_bf16


def test_executors_on_this_machine_have_its_processors_flags(spark: SparkSession) -> None:
    assert executors_cpu_flags(spark) == cpu_flags()


@pytest.mark.parametrize(
    ("flags", "faster"),
    [
        ("avx512f", False),
        ("avx512f avx512_bf16", True),
        ("avx512f avx512_bf16 avx512_fp16", False),
        ("avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile", True),
    ],
)
def test_bf16_is_taken_where_it_is_faster(flags: str, faster: bool) -> None:
    assert bf16_is_faster(frozenset(flags.split())) is faster


@pytest.mark.parametrize(("flags", "can"), [("avx2 fma", False), ("avx2 avx512f avx512bw avx512dq avx512vl", True)])
def test_bf16_needs_avx512(flags: str, can: bool) -> None:
    assert trains_in_bf16(frozenset(flags.split())) is can
