"""What the tests of the BigDL engine share."""

import time
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from converted_models import ENGINES
from jvm_data import Jvm


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def jvm(spark: SparkSession) -> Jvm:
    return Jvm(spark)


@pytest.fixture
def no_thread_is_left(jvm: Jvm) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while jvm.threads() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert jvm.threads() == []
