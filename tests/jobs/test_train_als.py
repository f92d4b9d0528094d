"""The recommendation jobs from their command lines, as a user runs them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from conftest import ROOT, Submitted
from insitu import artifact

TRAIN, RECOMMEND = "jobs/train_als.py", "jobs/recommend.py"
RECIPE = "conf/recipes/als.yaml"
SIZES = {"ratings": 2000, "users": 100, "items": 50, "rank": 2, "noise": 0.1}


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic ratings, made by the `insitu` command."""
    output = tmp_path_factory.mktemp("ratings") / "data"
    options = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]
    command = ["insitu", "data", "ratings", str(output), *options]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return output


@pytest.mark.slow
def test_train_show_and_recommend(submit: Callable[..., Submitted], ratings: Path, tmp_path: Path) -> None:
    chosen = ("rank=2", "reg=0.001", "iterations=5", "user_blocks=2", "item_blocks=2")
    settings = [word for setting in chosen for word in ("--set", f"model.{setting}")]
    command = (TRAIN, "--recipe", RECIPE, "--data", ratings, "--output", tmp_path / "model", *settings)
    trained = submit(*command)
    assert trained.summary["metrics"]["rmse"] <= 1.3 * SIZES["noise"]
    assert len(trained.stdout.splitlines()) == 1
    again = submit(*command)
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith(f"train_als: --output: file://{tmp_path}/model exists; ")
    shown = subprocess.run(["insitu", "show", tmp_path / "model"], capture_output=True, text=True, check=True).stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == "model ALS, rank 2, explicit, 100 users, 50 items"
    assert f"rmse {trained.summary['metrics']['rmse']:.4f}" in lines
    assert json.loads(lines[-1])["metrics"] == trained.summary["metrics"]
    top = tmp_path / "top"
    listed = submit(RECOMMEND, "--model", tmp_path / "model", "--output", top, "--top", 3, "--filter-seen")
    assert (listed.summary["users"], listed.summary["rows"]) == (100, 300)
    found = pq.read_table(top, columns=["user", "item"]).to_pylist()
    rated = pq.read_table(ratings, columns=["user", "item"]).to_pylist()
    assert not {(row["user"], row["item"]) for row in found} & {(row["user"], row["item"]) for row in rated}


@pytest.mark.slow
def test_a_report_that_cannot_be_drawn_costs_no_model_and_ends_with_3(
    submit: Callable[..., Submitted], ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    settings = ("--set", "model.rank=2", "--set", "model.iterations=2")
    run = submit(TRAIN, "--recipe", RECIPE, "--data", ratings, "--output", tmp_path / "model", *settings)
    assert run.returncode == 3
    not_done = json.loads(run.stdout.splitlines()[-1])["not_done"]
    assert not_done.startswith(f"file://{tmp_path}/model is published, but its report cannot be drawn (ValueError: ")
    assert run.stderr.splitlines()[-1] == f"train_als: {not_done}"
    artifact.verify(str(tmp_path / "model"), part=artifact.ALS, setting="DIR")


def test_missing_file_is_one_line_and_exit_2(submit: Callable[..., Submitted], tmp_path: Path) -> None:
    done = submit(TRAIN, "--recipe", RECIPE, "--data", tmp_path / "no.csv", "--output", tmp_path / "model")
    assert done.returncode == 2
    expected = "does not exist; name a CSV file with a header, or a Parquet directory"
    assert (done.stdout + done.stderr).splitlines() == [f"train_als: --data: file://{tmp_path}/no.csv {expected}"]
    assert list(tmp_path.iterdir()) == []
