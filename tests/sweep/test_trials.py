"""A real sweep from the command line: a trial that diverges, an interruption, and going on."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import optuna
import psutil
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pyspark.sql import SparkSession

from insitu.errors import UserError
from insitu.sweep import trials
from insitu.sweep.results import Results
from insitu.sweep.space import parse_space
from insitu.sweep.trials import sweep
from standalone import stop_group
from training.digits_rows import digit_rows, recipe_tree, write_rows
from training.killing_job import Killer

BATCH = "training.global_batch=32"
OPTIMIZERS = (
    "training.optimizer={name: adam, learning_rate: 0.001},{name: adam, learning_rate: 0.002},"
    "{name: sgd, learning_rate: 1.0e+30}"
)
"""The trials run in another order: the first, the last, which diverges, and the second."""
TWO_TRIALS_S = 300


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe file and a dataset."""
    directory = tmp_path_factory.mktemp("sweep")
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe_tree(epochs=10, checkpoint={"every_steps": 1})))
    return {"recipe": str(directory / "recipe.yaml"), "data": write_rows(directory / "data", digit_rows())}


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


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "sweep.csv").open(newline="") as source:
        return list(csv.DictReader(source))


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


@pytest.mark.parametrize(
    ("entries", "random", "problem"),
    [
        ([("--grid", "training.epocs=1,2")], None, r"training\.epocs: unknown key; did you mean epochs\?"),
        ([("--grid", "training.epochs=1,0")], None, r"training\.epochs: .*greater than 0, got 0"),
        ([("--grid", "model.name=squeezenet,squeezent")], None, r"model\.name: no topology 'squeezent'"),
        ([("--grid", "model.normalization=none,group")], None, r"model\.normalization: squeezenet cannot have 'group'"),
        ([("--range", "training.seed=1:9")], None, "--range: a grid has no ranges; add --random N"),
        ([("--range", "training.global_batch=-4:0")], 3, r"training\.global_batch: "),
        ([("--grid", BATCH)], 0, "--random: expected a number of trials, got 0; give 1 or more"),
    ],
)
def test_no_trial_runs_where_one_is_wrong(
    entries: list[tuple[str, str]],
    random: int | None,
    problem: str,
    spark: SparkSession,
    given: dict[str, Any],
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=problem):
        sweep(spark, **given, output=str(tmp_path / "sweep"), space=parse_space(entries), random=random)
    assert list(tmp_path.iterdir()) == []


def test_summary_tells_what_of_a_trial_was_not_done() -> None:
    study = optuna.create_study(direction="maximize")
    for number in range(3):
        trial = study.ask()
        if number:
            trial.set_user_attr("not_done", f"no report of {number}")
        study.tell(trial, 0.5)
    assert Results(study, {}, "accuracy").summary()["not_done"] == "no report of 1; no report of 2"


@pytest.mark.parametrize(("rows", "alike"), [(["a", "a"], True), (["a", "b"], False), ([], True)])
def test_trials_on_other_validation_rows_are_not_alike(rows: list[str], alike: bool) -> None:
    study = optuna.create_study(direction="maximize")
    for validated in rows:
        trial = study.ask()
        trial.set_user_attr("validated", validated)
        study.tell(trial, 0.5)
    assert Results(study, {}, "accuracy").validated_alike() == alike


