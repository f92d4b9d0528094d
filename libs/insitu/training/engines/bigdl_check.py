"""Rows that pass the scan and that the BigDL engine cannot decode, found before it trains."""

import json
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from insitu.data.pipeline import Source
from insitu.data.plan import Rows, plan_shards
from insitu.data.scan import MAX_BAD_RECORDS, Refusals
from insitu.errors import WorkerError
from insitu.training.engines.bigdl import source_json, write_plan

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TASKS_PER_CORE = 4


def refused_rows(spark: "SparkSession", rows: Sequence[Rows], source: Source) -> Refusals:
    """Read and decode each row once in the executors' JVMs, by the code that the engine trains with.

    Args:
        spark: the session whose executors do it.
        rows: what the scan found to be good; at least one row.
        source: the rows' columns and what they become.

    Returns:
        the rows that cannot be had, with the reason, as `insitu.data.scan.scan` takes them.

    Raises:
        WorkerError: a file cannot be read in the JVM at all; the message is Java's.
    """
    from py4j.protocol import Py4JJavaError

    tasks = min(sum(map(len, rows)), _TASKS_PER_CORE * spark.sparkContext.defaultParallelism)
    plan = plan_shards(rows, workers=tasks, local_batch=1, window_rows=1, seed=0)
    jvm: Any = spark.sparkContext._jvm
    with TemporaryDirectory(prefix="insitu-") as scratch:
        uri = f"file://{scratch}/plan.parquet"
        write_plan(plan, uri)
        try:
            found = jvm.com.intel.analytics.bigdl.insitu.RowCheck.refused(
                spark._jsparkSession, source_json(source), uri, MAX_BAD_RECORDS
            )
        except Py4JJavaError as error:
            raise WorkerError(f"BigDL cannot read the rows:\n{error.java_exception}") from None
    refusals: dict[tuple[str, int], dict[int, str]] = {}
    for group in json.loads(found):
        told = dict.fromkeys(group["rows"], "BigDL cannot decode it")
        for row, reason in zip(group["rows"], group["reasons"], strict=False):  # of the first rows
            told[row] = f"BigDL cannot decode it: {reason}"
        refusals.setdefault((group["path"], group["rowGroup"]), {}).update(told)
    return refusals
