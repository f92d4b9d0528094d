"""jobs/ingest.py, as a user runs it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyspark.sql import SparkSession


def test_a_folder_becomes_a_data_set(
    spark: SparkSession, tmp_path: Path, run_here: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="insitu")  # which the job sets too, and which is set back
    rng = np.random.default_rng(3)
    for number in range(30):
        path = tmp_path / "data" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).save(path)
    summary = run_here("jobs/ingest.py", "--data", tmp_path / "data", "--output", tmp_path / "out")
    assert summary.pop("seconds") > 0
    assert summary.pop("train") + summary.pop("validation") == 30
    assert summary == {
        "output": str(tmp_path / "out"),
        "rows": 30,
        "classes": ["cat", "dog"],
        "quarantined": 0,
        "files": 30,
        "labels_without_file": 0,
    }
    assert "30 files, 2 classes" in caplog.text
    assert list((tmp_path / "out").glob("*.parquet"))


def test_a_mistake_is_one_line_and_exit_2(tmp_path: Path, submit: Callable) -> None:
    done = submit("jobs/ingest.py", "--data", tmp_path / "nowhere", "--output", tmp_path / "out")
    expected = f"ingest: --data: {tmp_path}/nowhere matches no file; name a folder of images or a glob"
    assert done.returncode == 2
    assert (done.stdout + done.stderr).splitlines() == [expected]
