"""The executors of a real session, as training asks for them."""

import pytest
from pyspark.sql import SparkSession

from insitu.cluster import executors


def test_executors_that_do_not_come_are_waited_for_and_given_up(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_REPLACED_SECONDS", 1)
    assert executors.wait_for_executors(spark, 1) == ["driver"]
    assert executors.wait_for_executors(spark, 2) == ["driver"]
