"""jobs/quantize.py as a user runs it; tests/scoring/test_quantize.py has what it makes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Submitted


@pytest.mark.parametrize(("option", "value"), [("--sparsity", "1.5"), ("--clusters", "1")])
def test_a_wrong_value_ends_with_two(submit: Callable[..., Submitted], tmp_path: Path, option: str, value: str) -> None:
    given = ("--model", tmp_path / "model", "--data", tmp_path / "data", "--output", tmp_path / "output")
    done = submit("jobs/quantize.py", *given, option, value)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"quantize: {option}: {value}, expected ")
