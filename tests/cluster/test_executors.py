"""The executors of a real session, as training asks for them."""

from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import SparkSession

from insitu.cluster import executors
from insitu.errors import UserError


def test_executors_that_do_not_come_are_waited_for_and_given_up(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_REPLACED_SECONDS", 1)
    assert executors.wait_for_executors(spark, 1) == ["driver"]
    assert executors.wait_for_executors(spark, 2) == ["driver"]


def test_executors_that_come_and_go_are_refused() -> None:
    """The session is a stand-in: Spark has no such executors in local mode."""
    jvm = SimpleNamespace(sc=lambda: SimpleNamespace(isLocal=lambda: False))
    settings = {"spark.dynamicAllocation.enabled": "true"}
    session: Any = SimpleNamespace(sparkContext=SimpleNamespace(getConf=lambda: settings, _jsc=jvm))
    with pytest.raises(UserError, match=r"spark\.dynamicAllocation\.enabled: true: executors would come and go, "):
        executors.started_executors(session)
