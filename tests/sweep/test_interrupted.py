"""A real sweep from the command line: a trial that diverges, an interruption, and going on."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pyspark.sql import SparkSession

from insitu.errors import UserError
from insitu.sweep.space import parse_space
from insitu.sweep.trials import sweep
from standalone import stop_group
from sweep.swept import BATCH, recipe_and_data, rows

pytestmark = pytest.mark.nightly

OPTIMIZERS = (
    "training.optimizer={name: adam, learning_rate: 0.001},{name: adam, learning_rate: 0.002},"
    "{name: sgd, learning_rate: 1.0e+30}"
)
"""The trials run in another order: the first, the last, which diverges, and the second."""
TWO_TRIALS_S = 300


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return recipe_and_data(tmp_path_factory.mktemp("sweep"))


def start(given: dict[str, Any], output: Path) -> subprocess.Popen[str]:
    program = str(Path(sys.executable).parent / "insitu")
    command = [program, "sweep", "--recipe", given["recipe"], "--data", given["data"], "--output", str(output)]
    return subprocess.Popen(
        [*command, "--grid", BATCH, "--grid", OPTIMIZERS],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def interrupted(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a sweep that got SIGTERM in its third trial, after a checkpoint."""
    output = tmp_path_factory.mktemp("swept") / "sweep"
    process = start(given, output)
    try:
        deadline = time.monotonic() + TWO_TRIALS_S
        while not any(output.glob("runs/002-*.run/checkpoints/step-*")):
            assert process.poll() is None and time.monotonic() < deadline, "no checkpoint of the third trial"
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        stop_group(process)
    return output


@pytest.fixture(scope="module")
def lines(given: dict[str, Any], interrupted: Path) -> Iterator[list[str]]:
    """What the same command prints when it is given again; the sweep is finished then."""
    before = {path: path.stat().st_mtime_ns for path in interrupted.glob("runs/000-*/*")}
    process = start(given, interrupted)
    try:
        stdout, _ = process.communicate(timeout=TWO_TRIALS_S)
    finally:
        stop_group(process)
    assert process.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a finished trial was repeated"
    yield stdout.splitlines()


def test_summary_and_table_tell_every_trial(lines: list[str], interrupted: Path) -> None:
    header, *trials, last = lines
    assert header.split() == [
        *("trial", "global_batch", "optimizer", "accuracy", "loss"),
        *("images_per_second", "seconds_per_epoch", "status"),
    ]
    assert len(trials) == 3
    summary = json.loads(last)
    assert {key: summary[key] for key in ("metric", "trials", "failed")} == {
        "metric": "accuracy",
        "trials": 3,
        "failed": 1,
    }
    assert summary["best"]["accuracy"] == max(float(row["accuracy"]) for row in rows(interrupted) if row["accuracy"])


def test_a_trial_has_a_row_with_its_figures(lines: list[str], interrupted: Path) -> None:
    (row,) = (row for row in rows(interrupted) if row["training.optimizer"] == "{name: adam, learning_rate: 0.001}")
    metrics = json.loads((Path(row["output"].removeprefix("file://")) / "metrics.json").read_text())
    assert (row["training.global_batch"], row["status"]) == ("32", "complete")
    assert (float(row["accuracy"]), float(row["loss"])) == (metrics["accuracy"], metrics["loss"])
    seconds = float(row["seconds_per_epoch"])
    assert seconds == pytest.approx(64 / float(row["images_per_second"]), rel=0.05, abs=0.005)


def test_the_interrupted_trial_went_on_from_its_checkpoint(lines: list[str], interrupted: Path) -> None:
    (trial,) = interrupted.glob("runs/002-*")
    provenance = json.loads((trial / "provenance.json").read_text())
    assert [driver["first_step"] for driver in provenance["drivers"]] == [0, provenance["run"]["resumed_from_step"]]
    assert provenance["run"]["resumed_from_step"] >= 1
    assert [row["status"] for row in rows(interrupted)][2] == "complete"


def test_a_trial_that_diverged_has_a_row_with_its_reason(lines: list[str], interrupted: Path) -> None:
    (row,) = (row for row in rows(interrupted) if "sgd" in row["training.optimizer"])
    assert "training diverged: 33 of 33 rows have NaN scores" in row["status"]
    assert row["accuracy"] == row["loss"] == row["output"] == ""


def test_picture_has_a_panel_each_for_metric_loss_and_time(lines: list[str], interrupted: Path) -> None:
    picture = ElementTree.parse(interrupted / "sweep.svg")
    words = {(text.text or "").strip() for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert words >= {"validation accuracy", "validation loss", "seconds an epoch", "training.global_batch"}
    assert words >= {"32", "{name: adam, learning_rate: 0.001}"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"space": [("--grid", "training.seed=1,2")]}, r"--grid or --range: the sweep in .* another value; give the"),
        ({"settings": ["training.epochs=2"]}, "--recipe or --set: the sweep in .* was begun with another value"),
        ({"seed": 18}, "--seed: the sweep in .* was begun with another value"),
    ],
)
def test_other_arguments_on_the_same_directory_are_refused_by_name(
    change: dict[str, Any], problem: str, spark: SparkSession, given: dict[str, Any], interrupted: Path
) -> None:
    entries = change.pop("space", [("--grid", BATCH), ("--grid", OPTIMIZERS)])
    with pytest.raises(UserError, match=problem):
        sweep(spark, **given, output=str(interrupted), space=parse_space(entries), **change)
