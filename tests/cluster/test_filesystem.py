"""Paths as Spark resolves them, and as Python opens them."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from insitu.cluster.filesystem import open_filesystem, qualify
from insitu.errors import UserError


def test_relative_path_is_below_the_working_directory_of_spark(spark: SparkSession) -> None:
    qualified = qualify(spark, "--data", "some/xrays")
    assert qualified.startswith("file:///")
    assert qualified.endswith("/some/xrays")


@pytest.mark.parametrize("name", ["xrays", "with space", "ümlaut"])
def test_absolute_path_is_the_same_directory_to_spark_and_python(
    spark: SparkSession, tmp_path: Path, name: str
) -> None:
    local = tmp_path / name
    qualified = qualify(spark, "--data", str(local))
    assert qualified == f"file://{local}"
    assert qualify(spark, "--data", qualified) == qualified
    spark.range(3).write.parquet(qualified)
    file_system, path = open_filesystem(qualified)
    assert path == str(local)
    assert file_system.exists(f"{path}/_SUCCESS")


def test_hdfs_path_keeps_its_namenode(spark: SparkSession) -> None:
    assert qualify(spark, "--data", "hdfs://127.0.0.1:8020/data/xrays") == "hdfs://127.0.0.1:8020/data/xrays"


def test_path_without_scheme_goes_to_the_default_file_system(spark: SparkSession) -> None:
    assert spark.sparkContext._jsc is not None
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    usual = hadoop.get("fs.defaultFS")
    hadoop.set("fs.defaultFS", "hdfs://127.0.0.1:8020")
    try:
        assert qualify(spark, "--data", "/data/xrays") == "hdfs://127.0.0.1:8020/data/xrays"
    finally:
        hadoop.set("fs.defaultFS", usual)


@pytest.mark.parametrize(
    ("path", "reason"), [("nosuch://host/data", 'No FileSystem for scheme "nosuch"'), ("", "empty string")]
)
def test_path_that_spark_cannot_resolve_is_refused_by_its_setting(spark: SparkSession, path: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"--output: Spark cannot resolve '{path}' \(.*{reason}.*\); mend the path"):
        qualify(spark, "--output", path)


def test_scheme_without_a_python_client_is_refused() -> None:
    with pytest.raises(UserError, match=r"nosuch://host/data: no Python client for nosuch:// .*; install it"):
        open_filesystem("nosuch://host/data")
