"""However often the scoring job is killed, each row ends in its tables once."""

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import ROOT, SEED, spark_submit
from scored_models import IMAGES, random_model, write_model
from standalone import stop_group

JOB = "jobs/score_batch.py"
FILES, ROWS = 20, 7
KILLS = 20


def write_files(folder: Path, first: int) -> None:
    """Files of some images, the last of each no image."""
    for number in range(first, first + FILES):
        rows = [(number * ROWS + row) for row in range(ROWS)]
        images = [IMAGES[row % len(IMAGES)] for row in rows[:-1]] + [b"no image"]
        pq.write_table(pa.table({"id": [f"{row:04d}" for row in rows], "image": images}), folder / f"{number}.parquet")


def killed(arguments: list[str], rng: random.Random) -> bool:
    """Run the job, and kill all of its processes at a random moment of one of its first batches.

    Returns:
        Whether it was killed; False where it ended before.
    """
    process = subprocess.Popen(
        ["spark-submit", "--master", "local[2]", "--conf", "spark.ui.enabled=false", JOB, *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    batches = threading.Semaphore(0)
    stderr = process.stderr

    def listen() -> None:
        for line in stderr:
            if line.startswith("batch "):
                batches.release()

    threading.Thread(target=listen, daemon=True).start()
    try:
        for _ in range(rng.randint(1, 4)):
            while not batches.acquire(timeout=0.05) and process.poll() is None:
                pass
        time.sleep(rng.uniform(0, 2))
        if process.poll() is not None:
            assert process.returncode == 0
            return False
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    finally:
        stop_group(process)


def rows_of(output: Path, name: str) -> pa.Table:
    return pq.read_table(output / name).sort_by("id")


@pytest.mark.slow
def test_no_row_is_lost_and_none_comes_twice(tmp_path: Path) -> None:
    model = write_model(random_model("squeezenet"), tmp_path / "models", with_ir=True)
    data = tmp_path / "data"
    data.mkdir()
    given = ["--model", model, "--data", str(data), "--max-bad-fraction", "0.2"]
    disturbed = [*given, "--output", str(tmp_path / "disturbed"), "--files-per-batch", "1"]
    rng = random.Random(SEED)
    kills = files = 0
    while kills < KILLS:
        write_files(data, files)
        files += FILES
        while kills < KILLS and killed(disturbed, rng):
            kills += 1
    disturbed[-1] = "1000"  # the rest at once
    assert spark_submit(JOB, *disturbed).returncode == 0
    assert spark_submit(JOB, *given, "--output", tmp_path / "undisturbed").summary["rows"] == files * ROWS
    for name in ("scores", "quarantine"):
        found, expected = (rows_of(tmp_path / run, name)["id"].to_pylist() for run in ("disturbed", "undisturbed"))
        assert found == expected, f"seed {SEED}"
    ours, theirs = (
        np.array([[value for _, value in row] for row in rows_of(tmp_path / run, "scores")["scores"].to_pylist()])
        for run in ("disturbed", "undisturbed")
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert spark_submit(JOB, *disturbed).summary["rows"] == 0
