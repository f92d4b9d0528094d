"""Executors that are killed cost a fit nothing but time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import SEED, Submitted
from recommend.planted import planted

JOB = Path(__file__).parent / "losing_als.py"


@pytest.mark.slow
def test_killed_executors_cost_only_iterations(
    submit: Callable[..., Submitted], standalone: str, tmp_path: Path
) -> None:
    """One alone costs that under way; both at once, with all copies of the factors, those since the last checkpoint."""
    table = planted(np.random.default_rng(SEED), users=3000, items=800, ratings=200_000)
    table.to_parquet(tmp_path / "ratings.parquet")
    runs = {}
    for name, kills in (("undisturbed", "[]"), ("killed", "[[3, 1], [12, 2], [18, 1]]")):
        checkpoints = tmp_path / f"{name}-checkpoints"
        runs[name] = submit(JOB, tmp_path / "ratings.parquet", tmp_path / name, kills, checkpoints, master=standalone)
    told = [entry["iteration"] for entry in runs["killed"].summary["history"]]
    assert told == list(range(1, 31))
    ours, theirs = (pd.read_parquet(tmp_path / name).set_index("id").sort_index() for name in ("killed", "undisturbed"))
    np.testing.assert_allclose(np.stack(ours["features"]), np.stack(theirs["features"]), atol=1e-3)
    assert runs["killed"].stderr.count("kill: ") == 4
