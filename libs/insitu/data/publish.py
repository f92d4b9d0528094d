"""A data set appears whole or not at all: written under a temporary name, then renamed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from pyspark.sql import SparkSession

from insitu.cluster.filesystem import qualify
from insitu.errors import UserError


@contextmanager
def publishing(spark: SparkSession, setting: str, output: str) -> Iterator[str]:
    """A temporary sibling of `output` to write to, renamed to `output` where the block succeeds.

    Where the block fails, the temporary directory is deleted and nothing appears.

    Args:
        setting: what the user calls the output, for the error line.
        output: a directory that does not exist, on any file system that Spark knows.

    Raises:
        UserError: `output` exists, before the block or by the time it ends.
    """
    hadoop: Any = spark.sparkContext._jvm.org.apache.hadoop.fs  # type: ignore[union-attr]
    final = hadoop.Path(qualify(spark, setting, output))
    partial = hadoop.Path(final.getParent(), f".{final.getName()}.{uuid4().hex[:8]}.partial")
    file_system = final.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    _refuse_existing(file_system, final, setting, output)
    try:
        yield str(partial.toString())
        _refuse_existing(file_system, final, setting, output)
        if not file_system.rename(partial, final):
            raise OSError(f"cannot rename {partial.toString()} to {final.toString()}")
    finally:
        file_system.delete(partial, True)


def _refuse_existing(file_system: Any, path: Any, setting: str, output: str) -> None:
    if file_system.exists(path):
        raise UserError(setting, f"{output} exists", "name a new directory, or remove this one first")
