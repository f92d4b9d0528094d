"""`spark-submit jobs/score_batch.py`, as a scheduler runs it."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from conftest import Submitted
from insitu.scoring import ir
from scored_models import IMAGES, random_model, reference_of, write_model

JOB = "jobs/score_batch.py"


def test_the_same_command_every_hour(submit: Callable[..., Submitted], tmp_path: Path) -> None:
    network = random_model("squeezenet")
    model = write_model(network, tmp_path / "models", reference=reference_of(network, IMAGES * 20))
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"id": ["a", "b"], "image": IMAGES[:2]}), tmp_path / "data/1.parquet")
    (tmp_path / "thresholds.yaml").write_text("default: 0.9\n")
    precision = "bf16" if ir.has_bf16() else "fp32"
    options = ("--thresholds", tmp_path / "thresholds.yaml", "--precision", precision)
    command = (JOB, "--model", model, "--data", tmp_path / "data", "--output", tmp_path / "out", *options)
    first = submit(*command)
    assert first.summary["rows"] == 2
    assert first.summary["precision"] == precision
    assert len(first.stdout.splitlines()) == 1
    assert "batch 0: 1 files" in first.stderr
    blank = io.BytesIO()
    Image.new("L", (45, 38)).save(blank, "PNG")
    pq.write_table(
        pa.table({"id": list("abcdefghijklmno"), "image": [blank.getvalue()] * 15}), tmp_path / "data/2.parquet"
    )
    drifted = submit(*command, "--alarm-exit-code", 7)
    assert drifted.returncode == 7, drifted.stderr
    assert json.loads(drifted.stdout)["alarms"][0]["statistic"] == "input_mean"
    assert pq.read_table(tmp_path / "out/scores").num_rows == 17, "rows were scored again"


def test_a_mistake_is_one_line_and_exit_2(submit: Callable[..., Submitted], tmp_path: Path) -> None:
    done = submit(JOB, "--model", tmp_path / "none", "--data", tmp_path, "--output", tmp_path.with_suffix(".out"))
    (line,) = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 2
    assert line.startswith(f"score_batch: --model: file://{tmp_path}/none is no model directory")
