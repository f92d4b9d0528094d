"""One model for all tests that only read it."""

import pytest
from pyspark.sql import SparkSession

from recommend.trained import Planted, plant


@pytest.fixture(scope="session")
def planted(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A model directory that no test changes."""
    return plant(spark, tmp_path_factory.mktemp("planted"))
