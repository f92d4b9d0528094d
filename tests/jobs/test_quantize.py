"""jobs/quantize.py as a user runs it; tests/scoring/test_quantize.py has what it makes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from insitu.errors import UserError


@pytest.mark.parametrize(("option", "value"), [("--sparsity", "1.5"), ("--clusters", "1")])
def test_a_wrong_value_is_told(
    spark: SparkSession, run_here: Callable, tmp_path: Path, option: str, value: str
) -> None:
    given = ("--model", tmp_path / "model", "--data", tmp_path / "data", "--output", tmp_path / "output")
    with pytest.raises(UserError, match=f"^{option}: {value}, expected "):
        run_here("jobs/quantize.py", *given, option, value)