def test_a_trial_whose_worker_dies_too_often_costs_no_other(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    """And is resumed by the same command."""
    gateway: Any = spark.sparkContext._gateway
    killer = Killer([(1, "training")], spark.sparkContext.applicationId, psutil.Process(gateway.proc.pid))

    def kill_after_a_checkpoint(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint":
            killer({"event": "step", "step": event["step"]})

    arguments: dict[str, Any] = {
        **given,
        "settings": ["training.epochs=3", "training.max_restarts=0", "training.checkpoint.every_steps=1"],
        "output": str(tmp_path / "sweep"),
        "space": parse_space([("--grid", "training.seed=1,2")]),
        "listener": kill_after_a_checkpoint,
    }
    summary = sweep(spark, **arguments)
    assert (summary["trials"], summary["failed"]) == (2, 1)
    first, second = sorted(rows(tmp_path / "sweep"), key=lambda row: row["trial"])
    assert first["status"].endswith(
        "exit code 137 (SIGKILL): someone or a resource manager killed it; the kernel was not out of memory"
    )
    assert second["status"] == "complete"
    summary = sweep(spark, **arguments)
    assert (summary["trials"], summary["failed"]) == (2, 0)
    again, same = sorted(rows(tmp_path / "sweep"), key=lambda row: row["trial"])
    assert (again["status"], again["training.seed"], same) == ("complete", first["training.seed"], second)
    provenance = json.loads((Path(again["output"].removeprefix("file://")) / "provenance.json").read_text())
    assert [driver["first_step"] for driver in provenance["drivers"]] == [0, provenance["run"]["resumed_from_step"]]


@pytest.mark.parametrize(
    ("cause", "line"),
    [
        ("rank 0 on a: exit code 137", "rank 0 on a: exit code 137"),
        (
            "rank 0 on a:\nTraceback (most recent call last):\n  File x, line 3\n    run()\nKeyError: 'b'\n",
            "rank 0 on a: KeyError: 'b'",
        ),
        (
            "rank 0 on a:\njava.lang.X: no\n\tat x.Y\nCaused by: java.io.Z: full\n\tat z\n\nDriver stacktrace:",
            "rank 0 on a: Caused by: java.io.Z: full",
        ),
    ],
    ids=["a line", "Python", "Java"],
)
def test_a_reason_is_who_failed_and_of_what(cause: str, line: str) -> None:
    assert trials._in_a_line(cause) == line


def test_a_directory_that_is_no_sweep_is_left_alone(spark: SparkSession, given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--output: .* exists; name a new directory"):
        sweep(spark, **given, output=str(tmp_path), space=parse_space([("--grid", BATCH)]))


def test_a_grid_has_every_combination_once(spark: SparkSession, given: dict[str, Any], tmp_path: Path) -> None:
    """The sweep ends in its first trial: there is no such data."""
    space = parse_space([("--grid", "training.global_batch=8,16,32"), ("--grid", "training.precision=fp32,bf16")])
    nothing = given | {"data": str(tmp_path / "absent")}
    with pytest.raises(UserError, match="--data"):
        sweep(spark, **nothing, output=str(tmp_path / "sweep"), space=space)
    found = [tuple(params[key] for key in space) for params in drawn(tmp_path / "sweep")]
    assert sorted(found) == [(batch, precision) for batch in (8, 16, 32) for precision in ("bf16", "fp32")]


def test_random_search_draws_within_the_ranges_and_the_same_again(
    spark: SparkSession, given: dict[str, Any], tmp_path: Path
) -> None:
    """Both sweeps end in their first trial: there is no such data."""
    rate = "training.optimizer.learning_rate"
    space = parse_space([("--range", f"{rate}=0.0001:0.1:log"), ("--grid", "training.seed=1,2")])
    arguments: dict[str, Any] = {
        "recipe": given["recipe"],
        "data": str(tmp_path / "absent"),
        "space": space,
        "random": 5,
    }
    for name in ("first", "second"):
        with pytest.raises(UserError, match="--data"):
            sweep(spark, output=str(tmp_path / name), **arguments)
    first, second = drawn(tmp_path / "first"), drawn(tmp_path / "second")
    assert first == second
    assert len({params[rate] for params in first}) == 5
    assert all(0.0001 <= params[rate] <= 0.1 for params in first)
    assert {params["training.seed"] for params in first} <= {1, 2}


def drawn(output: Path) -> list[dict[str, Any]]:
    """The settings of a sweep's trials, none of which ran."""
    storage = JournalStorage(JournalFileBackend(str(output / "sweep.journal")))
    return [
        trial.system_attrs["fixed_params"] for trial in optuna.load_study(study_name="sweep", storage=storage).trials
    ]
